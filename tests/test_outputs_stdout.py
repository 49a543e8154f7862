"""`--output -`: records on stdout and nothing else, complete for a slow reader, a clean end for one that goes away."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import PATIENCE_S, one_line, python_environment, run_python

from mma_edge.errors import OutputError
from mma_edge.sinks import StdoutSink, open_records
from mma_edge.types import Emotion

pytestmark = pytest.mark.wall_clock

RUN = (sys.executable, "-m", "mma_edge.cli", "run", "sample", "--backend", "cpu")


def answer(number: int) -> Emotion:
    return Emotion(number, number + 4.0, 1, None, ("audio",), ("happy", "sad"), np.array([0.9, 0.1]), 12.0)


def piped(command: str) -> subprocess.CompletedProcess:
    """A shell's pipeline after `mma-edge run sample`; the exit codes of its parts are its last line."""
    environment = python_environment()
    line = f"{' '.join(RUN)} --output - {command}; echo ${{PIPESTATUS[@]}}"
    return subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=PATIENCE_S, env=environment, check=True
    )


def test_stdout_has_the_records_of_a_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    done = run_python(*RUN[1:], "--output", "-")
    assert run_python(*RUN[1:], "--output", path, "--quiet").returncode == done.returncode == 0
    records, kept = ([json.loads(line) for line in text.splitlines()] for text in (done.stdout, path.read_text()))
    for record in (*records, *kept):
        record.pop("age_ms")
    assert records == kept and len(records) == 16
    assert "mma-dfer-nano" in done.stderr and "records on stdout" in done.stderr and "face 1" in done.stderr
    assert run_python(*RUN[1:], "--output", "-", "--quiet").stderr == ""


def test_a_reader_that_goes_away_ends_the_run_cleanly() -> None:
    done = piped("| head -1")
    first, codes = done.stdout.splitlines()
    assert json.loads(first)["start_s"] == 0.0 and codes == "0 0"
    assert "Traceback" not in done.stderr and "rror" not in done.stderr


def test_without_a_stdout_there_is_one_line() -> None:
    done = piped(">&-")
    assert done.stdout == "7\n"
    assert done.stderr.count("error: ") == 1 and "stdout is closed" in done.stderr


@contextmanager
def small_pipe() -> Iterator[int]:
    """Where to read from a stdout that holds 4096 bytes. (No fixture: pytest sets sys.stdout after these.)"""
    read, write = os.pipe()
    fcntl.fcntl(write, getattr(fcntl, "F_SETPIPE_SZ", 1031), 4096)
    with pytest.MonkeyPatch.context() as patch, os.fdopen(write, "w") as stdout:
        patch.setattr(sys, "stdout", stdout)
        yield read
    os.close(read)


def read_slowly(read: int, into: list[bytes]) -> None:
    while piece := os.read(read, 512):
        into.append(piece)
        time.sleep(0.01)


def test_a_slow_reader_gets_every_record_and_the_wait_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mma_edge.sinks.stdout._LOOK_S", 0.005)
    monkeypatch.setattr("mma_edge.sinks.stdout._FIRST_S", 0.1)
    said: list[str] = []
    got: list[bytes] = []
    with small_pipe() as read:
        reader = threading.Thread(target=read_slowly, args=(read, got))
        reader.start()
        with open_records("-", ("happy", "sad"), False, said.append) as sink:
            for number in range(300):
                sink.write(answer(number))
        sys.stdout.close()
        reader.join()
    lines = b"".join(got).decode().splitlines()
    assert [json.loads(line)["start_s"] for line in lines] == list(range(300)) and sink.count == 300
    assert 1 <= len(said) <= 2 and "kept the run waiting" in said[0]


def test_a_reader_that_takes_nothing_does_not_keep_a_run_from_ending() -> None:
    said: list[str] = []
    with small_pipe(), StdoutSink(said.append) as sink:
        signs: list[float] = []
        sink.on_wait = lambda: signs.append(time.monotonic())
        threading.Timer(0.3, sink.hurry, (0.2,)).start()
        start_s = time.monotonic()
        for number in range(40):  # 40 records are more than the pipe holds
            sink.write(answer(number))
        assert time.monotonic() - start_s < 5
    assert len(signs) > 1  # for a watchdog
    assert sink.count + sink.left_out == 40 and sink.left_out > 5
    assert said == [f"the reader of --output - did not take the last {sink.left_out} records"]


def test_a_stdout_that_cannot_be_written_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OutputError, match="after 0 records") as caught, StdoutSink() as sink:
            sink.write(answer(0))
    one_line(caught.value)
