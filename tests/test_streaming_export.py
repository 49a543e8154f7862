"""`mma-export --streaming`: parts that are the whole graph, a bundle that hardly grows, rolling only if it agrees."""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import TINY, one_line
from onnx.external_data_helper import set_external_data, uses_external_data
from streaming_bundle import SEEN

from mma_edge.bundle import Bundle, golden_inputs, read_bundle, write_manifest
from mma_edge.bundle.manifest import check_manifest
from mma_edge.engines.cpu import OnnxCpuEngine, OnnxCpuPart
from mma_edge.engines.tensorrt.onnx_file import read_graph
from mma_edge.errors import BundleError, CheckpointError, DataError, ParityError
from mma_edge.streaming import Roll, StreamingGraphs
from mma_export.streaming import gate as streaming_gate
from mma_export.streaming import parts as streaming
from mma_export.streaming.parts import add_streaming, part_file
from mma_export.weights import share_weights
from mma_trainer.model import MMADFER

STEM, EXACT, ROLLING, SEEING = map(part_file, ("stem", "exact", "rolling", "seeing"))


def graphs_of(bundle: Bundle, *rest: str) -> StreamingGraphs:
    return StreamingGraphs(*(OnnxCpuPart(bundle.folder / file) for file in (STEM, *rest)))


@pytest.fixture
def synthetic_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_gate, "collect_clips", lambda *args: SEEN)


