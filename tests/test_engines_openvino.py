"""OpenVINO on the CPU: the same logits as onnxruntime, a cache that is never stale, and only what the hardware has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import one_line, run_python

import mma_edge
from mma_edge.bundle import golden_inputs, read_bundle, sha256
from mma_edge.engines import cache as compiled_cache
from mma_edge.engines import cpu as onnx_cpu
from mma_edge.engines import openvino as openvino_cpu
from mma_edge.errors import BackendError, BundleError

pytest.importorskip("openvino")
Edit = Callable[[Callable[[dict], object]], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMA_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> openvino_cpu.OpenVinoEngine:
    return openvino_cpu.open_engine(read_bundle(tiny_bundle), "fp32")


def graphs_in(cache: Path) -> list[Path]:
    return [path.parent for path in cache.rglob("model.xml")]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_the_logits_are_those_of_onnxruntime(tiny_bundle: Path, engine, count: int) -> None:
    frames, mel = golden_inputs(3, 16, count)
    got = engine(frames, mel)
    expected = onnx_cpu.open_engine(read_bundle(tiny_bundle), "fp32")(frames, mel)
    assert got.dtype == np.float32 and got.shape == (count, 3)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert count < 2 or np.ptp(got, axis=0).max() > 1e-3  # one row for all would pass otherwise


def test_an_answer_stays_what_it_was(engine) -> None:
    first = engine(*golden_inputs(1, 16))
    kept = first.copy()
    second = engine(*golden_inputs(2, 16))
    np.testing.assert_array_equal(first, kept)
    assert np.abs(first - second).max() > 1e-4


def test_views_with_odd_strides_are_read_right(engine) -> None:
    frames, mel = golden_inputs(4, 16, 2)
    expected = engine(np.ascontiguousarray(frames[..., ::-1]), mel)
    np.testing.assert_array_equal(engine(frames[..., ::-1], np.asfortranarray(mel)), expected)


def test_auto_takes_it_where_there_is_no_gpu(tiny_bundle: Path, monkeypatch) -> None:
    monkeypatch.setattr("mma_edge.engines.cuda_devices", list)
    recognizer = mma_edge.load(tiny_bundle)
    assert recognizer.backend == "openvino" and "OpenVINO" in recognizer.engine.details
    assert recognizer.notes == ("not on tensorrt or cuda: no CUDA device answers",)


def test_the_second_start_reads_no_onnx(tiny_bundle: Path, cache: Path, monkeypatch) -> None:
    bundle, inputs = read_bundle(tiny_bundle), golden_inputs(1, 16)
    first = openvino_cpu.open_engine(bundle, "fp32")
    (folder,) = graphs_in(cache)
    assert list(folder.glob("*.blob")) and first.notes == ()
    monkeypatch.setattr(openvino_cpu, "_read", None)  # calling it would fail, and be noted
    second = openvino_cpu.open_engine(bundle, "fp32")
    assert second.notes == ()
    np.testing.assert_array_equal(first(*inputs), second(*inputs))


def test_a_changed_graph_is_another_entry(tiny_bundle: Path, bundle_copy: Path, edit_manifest: Edit, cache) -> None:
    openvino_cpu.open_engine(read_bundle(tiny_bundle), "fp32")
    graph = bundle_copy / "model.fp32.onnx"
    graph.write_bytes(graph.read_bytes() + b"\xa2\x06\x00")  # an unknown, empty field: the same graph
    edit_manifest(lambda m: m["files"].update({graph.name: sha256(graph)}))
    openvino_cpu.open_engine(read_bundle(bundle_copy), "fp32")
    assert len(graphs_in(cache)) == 2


def test_only_the_graphs_used_last_are_kept(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(compiled_cache, "KEEP", 2)
    for key in ("a", "b", "c"):
        compiled_cache.cached_folder("x", key, 0, lambda work: (work / "file").write_text(""))
    assert sorted(path.name for path in (tmp_path / "cache" / "x").iterdir()) == ["b", "c"]


def test_a_cache_that_cannot_be_filled_leaves_nothing(tmp_path: Path) -> None:
    def fail(work: Path) -> None:
        (work / "half").write_text("")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        compiled_cache.cached_folder("x", "a", 0, fail)
    assert list((tmp_path / "cache" / "x").iterdir()) == []
    with pytest.raises(OSError, match="MB free"):
        compiled_cache.cached_folder("x", "a", 1 << 60, fail)


def test_an_unwritable_cache_is_gone_without_and_noted(tiny_bundle: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    for value in (str(tmp_path / "file"), "off"):
        monkeypatch.setenv("MMA_EDGE_CACHE", value)
        recognizer = mma_edge.load(tiny_bundle, "openvino")
        assert recognizer.predict(*golden_inputs(0, 16)).shape == (1, 3)
        assert any("not kept for the next start" in note for note in recognizer.notes)


def test_a_damaged_cache_is_gone_without_and_made_anew(tiny_bundle: Path, cache: Path) -> None:
    bundle, inputs = read_bundle(tiny_bundle), golden_inputs(1, 16)
    expected = openvino_cpu.open_engine(bundle, "fp32")(*inputs)
    (folder,) = graphs_in(cache)
    (folder / "model.xml").write_text("<net")
    for blob in folder.glob("*.blob"):
        blob.unlink()
    for noted in (1, 0):  # made anew by the start after
        again = openvino_cpu.open_engine(bundle, "fp32")
        np.testing.assert_array_equal(again(*inputs), expected)
        assert len(again.notes) == noted


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_that_the_hardware_lacks_is_refused(edit_manifest: Edit, monkeypatch, precision: str) -> None:
    monkeypatch.setattr(openvino_cpu, "capabilities", lambda: frozenset({"FP32", "INT8"}))

    def add(manifest: dict) -> None:
        manifest["precisions"][precision] = dict(manifest["precisions"]["fp32"])

    folder = edit_manifest(add)
    with pytest.raises(BackendError) as error:
        mma_edge.load(folder, "openvino", precision)
    text = one_line(error.value)
    assert f"this processor has no {precision}" in text and "hardware has: fp32, int8" in text
    assert mma_edge.load(folder, "openvino").precision == "fp32"


@pytest.mark.parametrize(("precision", "saturates"), [("int8", True), ("int8", False), ("fp32", True)])
def test_int8_that_may_saturate_is_noted(edit_manifest: Edit, monkeypatch, precision: str, saturates: bool) -> None:
    monkeypatch.setattr(openvino_cpu, "may_saturate", lambda: saturates)
    monkeypatch.setattr(openvino_cpu, "instruction_sets", lambda: ("avx2",))
    folder = edit_manifest(lambda manifest: manifest["precisions"].update(int8=dict(manifest["precisions"]["fp32"])))
    engine = openvino_cpu.open_engine(read_bundle(folder), precision)
    assert any("VNNI" in note for note in engine.notes) == (saturates and precision == "int8")


def test_bf16_is_preferred_where_the_processor_has_it_and_rounds_the_fp32_graph(
    edit_manifest: Edit, monkeypatch
) -> None:
    asked = []
    monkeypatch.setattr(openvino_cpu, "capabilities", lambda: frozenset({"FP32", "BF16"}))
    monkeypatch.setattr(openvino_cpu, "_config", lambda hint: asked.append(hint) or {})

    def add(manifest: dict) -> None:
        manifest["precisions"]["bf16"] = {"file": "LICENSE", "parity": {}, "tolerance": 0.1}

    recognizer = mma_edge.load(edit_manifest(add), "openvino")
    assert recognizer.precision == "bf16" and asked == ["bf16"]


def test_threads_are_pinned_unless_somebody_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    # Processes that share a machine would all be pinned to its first cores.
    monkeypatch.delenv("MMA_EDGE_THREADS", raising=False)
    assert "ENABLE_CPU_PINNING" not in openvino_cpu._config("f32")
    monkeypatch.setenv("MMA_EDGE_THREADS", "1")
    assert openvino_cpu._config("f32")["ENABLE_CPU_PINNING"] is False


def test_a_graph_that_openvino_cannot_read_is_one_line(edit_manifest: Edit) -> None:
    folder = edit_manifest(lambda m: m["precisions"]["fp32"].update(file="LICENSE"))
    with pytest.raises(BundleError) as error:
        mma_edge.load(folder, "openvino")
    text = one_line(error.value)
    assert "cannot load" in text and "LICENSE" in text


def test_a_signal_after_many_loads_does_no_harm(tiny_bundle: Path, cache: Path) -> None:
    """Cores destroyed in the wrong order leave a freed signal stack: in a child, which the next signal would kill."""
    script = f"""
import signal, sys, threading
from pathlib import Path
from mma_edge.bundle import read_bundle
from mma_edge.engines import openvino as openvino_cpu

caught = []
signal.signal(signal.SIGUSR1, lambda *_: caught.append(1))
bundle = read_bundle(Path({str(tiny_bundle)!r}))
threads = [threading.Thread(target=openvino_cpu.open_engine, args=(bundle, "fp32")) for _ in range(2)]
engines = [openvino_cpu.open_engine(bundle, "fp32") for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
while engines:
    engines.pop(0)  # the oldest first
    openvino_cpu.capabilities()
    signal.raise_signal(signal.SIGUSR1)
print(len(caught))
"""
    done = run_python("-c", script)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
