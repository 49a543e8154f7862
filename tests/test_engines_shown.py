"""`mma-edge doctor` tries what it reports, and `mma-edge info` shows what the gate found."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mma_edge import engines
from mma_edge.bundle import Bundle, read_bundle
from mma_edge.bundle.manifest import write_signed
from mma_edge.commands.setup.info import show_bundle
from mma_edge.doctor import engines as doctor
from mma_edge.engines import backend_module, machine
from mma_edge.engines import cpu as onnx_cpu
from mma_edge.engines import openvino as openvino_cpu
from mma_edge.engines.machine import INSTRUCTION_SETS, CudaDevice, parse_cpuinfo

Edit = Callable[[Callable[[dict], object]], Path]
ORIN = CudaDevice("Orin", (8, 7), 8 << 30)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (doctor, engines):
        monkeypatch.setattr(module, "cuda_devices", lambda: [ORIN])


def shown(folder: Path) -> str:
    console = Console(file=io.StringIO(), width=300)
    show_bundle(read_bundle(folder), console)
    return console.file.getvalue()


def test_doctor_asks_for_nothing_to_be_installed_where_there_is_no_gpu(monkeypatch) -> None:
    monkeypatch.setattr(engines, "cuda_devices", list)
    for finding in (doctor.ENGINES["onnxruntime CUDA"](), doctor._tensorrt()):
        assert finding.state == doctor.OPTIONAL and "no CUDA device answers" in finding.found
        assert finding.todo == ""


def test_doctor_says_what_keeps_a_backend_from_running(monkeypatch, gpu: None) -> None:
    monkeypatch.setattr(backend_module("cuda"), "probe", lambda: "cuBLAS is missing: pip install it")
    monkeypatch.setattr(backend_module("tensorrt"), "probe", lambda: None)
    finding = doctor.ENGINES["onnxruntime CUDA"]()
    assert finding.state == doctor.OPTIONAL and finding.todo == "cuBLAS is missing: pip install it"
    finding = doctor._tensorrt()
    assert finding.state == doctor.OK and "mma-edge build" in finding.todo
    assert "Orin (8.7, 9 GB)" in doctor._gpu().found


def test_doctor_tells_openvinos_precisions_or_how_to_get_it(monkeypatch) -> None:
    monkeypatch.setattr(openvino_cpu, "capabilities", lambda: frozenset({"FP32", "BF16"}))
    finding = doctor._openvino()
    assert finding.state == doctor.OK and "(bf16, fp32)" in finding.found
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "openvino", None)
    finding = doctor._openvino()
    assert finding.state == doctor.OPTIONAL and 'pip install "mma-edge[openvino]"' in finding.todo


def test_info_shows_figures_of_the_gate_and_its_failure(edit_manifest: Edit) -> None:
    def add(manifest: dict) -> None:
        graph = manifest["precisions"]["fp32"]["file"]
        parity = {"top1_agreement": 0.9875, "max_abs_logit_difference": 3e-5, "uar_loss": None, "clips": 80}
        entry = {"file": graph, "cpu_file": "LICENSE", "parity": parity, "failed": "top-1 below 0.995"}
        manifest["precisions"]["int8"] = entry

    text = shown(edit_manifest(add))
    for words in (
        "top1 agreement 0.9875",
        "max abs logit difference 3.0e-05",
        "uar loss unknown",
        "clips 80",
        "FAILED its gate: top-1 below 0.995",
        "on onnxruntime's CPU LICENSE",
    ):
        assert words in text


def test_info_shows_engines_and_whether_they_fit_this_device(bundle_copy: Path) -> None:
    assert "no engine built; on the device: mma-edge build" in shown(bundle_copy)
    (bundle_copy / "engines").mkdir()
    (bundle_copy / "engines" / "fp32.plan").write_bytes(b"of another device")
    assert "fp32 (not for this device)" in shown(bundle_copy)


def test_info_tells_what_can_be_streamed(tiny_bundle: Path, streaming_bundle: Bundle, tmp_path: Path) -> None:
    assert "mma-export --streaming" in shown(tiny_bundle)
    rolling = streaming_bundle.manifest["streaming"]["fp32"]["rolling"]
    text = shown(streaming_bundle.folder)
    assert f"fp32: exact, rolling (same class in {rolling['curve'][0]['top1_agreement']:.1%} of" in text
    folder = shutil.copytree(streaming_bundle.folder, tmp_path / "refused")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["streaming"]["fp32"]["rolling"] = {"parity": {}, "curve": [], "refused": "too far off"}
    write_signed(folder / "manifest.json", manifest)
    assert "fp32: exact, rolling was refused: too far off" in shown(folder)


def test_instruction_sets_are_what_the_kernel_lists() -> None:
    model, sets = parse_cpuinfo("processor : 0\nmodel name : A B\nflags : fpu avx2 avx512_vnni amx_int8\n")
    assert (model, sets) == ("A B", ("avx2", "avx512_vnni", "amx_int8"))
    assert parse_cpuinfo("Features : fp asimd asimddp\n") == ("", ("asimd", "asimddp"))
    assert len(set(INSTRUCTION_SETS)) == len(INSTRUCTION_SETS)


@pytest.mark.parametrize(
    ("x86", "sets", "slower"),
    [(True, ("avx2",), True), (True, ("avx2", "avx_vnni"), False), (True, (), True), (False, ("asimd",), False)],
)
def test_int8_without_vnni_takes_the_exact_kernels_and_says_so(
    tiny_bundle: Path, monkeypatch, x86: bool, sets: tuple[str, ...], slower: bool
) -> None:
    import onnxruntime

    asked: list[str] = []

    class Options(onnxruntime.SessionOptions):
        def add_session_config_entry(self, key: str, value: str) -> None:
            asked.append(f"{key}={value}")
            super().add_session_config_entry(key, value)

    monkeypatch.setattr(onnxruntime, "SessionOptions", Options)
    monkeypatch.setattr(machine, "is_x86", lambda: x86)
    monkeypatch.setattr(machine, "instruction_sets", lambda: sets)
    graph = read_bundle(tiny_bundle).graph("fp32")
    assert ("without VNNI" in onnx_cpu.OnnxCpuEngine(graph, "int8").details) == slower
    assert ("session.x64quantprecision=1" in asked) == slower
    assert "VNNI" not in onnx_cpu.OnnxCpuEngine(graph, "fp32").details