@pytest.fixture
def work(streaming_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundle in which the parts, made from the same weights, are judged again and not made again."""
    monkeypatch.setattr(streaming, "write_parts", lambda *args: {})
    return Path(shutil.copytree(streaming_bundle.folder, tmp_path / "work"))


@pytest.mark.parametrize("clips", [1, 2])
def test_stem_and_rest_give_the_whole_graphs_logits(streaming_bundle: Bundle, clips: int) -> None:
    frames, mel = golden_inputs(50 + clips, TINY.image_size, clips)
    expected = OnnxCpuEngine(streaming_bundle.graph("fp32"), "fp32")(frames, mel)
    graphs = graphs_of(streaming_bundle, EXACT)
    tokens = graphs.stem(frames.reshape(-1, *frames.shape[2:]))
    got = graphs.window(tokens.reshape(clips, 16, *tokens.shape[1:]), mel)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("new", [1, 2, 7, 16])
def test_any_number_of_new_frames_gives_the_whole_graphs_logits_while_the_sound_stays(
    streaming_bundle: Bundle, new: int
) -> None:
    frames, mel = golden_inputs(60, TINY.image_size)
    expected = OnnxCpuEngine(streaming_bundle.graph("fp32"), "fp32")(frames, mel)
    graphs = graphs_of(streaming_bundle, ROLLING, SEEING)
    tokens = graphs.stem(frames[0])
    nothing = np.zeros((16, graphs.summary_width), np.float32)
    (first,) = graphs.roll([Roll(tokens, nothing, np.arange(16), mel[0])])
    order = np.concatenate([new + np.arange(16 - new), np.arange(new)])
    for heard in (None, first.heard):
        roll = Roll(tokens[16 - new :], first.summaries, order, mel[0], heard, frames[0, 16 - new :])
        (rolled,) = graphs.roll([roll])
        np.testing.assert_allclose(rolled.tokens, roll.tokens, atol=1e-4)
        np.testing.assert_allclose(rolled.logits, expected[0], atol=1e-4)
        np.testing.assert_allclose(rolled.summaries, first.summaries[16 - new :], atol=1e-4)
        np.testing.assert_allclose(rolled.heard, first.heard, atol=1e-4)


def test_the_weights_are_stored_once(streaming_bundle: Bundle) -> None:
    whole = streaming_bundle.graph("fp32")
    for name in (STEM, EXACT, ROLLING, SEEING):
        tensors = onnx.load(str(streaming_bundle.folder / name), load_external_data=False).graph.initializer
        outside = [tensor for tensor in tensors if uses_external_data(tensor)]
        assert outside
        for tensor in outside:
            assert {entry.key: entry.value for entry in tensor.external_data}["location"] == whole.name
        own = sum(len(tensor.raw_data) for tensor in tensors)
        assert own < 0.1 * whole.stat().st_size
    assert set(streaming_bundle.manifest["files"]) >= {STEM, EXACT, ROLLING, SEEING, whole.name}


def test_a_weight_that_the_whole_graph_lacks_stays_in_the_part(tmp_path: Path) -> None:
    inside, outside, nowhere = (sign * np.arange(600, dtype=np.float32) for sign in (1, 2, -1))
    whole, part = onnx.ModelProto(), onnx.ModelProto()
    whole.graph.initializer.extend([onnx.numpy_helper.from_array(a, n) for a, n in ((inside, "x"), (outside, "y"))])
    set_external_data(whole.graph.initializer[1], location="weights.bin", offset=3, length=outside.nbytes)
    whole.graph.initializer[1].ClearField("raw_data")
    (tmp_path / "weights.bin").write_bytes(b"odd" + outside.tobytes())
    (tmp_path / "whole.onnx").write_bytes(whole.SerializeToString())
    arrays = (inside, outside, nowhere)
    part.graph.initializer.extend([onnx.numpy_helper.from_array(a, n) for a, n in zip(arrays, "abc", strict=True)])
    assert share_weights(part, tmp_path / "whole.onnx") == inside.nbytes + outside.nbytes
    assert [uses_external_data(tensor) for tensor in part.graph.initializer] == [True, True, False]
    onnx.save(part, str(tmp_path / "part.onnx"))
    loaded = onnx.load(str(tmp_path / "part.onnx")).graph.initializer
    np.testing.assert_array_equal([onnx.numpy_helper.to_array(tensor) for tensor in loaded], arrays)


def test_zero_points_stay_where_the_rules_of_tensorrt_are_checked(tmp_path: Path) -> None:
    # Of a ViT-B's weights they are as many as its channels, and stand in both int8 graphs.
    tensor = onnx.numpy_helper.from_array(np.zeros(3072, np.int8), "zero")
    whole, part = onnx.ModelProto(), onnx.ModelProto()
    whole.graph.initializer.append(tensor)
    part.graph.initializer.append(tensor)
    (tmp_path / "whole.onnx").write_bytes(whole.SerializeToString())
    assert share_weights(part, tmp_path / "whole.onnx") == 0
    (tmp_path / "part.onnx").write_bytes(part.SerializeToString())
    assert read_graph(tmp_path / "part.onnx").constants["zero"].is_zero


def test_the_manifest_holds_the_figures_and_the_bundle_reads_them(streaming_bundle: Bundle) -> None:
    entry = read_bundle(streaming_bundle.folder).manifest["streaming"]["fp32"]
    for mode in ("exact", "rolling"):
        assert set(entry[mode]["parity"]) == {f"max_abs_logit_difference_batch_{n}" for n in (1, 2)}
        assert all(0 <= value <= 1e-4 for value in entry[mode]["parity"].values())
    assert [point["max_age_s"] for point in entry["rolling"]["curve"]] == [None, 2.0, 1.0]
    assert all(point["windows"] > 0 for point in entry["rolling"]["curve"])


def test_parts_that_differ_from_the_whole_graph_fail_the_gate(
    tiny_model: MMADFER, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OffByALittle(OnnxCpuEngine):
        def __call__(self, frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
            return super().__call__(frames, mel) + 2e-4

    monkeypatch.setattr(streaming, "OnnxCpuEngine", OffByALittle)
    with pytest.raises(ParityError, match="--streaming exact") as caught:
        add_streaming(tiny_model, work, work / "model.fp32.onnx", report=lambda line: None)
    one_line(caught.value)


def test_rolling_that_is_refused_leaves_no_graph(
    streaming_bundle: Bundle,
    tiny_model: MMADFER,
    tmp_path: Path,
    work: Path,
    synthetic_source: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming_gate, "REQUIRED_AGREEMENT", 1.01)
    lines: list[str] = []
    entry = add_streaming(tiny_model, work, work / "model.fp32.onnx", report=lines.append)
    assert "file" not in entry["fp32"]["rolling"] and not (work / ROLLING).exists() and not (work / SEEING).exists()
    assert entry["fp32"]["rolling"]["refused"] in lines[-1]
    manifest = {**streaming_bundle.manifest, "streaming": entry}
    check_manifest(tmp_path, manifest)


def test_rolling_that_fails_is_kept_and_marked_where_that_is_asked_for(
    streaming_bundle: Bundle,
    tiny_model: MMADFER,
    work: Path,
    synthetic_source: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming_gate, "REQUIRED_AGREEMENT", 1.01)
    gate = streaming_gate.PartsGate(most=8, keep_going=True)
    entry = add_streaming(tiny_model, work, work / "model.fp32.onnx", (), gate, lambda line: None)
    rolling = entry["fp32"]["rolling"]
    assert rolling["file"] == ROLLING and (work / ROLLING).is_file() and "refused" not in rolling
    assert "are required" in rolling["failed"] and rolling["curve"][0]["windows"] == 8
    marked = write_manifest(work, {**streaming_bundle.manifest, "streaming": entry})
    assert marked.parts("cpu", "fp32", "rolling").failed == rolling["failed"]


def test_a_variant_that_cannot_be_cut_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="temporal ita"):
        add_streaming(MMADFER(TINY.replace(temporal="ita")), tmp_path, tmp_path / "model.fp32.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("agreements", "bound", "refused"),
    [((1.0, 1.0, 1.0), None, False), ((0.98, 0.99, 1.0), 2.0, False), ((0.9, 0.95, 0.98), None, True)],
)
def test_rolling_ships_with_the_longest_age_that_agrees_or_not_at_all(
    monkeypatch: pytest.MonkeyPatch, synthetic_source: None, agreements: tuple, bound: float | None, refused: bool
) -> None:
    left = list(agreements)

    def compare(clips: list, streamer: object, expected: list, into: streaming_gate.Agreement) -> None:
        if into.answers:
            return
        count = round(100 * left.pop(0))
        for number in range(100):
            into.add(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0] if number < count else [0.0, 1.0]]))

    monkeypatch.setattr(streaming_gate, "compare", compare)
    graphs = type("Graphs", (), {"summary_width": 1, "keeps_sound": False})()
    windows = streaming_gate.Windows(lambda frames, mel: np.zeros((1, 2)), 16, streaming_gate.PartsGate())
    windows._full = []
    verdict = windows.judge_rolling(graphs, "fp32")
    assert verdict.get("max_age_s") == bound
    assert ("refused" in verdict) == refused
    if refused:
        assert "98.0% of 100 windows" in verdict["refused"]
    assert [point["top1_agreement"] for point in verdict["curve"]] == list(agreements)


def judged_sound(monkeypatch: pytest.MonkeyPatch, agreements: dict[float, float]) -> list[int]:
    """Lets the gate see these agreements per age of the sound; returns how many windows it saw each time."""
    seen: list[int] = []

    def figures(self: streaming_gate.Windows, graphs: object, mode: str, max_age_s: float, sound_age_s: float = 0.0):
        if not sound_age_s:
            return found(self, graphs, mode, max_age_s)
        seen.append(sum(len(clips) for clips, _ in self._full))
        return {"windows": 100, "top1_agreement": agreements[sound_age_s]}

    found = streaming_gate.Windows.figures
    monkeypatch.setattr(streaming_gate.Windows, "figures", figures)
    return seen


@pytest.mark.parametrize(
    ("agreements", "age_s"),
    [({1.0: 0.99}, 1.0), ({1.0: 0.98, 0.5: 0.99}, 0.5), ({1.0: 0.9, 0.5: 0.98, 0.25: 0.97}, None)],
)
def test_the_sound_is_kept_for_the_longest_age_that_agrees_or_not_at_all(
    streaming_bundle: Bundle,
    tiny_model: MMADFER,
    tmp_path: Path,
    work: Path,
    synthetic_source: None,
    monkeypatch: pytest.MonkeyPatch,
    agreements: dict[float, float],
    age_s: float | None,
) -> None:
    seen, lines = judged_sound(monkeypatch, agreements), []
    entry = add_streaming(tiny_model, work, work / "model.fp32.onnx", report=lines.append)
    sound = entry["fp32"]["rolling"]["sound"]
    assert [point["max_age_s"] for point in sound["curve"]] == list(agreements)
    assert sound.get("max_age_s") == age_s and (work / SEEING).exists() == (age_s is not None) == ("file" in sound)
    if age_s is None:
        assert "98.0% of 100 windows" in sound["refused"] and sound["refused"] in lines[-1]
    assert seen[0] == streaming_gate.TURNS * len(SEEN) - 2  # but those that would be alone
    written = write_manifest(work, {**streaming_bundle.manifest, "streaming": entry})
    assert written.parts("cpu", "fp32", "rolling").sound_age_s == (age_s or 0.0)


def test_the_sound_is_judged_on_full_windows_that_go_on_from_one_to_the_next() -> None:
    grown = [replace(clip, start_s=clip.start_s + 1) for clip in SEEN[:3]]
    silent = [replace(clip, mel=None) for clip in SEEN[:3]]
    other = [replace(clip, track_id=2) for clip in SEEN]
    parts = list(streaming_gate.turned([*grown, *silent, *SEEN, *other]))
    assert sum(map(len, parts)) <= 2 * streaming_gate.TURNS * len(SEEN)
    assert sum(map(len, parts)) >= 2 * (streaming_gate.TURNS - 2) * len(SEEN)
    place = {id(clip.mel): number for number, clip in enumerate(SEEN)}
    for part in parts:
        assert len({clip.track_id for clip in part}) == 1
        for before, after in itertools.pairwise(part):
            assert after.end_s > before.end_s and place[id(after.mel)] == place[id(before.mel)] + 1


def test_old_summaries_are_measured_to_be_wrong_where_the_sound_matters(streaming_bundle: Bundle) -> None:
    """Gates wide open and another sound in every window: the younger the summaries, the smaller the error."""
    curve = streaming_bundle.manifest["streaming"]["fp32"]["rolling"]["curve"]
    errors = [point["mean_abs_probability_error"] for point in curve]
    assert errors[0] > errors[1] > errors[2] > 1e-5


def test_clips_without_a_face_cannot_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_gate, "collect_clips", lambda *args: [])
    with pytest.raises(DataError, match="no face in talk") as caught:
        streaming_gate.Windows(None, 16, streaming_gate.PartsGate(("talk.mp4",)))
    one_line(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s.update(stem="none.onnx"), "streaming.fp32.stem"),
        (lambda s: s.pop("stem"), "streaming"),
        (lambda s: s["exact"].update(file="none.onnx"), "none.onnx"),
        (lambda s: s["exact"].pop("file"), "streaming.fp32.exact"),
        (lambda s: s["rolling"].update(max_age_s=0), "streaming.fp32.rolling"),
        (lambda s: s["rolling"].update(max_age_s=float("nan")), "streaming.fp32.rolling"),
        (lambda s: s["rolling"].update(refused="it is wrong"), "streaming.fp32.rolling"),
        (lambda s: s["rolling"].update(speed=9), "streaming.fp32.rolling"),
        (lambda s: s["rolling"]["sound"].update(file="none.onnx"), "none.onnx"),
        (lambda s: s["rolling"]["sound"].pop("max_age_s"), "streaming.fp32.rolling.sound"),
        (lambda s: s["rolling"]["sound"].update(refused="it is wrong"), "streaming.fp32.rolling.sound"),
        (lambda s: s.update(speed={}), "streaming.fp32"),
        (lambda s: s.update(rolling=[]), "streaming.fp32.rolling"),
    ],
)
def test_a_manifest_with_other_parts_is_refused(
    streaming_bundle: Bundle, tmp_path: Path, change: Callable[[dict], object], says: str
) -> None:
    manifest = copy.deepcopy(streaming_bundle.manifest)
    check_manifest(tmp_path, manifest)
    change(manifest["streaming"]["fp32"])
    with pytest.raises(BundleError, match=says) as caught:
        check_manifest(tmp_path, manifest)
    one_line(caught.value)


def test_an_entry_of_no_precision_is_refused(streaming_bundle: Bundle, tmp_path: Path) -> None:
    manifest = copy.deepcopy(streaming_bundle.manifest)
    manifest["streaming"]["int4"] = manifest["streaming"]["fp32"]
    with pytest.raises(BundleError, match=r"streaming\.int4"):
        check_manifest(tmp_path, manifest)
