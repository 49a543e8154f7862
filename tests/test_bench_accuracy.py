"""Promises of `mma-bench accuracy`: right figures, for each modality, with the caveat of the pseudo set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import failure_line, save_faces

onnx = pytest.importorskip("onnx")
soundfile = pytest.importorskip("soundfile")

from mma_benchmarks.cli import main  # noqa: E402
from mma_edge.bundle import golden_inputs, write_manifest  # noqa: E402
from mma_edge.bundle.manifest import AUDIO  # noqa: E402
from mma_trainer.evaluation.calibration import expected_calibration_error  # noqa: E402
from mma_trainer.labels import DFEW_LABELS as LABELS  # noqa: E402

SIZE = 16
STEP = 30.0  # class k is a face of brightness 30 k + 15
SHARPNESS = 20.0
RATE_HZ = 16_000


def brightness_logits(frames: np.ndarray) -> np.ndarray:
    """What the toy graph computes: the class whose brightness is nearest."""
    brightness = frames.mean(axis=(1, 2, 3, 4), dtype=np.float64)[:, None] / STEP - 0.5
    return (-SHARPNESS * (brightness - np.arange(7)) ** 2).astype(np.float32)


def make_bundle(folder: Path, labels: tuple[str, ...] = LABELS) -> Path:
    """A bundle that reads the class off the brightness of the face and does not listen."""
    h, T = onnx.helper, onnx.TensorProto
    constants = {
        "axes": np.array([1, 2, 3, 4]), "mel_axes": np.array([1, 2]), "one": np.array([1]),
        "step": np.float32(STEP), "half": np.float32(0.5), "zero": np.float32(0),
        "classes": np.arange(7, dtype=np.float32)[None], "sharp": np.float32(-SHARPNESS),
    }  # fmt: skip
    nodes = [
        h.make_node("Cast", ["frames"], ["f"], to=T.FLOAT),
        h.make_node("ReduceMean", ["f", "axes"], ["mean"], keepdims=0),
        h.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        h.make_node("Div", ["column", "step"], ["scaled"]),
        h.make_node("Sub", ["scaled", "half"], ["place"]),
        h.make_node("Sub", ["place", "classes"], ["distance"]),
        h.make_node("Mul", ["distance", "distance"], ["square"]),
        h.make_node("Mul", ["square", "sharp"], ["seen"]),
        h.make_node("ReduceMean", ["mel", "mel_axes"], ["heard"], keepdims=0),
        h.make_node("Unsqueeze", ["heard", "one"], ["heard_column"]),
        h.make_node("Mul", ["heard_column", "zero"], ["nothing"]),
        h.make_node("Add", ["seen", "nothing"], ["logits"]),
    ]
    inputs = [
        h.make_tensor_value_info("frames", T.UINT8, ["n", 16, SIZE, SIZE, 3]),
        h.make_tensor_value_info("mel", T.FLOAT, ["n", 512, 128]),
    ]
    outputs = [h.make_tensor_value_info("logits", T.FLOAT, ["n", 7])]
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = h.make_graph(nodes, "toy", inputs, outputs, tensors)
    folder.mkdir()
    onnx.save(
        h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=9), str(folder / "model.fp32.onnx")
    )
    (folder / "LICENSE").write_text("CC0-1.0\n")
    frames, _ = golden_inputs(0, SIZE)
    manifest = {
        "schema_version": 1, "name": "toy", "labels": list(labels), "image_size": SIZE, "num_frames": 16,
        "audio": AUDIO, "face_crop": "square-longer-side", "color": "grey", "missing_modality": {"trained": True},
        "temperature": 1.0, "opset": 18, "precisions": {"fp32": {"file": "model.fp32.onnx", "parity": {}}},
        "license": {"name": "CC0-1.0", "file": "LICENSE"}, "provenance": {},
        "golden": {"seed": 0, "logits": brightness_logits(frames).tolist(), "tolerance": 1e-2},
    }  # fmt: skip
    write_manifest(folder, manifest)
    return folder


def make_data(folder: Path) -> Path:
    """Two faces and one voice per class; one more face of class 0 that looks like class 1; one calm voice."""
    labels = np.array([*range(7), *range(7), 0])
    shown = np.array([*range(7), *range(7), 1])
    images = np.broadcast_to((STEP * shown + 15).astype(np.uint8)[:, None, None], (15, 48, 48))
    folder.mkdir()
    for split in ("train", "val"):
        save_faces(folder / f"ferplus_{split}.npz", images, labels)
    actor = folder / "ravdess_speech" / "Actor_17"
    actor.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for code in range(1, 9):  # 2 is calm
        wave = 0.1 * rng.standard_normal(RATE_HZ // 4)
        soundfile.write(actor / f"03-01-{code:02d}-01-01-01-17.flac", wave, RATE_HZ)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundles") / "toy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("public") / "data")


@pytest.fixture(scope="module")
def written(bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JSON file of a measurement."""
    output = tmp_path_factory.mktemp("results")
    argv = ["accuracy", str(bundle), "--data", str(data), "--set", "faces", "voices", "pseudo", "--batch", "4"]
    assert main([*argv, "--output", str(output)]) == 0
    (path,) = output.glob("*.json")
    return path


