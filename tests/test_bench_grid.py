"""Promises of a grid of `mma-bench latency`: a process per cell, turns for all, ratios of one run, rows for crashes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, failure_line, one_line

from mma_benchmarks.cli import build_parser, main
from mma_benchmarks.commands.latency import is_grid
from mma_benchmarks.grid import child
from mma_benchmarks.grid.child import Worker, open_runner
from mma_benchmarks.grid.options import GridOptions, plan_cells, references
from mma_benchmarks.grid.subjects import Subject
from mma_benchmarks.grid.torch_model import count_flops
from mma_benchmarks.machine import matmul
from mma_benchmarks.machine.matmul import MatmulPeak
from mma_benchmarks.result import read_result
from mma_edge.errors import BackendError, UsageError
from mma_edge.precisions import PRECISIONS
from mma_trainer.model import MMADFERConfig

GPU_SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
NO_ENGINE = {"kind": "BackendError", "what": "no such engine", "expected": "cpu", "hint": "try doctor"}
SUBJECT = Subject("m", "", 16, ("a",), "", {"fp32": Path("b"), "int8": Path("b")}, None)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, tiny_checkpoint: Path) -> Path:
    """The JSON of a small grid: eager PyTorch, onnxruntime, a GPU that is not there and a precision that is not."""
    output = tmp_path_factory.mktemp("grid")
    argv = ["latency", str(tiny_bundle), "--checkpoint", str(tiny_checkpoint), "--backend", "cpu", "cuda"]
    argv += ["--precision", "fp32", "bf16", "--rounds", "2", "--turn", "0.02", "--output", str(output)]
    assert main(argv) == 0
    (path,) = output.glob("*_grid_*.json")
    return path


def cells(path: Path) -> dict[tuple[str, str], dict]:
    return {(cell["runner"], cell["precision"]): cell for cell in json.loads(path.read_text())["results"]["cells"]}


def test_every_cell_is_measured_beside_eager_pytorch(written: Path) -> None:
    found = cells(written)
    assert list(found) == [("eager", "fp32"), ("cpu", "fp32")]
    eager, cpu = found.values()
    assert eager["speedup"] == 1 and eager["logit_difference"] == 0
    assert cpu["speedup"] == pytest.approx(eager["call_ms"]["p50"] / cpu["call_ms"]["p50"])
    assert 0 < cpu["logit_difference"] < 1e-3  # the same model on the same clips, by another library
    assert cpu["clips_per_s"] == pytest.approx(1000 / cpu["call_ms"]["mean"])


def test_memory_is_of_the_cells_own_process(written: Path) -> None:
    found = cells(written)
    # torch alone takes more than onnxruntime with a model this small; one process for both would show no difference.
    assert 20 < found["cpu", "fp32"]["peak_memory_mib"] < found["eager", "fp32"]["peak_memory_mib"]
    assert found["cpu", "fp32"]["load_cold_s"] > 0 and found["cpu", "fp32"]["load_warm_s"] > 0
    assert found["eager", "fp32"]["load_cold_s"] is None  # it keeps nothing that could be cold


def test_what_cannot_run_is_a_row_that_says_why(written: Path) -> None:
    refused = {(row.runner, row.precision): row.why for row in read_result(written).results.refused}
    assert "bf16" in refused["cpu", "bf16"] and "mma-export" in refused["cpu", "bf16"]
    assert "CUDA" in refused["eager-cuda", "fp32"] and "cuda" in refused["cuda", "fp32"]
    page = written.with_suffix(".html").read_text()
    assert all(why.split(";")[0].split(" (")[0][:40] in page for why in refused.values())


def test_speed_is_put_beside_the_machines_matrix_product(written: Path) -> None:
    results = read_result(written).results
    (subject,) = results.subjects
    assert subject.flops_per_clip == count_flops(TINY)
    peak = next(row.gflops for row in results.peaks if (row.device, row.precision) == ("cpu", "fp32"))
    cell = cells(written)["cpu", "fp32"]
    assert cell["gflops"] == pytest.approx(subject.flops_per_clip / cell["call_ms"]["p50"] / 1e6)
    assert cell["peak_share"] == pytest.approx(cell["gflops"] / peak) and cell["peak_share"] < 2


def test_the_work_of_a_clip_is_that_of_the_formula() -> None:
    """Two ViT-B/16: per token and block 12 d^2 multiply-adds in products with weights and 2 T d in attention."""
    d, blocks, size = 768, 12, 112
    tokens = {"image": 1 + (size // 16) ** 2 + 6, "audio": 1 + 256 + 6}
    vit = {name: blocks * 2 * (12 * T * d * d + 2 * T * T * d) for name, T in tokens.items()}
    patches = 2 * 16 * (size // 16) ** 2 * (3 * 256) * d + 2 * 256 * 256 * d
    encoders = 16 * vit["image"] + vit["audio"] + patches
    # The fusion bottlenecks and the temporal transformer add a few percent.
    assert encoders < count_flops(MMADFERConfig(image_size=size)) < 1.05 * encoders


def test_the_peak_is_the_best_of_all_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "SIZES", (256, 512))
    peak = MatmulPeak("cpu")
    before = dict(peak.best)
    after = peak()
    assert before["fp32"][0] > 0.1 and {"fp32", "bf16"} <= set(before)
    assert all(after[name][0] >= gflops for name, (gflops, _) in before.items())


@pytest.mark.parametrize(
    ("argv", "grid"),
    [
        ([], False),
        (["b", "--backend", "cpu", "--precision", "fp32"], False),
        (["--grid"], True),
        (["a", "b"], True),
        (["--backend", "cpu", "openvino"], True),
        (["--backend", "eager"], True),
        (["--precision", "fp32", "int8"], True),
        (["--batch", "4"], True),
        (["--model", "nano"], True),
        (["--checkpoint", "c.pt"], True),
    ],
)
def test_one_combination_goes_through_the_pipeline_and_several_make_a_grid(argv: list[str], grid: bool) -> None:
    assert is_grid(build_parser().parse_args(["latency", *argv])) is grid


def test_references_are_those_of_the_devices_in_use() -> None:
    assert references(GridOptions(backends=("cpu", "openvino"))) == ["eager"]
    assert references(GridOptions(backends=("cuda", "compiled-cuda"))) == ["eager-cuda"]
    assert references(GridOptions(backends=("cpu", "tensorrt"), eager=False)) == []
    options = GridOptions(backends=("eager", "cpu"))
    assert plan_cells(options, SUBJECT) == [("eager", "fp32"), ("cpu", "fp32"), ("cpu", "int8")]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["--batch", "0", "2"], 2, "--batch 0; expected 1 to 1024"),
        (["--backend", "cpu", "npu"], 2, "--backend npu"),
        (["--precision", "fp32", "fp4"], 2, "--precision fp4"),
        (["--grid", "--rounds", "0"], 2, "at least 1"),
        (["--grid", "--turn", "0"], 2, "seconds"),
        (["--model", "vit-h"], 2, "--model vit-h"),
        (["--image-size", "112"], 2, "add --model"),
        (["--model", "nano", "bundle"], 2, "one of them"),
        (["--model", "nano", "--image-size", "50", "--no-eager"], 2, "--image-size 50"),
        (["--grid", "--repeat", "3"], 2, "--repeat is for one combination"),
        (["--rounds", "3"], 2, "--rounds is for a grid"),
        (["--grid", "no-bundle"], 5, "no-bundle does not exist"),
        (["--checkpoint", "none.pt"], 8, "none.pt does not exist"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], code: int, words: str, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["latency", *argv]) == code
    assert words in failure_line(capsys)
    assert not list(tmp_path.rglob("*.json"))


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Every child is this shell script."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -9 $$", "SIGKILL, most likely for want of memory"),
        ("kill -11 $$", "SIGSEGV"),
        ("echo 'libfoo.so: not found' >&2; exit 3", "exit code 3 (libfoo.so: not found)"),
        (f"echo '{json.dumps({'error': NO_ENGINE})}'", "no such engine; expected cpu; try doctor."),
    ],
)
def test_a_process_that_dies_says_how(script: str, words: str, tmp_path: Path, monkeypatch) -> None:
    stand_in(tmp_path, monkeypatch, script)
    with pytest.raises(BackendError) as error:
        Worker({"runner": "cpu"})
    assert words in error.value.what


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/pid; exec sleep 100")
    monkeypatch.setattr(child, "OPEN_TIMEOUT_S", 1.0)
    with pytest.raises(BackendError, match="no answer within 1 s"):
        Worker({"runner": "cpu"})
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_process_that_dies_in_its_turn_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, """echo '{"ready": {}}'; read line; echo '{"ms": [1.5]}'; read line; kill -9 $$""")
    with Worker({"runner": "cpu"}) as worker:
        assert worker.turn(1) == [1.5]
        with pytest.raises(BackendError, match="SIGKILL"):
            worker.turn(1)


def test_a_checkpoint_of_another_model_gives_no_ratio(tiny_bundle: Path, tmp_path: Path, tiny_model) -> None:
    from mma_edge.errors import BundleError
    from mma_trainer.weights.checkpoint import Checkpoint, save_checkpoint

    state = {key: value.clone() for key, value in tiny_model.state_dict().items()}
    state["classifier.weight"] += 1.0
    save_checkpoint(tmp_path / "other.pt", Checkpoint(TINY, state))
    with pytest.raises(BundleError) as error:
        open_runner("eager", "fp32", str(tiny_bundle), str(tmp_path / "other.pt"))
    assert "golden logits differ" in one_line(error.value)
    with pytest.raises(UsageError, match="fp32, fp16, bf16"):
        open_runner("eager", "int8", str(tiny_bundle), str(tmp_path / "other.pt"))


def test_turns_grow_until_they_take_their_time() -> None:
    from mma_benchmarks.grid.measure import MAX_CALLS, Asked, Running

    class Fake:
        def turn(self, calls: int) -> list[float]:
            return [2.0] * calls

    run = Running(Asked(SUBJECT, "cpu", "fp32", 1), Fake(), None, None)
    asked = []
    for _ in range(3):
        asked.append(run.calls)
        run.take_turn(0.1)
    assert asked == [1, 50, 50] and len(run.durations_ms) == 101
    run.take_turn(100.0)
    assert run.calls == MAX_CALLS and np.isfinite(run.durations_ms).all()


QUIET = {"PATH": "/usr/bin:/bin", "PYTHON": "/bin/echo"}


def gpu_script(*words: object, python: str = "/bin/echo") -> subprocess.CompletedProcess:
    env = {**QUIET, "PYTHON": python}
    return subprocess.run([GPU_SCRIPT, *map(str, words)], capture_output=True, text=True, env=env, check=False)


def test_the_gpu_script_shows_its_commands_and_needs_a_gpu() -> None:
    done = gpu_script("--dry-run")
    grids = [build_parser().parse_args(line.split()[1:]) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(grids) == 5 and all(map(is_grid, grids))
    assert [args.image_size for args in grids] == [[224], [112], [160], [224], []]
    assert all(args.batch == [1, 4, 16] for args in grids)
    assert grids[0].backend == ["eager-cuda", "compiled-cuda", "cuda", "tensorrt"]
    assert {precision for args in grids for precision in args.precision} == set(PRECISIONS)
    for words, said in (
        (["--fast"], "unknown option --fast"),
        (["--budget", "soon"], "--budget soon"),
        (["--wheels"], "--wheels without a value"),
        (["--wheels", "/nowhere"], "/nowhere holds no wheels"),
    ):
        done = gpu_script(*words)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_the_gpu_script_keeps_what_is_done_and_names_what_failed(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\ncase "$*" in *--model*) exit 1 ;; esac\n')
    python.chmod(0o755)
    out = tmp_path / "out"
    done = gpu_script("--allow-cpu", "--output", out, python=str(python))
    assert done.returncode == 1 and "error: tiny failed" in done.stderr
    assert {path.name for path in (out / ".gpu").iterdir()} == {"tiny.log", "default.log", "default.done"}
    done = gpu_script("--allow-cpu", "--output", out)
    assert done.returncode == 0 and "done before" in done.stdout and (out / ".gpu" / "tiny.done").exists()
    args = build_parser().parse_args(done.stdout.splitlines()[0].split()[1:])
    assert args.model == "nano" and "cpu" in args.backend and args.output == out


def test_the_gpu_script_ends_in_time(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    # Bash counts SECONDS on from what it is given, at each full second of the clock: one before the end is too late.
    env = {**QUIET, "PYTHON": str(python), "SECONDS": "57"}
    words = [str(GPU_SCRIPT), "--allow-cpu", "--budget", "1", "--output", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False, timeout=50)
    assert done.returncode == 1 and "out of time: default not begun" in done.stdout and "tiny failed" in done.stderr
