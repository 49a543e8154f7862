"""The commands as a user types them: help, records, exit codes, one line per error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import run_python

from mma_edge.bundle import DEFAULT_BUNDLE
from mma_edge.sources import sample_path

ENTRY = "import sys; from mma_edge.cli import main; sys.exit(main())"


def mma_edge_command(*arguments: object, **kwargs: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", ENTRY, *map(str, arguments)], capture_output=True, text=True, timeout=120, **kwargs
    )


def assert_one_line_error(done: subprocess.CompletedProcess, exit_code: int) -> str:
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_no_arguments_shows_help_with_examples() -> None:
    done = mma_edge_command()
    assert done.returncode == 2
    assert "mma-edge run sample" in done.stdout


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("info", "--help"), ("doctor", "--help")])
def test_help_of_every_command(arguments: tuple[str, ...]) -> None:
    done = mma_edge_command(*arguments)
    assert done.returncode == 0 and "usage: mma-edge" in done.stdout


def test_run_sample_prints_answers_and_writes_records(tmp_path: Path) -> None:
    done = mma_edge_command("run", "sample", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert len(records) == 16  # 7.8 s at a hop of 0.5 s, and the rest
    assert f"{len(records)} answers" in done.stdout
    for record in records:
        assert record["track_id"] == 1 and record["modalities"] == ["video", "audio"] and record["voice"] > 0.1
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-4)


def test_whole_gives_the_papers_one_clip(tmp_path: Path) -> None:
    done = mma_edge_command("run", "sample", "--whole", "--quiet", "--output", tmp_path / "out.csv")
    assert done.returncode == 0 and done.stdout == ""
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("run", "no/such.mp4"), 3, "no/such.mp4"),
        (("run", "camera:x"), 2, "camera:N"),
        (("run", "rtps://host/stream"), 2, "rtsp"),
        (("run", "sample", "--backend", "tensorrt"), 6, "tensorrt"),
        (("run", "sample", "--backend", "warp"), 6, "warp"),
        (("run", "sample", "--precision", "int4"), 6, "int4"),
        (("run", "sample", "--bundle", "no/bundle"), 5, "no/bundle"),
        (("run", "sample", "--hop", "0"), 2, "hop"),
        (("run", "sample", "--window", "9"), 2, "--whole"),
        (("run", "sample", "--voice-gate", "2"), 2, "--voice-gate 2.0; expected a share of speech"),
        (("run", "sample", "--voice-gate", "loud"), 2, "or off"),
        (("run", "sample", "--abstain-below", "1"), 2, "--abstain-below 1.0; expected a probability above 0"),
        (("run", "sample", "--abstain-below", "nan"), 2, "--abstain-below nan"),
        (("run", "sample", "--abstain-below", "half"), 2, "--abstain-below half"),
        (("run", "sample", "--output", "records.txt"), 2, ".jsonl"),
        (("info", "no/bundle"), 5, "mma-export"),
    ],
)
def test_bad_input_is_one_line_and_its_exit_code(arguments: tuple[str, ...], exit_code: int, says: str) -> None:
    assert says in assert_one_line_error(mma_edge_command(*arguments), exit_code)


@pytest.mark.skipif(Path("/dev/video7").exists(), reason="this machine has eight cameras")
def test_a_camera_that_does_not_exist_is_exit_code_4() -> None:
    assert_one_line_error(mma_edge_command("run", "camera:7"), 4)


def test_a_bundle_with_a_changed_byte_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, bundle)
    graph = bundle / "model.fp32.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    error = assert_one_line_error(mma_edge_command("run", "sample", "--bundle", bundle), 5)
    assert "SHA-256" in error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_under_the_output_is_exit_code_7(tmp_path: Path) -> None:
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    error = assert_one_line_error(mma_edge_command("run", "sample", "--overwrite", "--output", full), 7)
    assert "No space left" in error


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_keeps_every_record_whole(tmp_path: Path, signal_number: int) -> None:
    path = tmp_path / "out.jsonl"
    # Ten samples in a row would take a while; the interrupt comes after the third record.
    command = [sys.executable, "-c", ENTRY, "run", str(sample_path()), "--hop", "0.05", "--output", str(path)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not path.exists() or path.read_text().count("\n") < 3):
        time.sleep(0.02)
    child.send_signal(signal_number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert "Traceback" not in err
    text = path.read_text()
    assert text.endswith("\n") and f"{text.count(chr(10))} answers" in out
    assert all(json.loads(line)["label"] for line in text.splitlines())


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -c {ENTRY!r} run sample | head -n 2"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_info_shows_the_default_model_and_its_terms() -> None:
    done = mma_edge_command("info", env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0
    for words in ("mma-dfer-nano", "happy, sad, neutral, angry, surprise, disgust, fear", "license", "fp32"):
        assert words in done.stdout


def test_doctor_names_every_part_and_passes_where_the_tests_pass() -> None:
    done = mma_edge_command("doctor", env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stdout
    for part in ("onnxruntime", "default model", "face detector", "NVIDIA GPU", "TensorRT", "camera", "microphone"):
        assert part in done.stdout
    for part in ("voice detector", "onnxruntime CUDA", "OpenVINO", "auto takes"):
        assert part in done.stdout


def test_import_load_and_first_prediction_work_where_torch_is_not_installed() -> None:
    code = """
import sys
for name in ("torch", "onnx", "matplotlib", "sounddevice"):
    sys.modules[name] = None  # importing it raises ImportError, as if it were not installed
import numpy as np, mma_edge
recognizer = mma_edge.load()
p = recognizer.predict(np.zeros((1, 16, recognizer.image_size, recognizer.image_size, 3), np.uint8))
assert p.shape == (1, 7)
print(next(recognizer.stream("sample")).label)
"""
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("entry", "arguments", "package", "extra"),
    [
        ("mma_trainer.__main__:train", ["--help"], "torch", "train"),
        ("mma_trainer.__main__:evaluate", ["--help"], "soundfile", "train"),
        ("mma_export.cli:main", [], "torch", "export"),
        ("mma_benchmarks.cli:main", ["latency", "--repeat", "1"], "psutil", "bench"),
        ("mma_edge.cli:main", ["run", "sample"], "onnxruntime", "cpu"),
    ],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(
    entry: str, arguments: list[str], package: str, extra: str
) -> None:
    module, name = entry.split(":")
    code = f"import sys; sys.modules[{package!r}] = None; from {module} import {name}; sys.exit({name}({arguments!r}))"
    done = run_python("-c", code)
    error = assert_one_line_error(done, 11)
    assert f"{package} is not installed" in error and f"mma-edge[{extra}]" in error