def by_condition(path: Path) -> dict[tuple[str, str], dict]:
    return {(e["set"], e["condition"]): e for e in json.loads(path.read_text())["results"]["conditions"]}


def test_a_set_with_both_modalities_is_measured_without_each_of_them_too(written: Path) -> None:
    assert list(by_condition(written)) == [
        ("faces", "video only"),
        ("voices", "audio only"),
        ("pseudo", "video and audio"),
        ("pseudo", "video only"),
        ("pseudo", "audio only"),
    ]


def test_the_figures_are_those_computed_by_hand(written: Path) -> None:
    found = by_condition(written)
    for key in (("faces", "video only"), ("pseudo", "video and audio"), ("pseudo", "video only")):
        entry = found[key]
        assert entry["num_clips"] == 15 and entry["war"] == pytest.approx(14 / 15)
        assert entry["recall"] == pytest.approx([2 / 3, 1, 1, 1, 1, 1, 1])
        assert entry["uar"] == pytest.approx((6 + 2 / 3) / 7)
        assert entry["confusion"][0] == [2, 1, 0, 0, 0, 0, 0]
        assert entry["loss"] == pytest.approx(SHARPNESS / 15, rel=1e-3)  # 14 sure and right, one sure and wrong
        assert entry["ece"] == pytest.approx(1 / 15, rel=1e-3)
    # Without a face the toy sees black, which is class 0.
    deaf = found["pseudo", "audio only"]
    assert deaf["recall"] == [1, 0, 0, 0, 0, 0, 0] and deaf["uar"] == pytest.approx(1 / 7)
    assert found["voices", "audio only"]["num_clips"] == 7  # the calm voice is left out


def test_the_pages_carry_the_caveat_of_the_pseudo_set(written: Path) -> None:
    for suffix in (".html", ".md"):
        assert "the gain from fusion is overstated" in written.with_suffix(suffix).read_text()
    assert 'class="note"' in written.with_suffix(".html").read_text()


def test_ece_weighs_the_gap_of_each_bin() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    labels = np.array([0, 1, 1, 1])
    # Half of the answers: 0.9 stated, half right, gap 0.4; the other half: 0.6 stated, all right, gap 0.4.
    assert expected_calibration_error(probabilities, labels) == pytest.approx(0.4)
    assert expected_calibration_error(np.array([[1.0, 0.0]] * 3), np.zeros(3, int)) == 0
    # One bin cannot tell them apart: 0.75 stated on average, 3 of 4 right.
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(0)


def test_limit_takes_clips_from_all_over_the_set(bundle: Path, data: Path, tmp_path: Path) -> None:
    argv = ["accuracy", str(bundle), "--data", str(data), "--set", "faces", "--limit", "3", "--output", str(tmp_path)]
    assert main(argv) == 0
    (path,) = tmp_path.glob("*.json")
    entry = by_condition(path)["faces", "video only"]
    assert entry["num_clips"] == 3 and "(3 of 15 clips, evenly spread)" in entry["description"]
    assert [row is None for row in entry["recall"]].count(False) < 7  # a class without clips has no recall
    assert "NaN" not in path.read_text()


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--set", "dfew"], 2, "one of faces, faces-agreed,"),
        (["--limit", "0"], 2, "at least 1"),
        (["--batch", "0"], 2, "at least 1"),
        (["--data", "nowhere"], 9, "nowhere is not a folder"),
        (["--set", "faces", "nemo"], 9, "no voices in"),
        (["--set", "voices", "--robustness"], 9, "no sounds in"),
        (["--precision", "int4"], 6, "no precision int4"),
    ],
)
def test_bad_input_is_one_line(
    more: list[str], code: int, words: str, bundle: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    argv = ["accuracy", str(bundle), "--data", str(data), "--output", str(tmp_path), *more]
    assert main(argv) == code
    assert words in failure_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_other_classes_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = make_bundle(tmp_path / "other", tuple(reversed(LABELS)))
    assert main(["accuracy", str(other), "--data", str(data), "--output", str(tmp_path / "r")]) == 9
    assert "happy, sad, neutral" in capsys.readouterr().err


def test_votes_of_another_shape_are_refused(bundle: Path, data: Path, tmp_path: Path, capsys) -> None:
    bad = tmp_path / "data"
    shutil.copytree(data, bad)
    empty = np.zeros((1, 48, 48), np.uint8)
    np.savez(bad / "ferplus_val.npz", images=empty, votes=np.ones((1, 8), np.uint8), fer2013_labels=np.zeros(1))
    argv = ["accuracy", str(bundle), "--data", str(bad), "--set", "faces", "--output", str(tmp_path / "r")]
    assert main(argv) == 9
    assert "votes are uint8 (1, 8); expected uint8 (1, 10)" in capsys.readouterr().err
