"""Promises of `mma-edge batch` with real processes: every file is done, once; nothing that is done is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import python_environment
from square_videos import ONE_RED, make_video

import mma_edge
from mma_edge.batch.pool import Pool
from mma_edge.batch.tasks import Answer, Failure, Job, Task, plain_options
from mma_edge.batch.worker import LocalWorker
from mma_edge.cli import main
from mma_edge.pipeline import StreamOptions
from mma_edge.pipeline.neutral import NeutralReference, identity

pytestmark = pytest.mark.wall_clock

CLIP = ["--centre-fallback", "--hop", "0.2", "--window", "0.4", "--no-audio"]
"""Squares are no faces."""
PATIENCE_S = 120


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five files, of which two have the same content, with names to be careful with; to be read only."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("one.mp4", "two.mkv", "deep/er/three.mp4", "with blank ü.mp4")):
        make_video(folder / name, ONE_RED[: 12 + 2 * number], sound_s=0)
    shutil.copyfile(folder / "one.mp4", folder / "deep" / "one again.mp4")
    return folder


@pytest.fixture
def corpus(videos: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(videos, tmp_path / "videos"))


@pytest.fixture(scope="module")
def finished(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one worker: to be read only."""
    output = tmp_path_factory.mktemp("finished") / "out"
    assert batch(videos, output, "--workers", 1) == 0
    return output


def batch(corpus: Path, output: Path, *options: object) -> int:
    own = [] if "--hop" in options else CLIP
    return main(["batch", str(corpus), "--output", str(output), "--backend", "cpu", *own, *map(str, options)])


def records(output: Path) -> dict[str, str]:
    folder = output / "records"
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def manifest(output: Path) -> dict:
    return json.loads((output / "batch.json").read_text())


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def job(**changes: object) -> Job:
    options = StreamOptions(window_s=0.4, hop_s=0.2, centre_fallback=True, audio=False)
    return Job(None, "cpu", options=plain_options(options), **changes)


def task_of(path: Path, name: str = "") -> Task:
    stat = path.stat()
    return Task(name or path.name, str(path), stat.st_size, stat.st_mtime_ns)


def test_two_workers_give_the_records_of_one_and_of_a_run_of_each_file(
    videos: Path, finished: Path, tmp_path: Path
) -> None:
    assert batch(videos, tmp_path / "two", "--workers", 2) == 0
    assert records(tmp_path / "two") == records(finished) and len(records(finished)) == 4
    alone = tmp_path / "alone.jsonl"
    assert main(["run", str(videos / "two.mkv"), "--backend", "cpu", "--quiet", "--output", str(alone), *CLIP]) == 0
    expected = [{**record, "age_ms": None} for record in lines(alone)]
    assert expected and lines(finished / "records" / "two.mkv.jsonl") == expected
    counts = manifest(finished)["counts"]
    assert (counts["files"], counts["done"], counts["duplicates"], counts["failed"]) == (5, 4, 1, 0)
    assert manifest(finished)["duplicates"] == {"one.mp4": "deep/one again.mp4"}


def test_the_table_has_the_records_of_all_files(finished: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(finished / "records.parquet").to_pylist()
    told = [json.loads(line) for name in sorted(records(finished)) for line in records(finished)[name].splitlines()]
    assert [(row["source"], row["end_s"], row["label"]) for row in table] == [
        (record["source"], record["end_s"], record["label"]) for record in told
    ]


def test_what_is_done_is_skipped_and_what_was_moved_is_recognised(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    assert batch(corpus, output) == 0
    before = records(output)
    # From here on no model may be opened: nothing is to do.
    monkeypatch.setattr("mma_edge.batch.run.LocalWorker", None)
    (corpus / "two.mkv").rename(corpus / "deep" / "zwei.mkv")
    os.utime(corpus / "deep" / "er" / "three.mp4")
    assert batch(corpus, output) == 0
    after = records(output)
    assert "two.mkv.jsonl" not in after
    assert after["deep/zwei.mkv.jsonl"] == before["two.mkv.jsonl"].replace('"two.mkv"', '"deep/zwei.mkv"')
    assert "2 done before, 2 done under another name" in " ".join(capsys.readouterr().out.split())
    # The folder as a whole somewhere else, without its times.
    moved = tmp_path / "elsewhere"
    corpus.rename(moved)
    for path in moved.rglob("*.mp4"):
        os.utime(path)
    assert batch(moved, output) == 0
    assert records(output) == after


def test_a_changed_file_is_done_again(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert batch(corpus, output, "--workers", 1) == 0
    shutil.copyfile(corpus / "with blank ü.mp4", tmp_path / "keep.mp4")
    make_video(corpus / "two.mkv", ONE_RED[:19], sound_s=0)
    assert batch(corpus, output, "--workers", 1) == 0
    assert manifest(output)["this_run"]["done"] == 1
    assert lines(output / "records" / "two.mkv.jsonl")[-1]["end_s"] == pytest.approx(0.72)


def test_another_model_or_other_options_are_refused_by_name(
    videos: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    assert batch(videos, output, CLIP[0], "--hop", "0.1") == 7
    error = capsys.readouterr().err.splitlines()[-1]
    assert "window_s 0.4, not 4" in error and "hop_s 0.2, not 0.1" in error and "--overwrite" in error
    content = manifest(output)
    content["model"]["digest"] = "0" * 64
    (output / "batch.json").write_text(json.dumps(content))
    assert batch(videos, output) == 7
    assert "model digest 000000" in capsys.readouterr().err
    assert records(output) == records(finished)
    assert batch(videos, output, "--overwrite", "--precision", "fp1") == 6
    assert records(output) == records(finished)  # nothing is forgotten for a model that cannot be opened
    (output / "records" / "old.mp4.jsonl").touch()
    assert batch(videos, output, "--overwrite", "--workers", 1) == 0
    assert records(output) == records(finished)


def reference_of(folder: Path) -> Path:
    """Of somebody whom the default model finds sad at rest."""
    bundle = mma_edge.load(backend="cpu").bundle
    leaning = {"video": np.where(np.array(bundle.labels) == "sad", 3.0, -0.5)}
    made = NeutralReference(identity(bundle), bundle.labels, leaning, {"video": 5}, {"created": "2026-01-02T03:04:05"})
    made.write(folder / "ada.json")
    return folder / "ada.json"


@pytest.mark.parametrize("how", ["auto", "reference"])
def test_answers_may_be_relative_to_people(
    videos: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture, how: str
) -> None:
    neutral = ("--neutral", "auto" if how == "auto" else reference_of(tmp_path))
    output, alone = tmp_path / "out", tmp_path / "alone.jsonl"
    assert batch(videos, output, "--workers", 2, *neutral) == 0
    argv = ["run", videos / "two.mkv", "--backend", "cpu", "--quiet", "--output", alone, *CLIP, *neutral]
    assert main(list(map(str, argv))) == 0
    told = records(output)
    assert [{**record, "age_ms": None} for record in lines(alone)] == lines(output / "records" / "two.mkv.jsonl")
    assert told.keys() == records(finished).keys() and told["two.mkv.jsonl"] != records(finished)["two.mkv.jsonl"]
    assert batch(videos, output, *neutral) == 0 and manifest(output)["this_run"]["skipped"] == 4
    # Records of before this option was there are as they are where nobody asks for it.
    older = Path(shutil.copytree(finished, tmp_path / "older"))
    content = manifest(older)
    del content["options"]["neutral"]
    (older / "batch.json").write_text(json.dumps(content))
    assert batch(videos, older) == 0
    capsys.readouterr()
    assert batch(videos, older, *neutral) == 7
    expected = "neutral None, not auto" if how == "auto" else "neutral None, not of 2026-01-02T03:04:05"
    assert expected in capsys.readouterr().err


def test_a_reference_of_another_model_is_one_line(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = reference_of(tmp_path)
    path.write_text(path.read_text().replace('"model": "', '"model": "0'))
    assert batch(videos, tmp_path / "out", "--neutral", path) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "the neutral reference is of another model" in error
    assert not (tmp_path / "out" / "records").exists()


def test_bad_files_are_named_and_stop_nothing(
    corpus: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (corpus / "text.mp4").write_text("no film")
    (corpus / "empty.mkv").touch()
    os.mkfifo(corpus / "pipe.mp4")
    whole = (corpus / "one.mp4").read_bytes()
    (corpus / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    make_video(corpus / "nobody.wav", [], sound_s=0.3)
    (corpus / "gone.mp4").symlink_to(tmp_path / "nothing.mp4")
    output = tmp_path / "out"
    assert batch(corpus, output, "--workers", 1) == 3
    failed = {entry["file"]: entry for entry in lines(output / "failed.jsonl")}
    assert set(failed) == {"text.mp4", "empty.mkv", "pipe.mp4", "cut.mp4", "nobody.wav", "gone.mp4"}
    assert {entry["exit_code"] for entry in failed.values()} == {3}
    assert not [entry for entry in failed.values() if "\n" in entry["reason"] or "Traceback" in entry["reason"]]
    assert records(output) == records(finished)
    assert str(output / "failed.jsonl") in capsys.readouterr().err
    # They are not tried again, but still named, until one is asked to, or they are mended.
    shutil.copyfile(corpus / "two.mkv", corpus / "empty.mkv")
    assert batch(corpus, output) == 3
    assert manifest(output)["this_run"]["done"] == 0
    assert {entry["file"] for entry in lines(output / "failed.jsonl")} == set(failed) - {"empty.mkv"}
    for name in ("text.mp4", "cut.mp4", "nobody.wav", "pipe.mp4", "gone.mp4"):
        (corpus / name).unlink()
    assert batch(corpus, output, "--retry-failed") == 0
    assert lines(output / "failed.jsonl") == []


@pytest.fixture
def running(corpus: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a batch in a process of its own, in a session of its own, as a shell does."""
    started = []

    def start(output: Path, *options: str) -> subprocess.Popen:
        program = [sys.executable, "-m", "mma_edge.cli", "batch", str(corpus), "--output", str(output)]
        environment = python_environment()
        started.append(
            subprocess.Popen(
                [*program, "--backend", "cpu", *CLIP, *options],
                env=environment,
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(promise: Callable[[], object], process: subprocess.Popen) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not promise():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_ends_in_the_middle_is_gone_on_with(
    corpus: Path, finished: Path, tmp_path: Path, running: Callable, number: signal.Signals
) -> None:
    # The largest file comes first, and takes long.
    long = corpus / "long.mp4"
    make_video(long, ONE_RED * 40, sound_s=0)
    long.write_bytes(long.read_bytes() + bytes(1 << 20))
    output = tmp_path / "out"
    process = running(output, "--workers", "2")
    until(lambda: (output / "done.jsonl").exists() and (output / "done.jsonl").read_text().count("\n") >= 2, process)
    began_s = time.monotonic()
    # Ctrl-C reaches every process of the terminal.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.kill()
    error = process.communicate(timeout=PATIENCE_S)[1]
    assert time.monotonic() - began_s < 30
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in error
        assert "the same command goes on" in error
        assert manifest(output)["state"] == "interrupted"
    done = [entry["file"] for entry in lines(output / "done.jsonl")]
    assert 2 <= len(done) < 5
    assert {f"{name}.jsonl" for name in done} <= set(records(output))
    kept = {name: os.stat(output / "records" / f"{name}.jsonl").st_mtime_ns for name in done}
    (output / "records" / ".x.jsonl.1.partial").write_text("half")
    with (output / "done.jsonl").open("a") as file:
        file.write('{"file": "cut o')
    assert batch(corpus, output, "--workers", 1) == 0
    assert {name: os.stat(output / "records" / f"{name}.jsonl").st_mtime_ns for name in done} == kept
    result = records(output)
    del result["long.mp4.jsonl"]
    assert result == records(finished)
    assert len(lines(output / "done.jsonl")) == 5


def test_a_worker_that_is_killed_loses_nothing_and_one_that_dies_twice_loses_its_file(
    videos: Path, tmp_path: Path
) -> None:
    deadly = make_video(tmp_path / "deadly.mp4", ONE_RED * 20, sound_s=0)
    workers: list[LocalWorker] = []

    def hire() -> LocalWorker:
        workers.append(LocalWorker(job()))
        send = workers[-1].send

        def send_and_die(task: Task) -> None:
            send(task)
            if task.path == str(deadly) or (task.name == "two.mkv" and not task.tries):
                workers_of[task.name] = workers_of.get(task.name, 0) + 1
                os.kill(next(w for w in workers if w.send is send_and_die).pid, signal.SIGKILL)

        workers[-1].send = send_and_die
        return workers[-1]

    workers_of: dict[str, int] = {}
    tasks = [task_of(deadly), *map(task_of, (videos / "two.mkv", videos / "one.mp4"))]
    with Pool(hire, tasks) as pool:
        assert pool.open().backend == "cpu"
        pool.begin(1)
        ends = {task.name: what for task, what in pool if not isinstance(what, float)}
    assert isinstance(ends["one.mp4"], Answer) and isinstance(ends["two.mkv"], Answer)
    assert isinstance(ends["deadly.mp4"], Failure) and "SIGKILL" in ends["deadly.mp4"].reason
    assert workers_of == {"deadly.mp4": 2, "two.mkv": 1}
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker.pid, 0)


def test_two_runs_do_not_write_to_one_folder(
    corpus: Path, tmp_path: Path, running: Callable, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "out"
    process = running(output)
    until(lambda: (output / ".lock").exists(), process)
    time.sleep(0.1)
    assert batch(corpus, output) == 7
    assert "another mma-edge batch writes to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["nowhere"], 3, "nowhere does not exist"),
        (["."], 3, "no media files"),
        (["x.csv"], 2, "a column path"),
        ([".", "--workers", "0"], 2, "--workers 0"),
        ([".", "--hop", "9"], 2, "hop of 9 s"),
        ([".", "--bundle", "nowhere"], 5, "nowhere does not exist; expected a folder"),
    ],
)
def test_wrong_input_gets_one_line_before_anything_is_made(
    argv: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.csv").write_text("file\na.mp4\n")
    if len(argv) > 1:
        Path("a.mp4").write_bytes(b"x")
    assert main(["batch", *argv, "--output", "out"]) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and says in error
    assert not Path("out").exists()


def test_the_folder_of_something_else_is_left_alone(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "thesis"
    output.mkdir()
    (output / "chapter.txt").write_text("mine")
    assert batch(corpus, output, "--overwrite") == 7
    assert "is not empty and not the output of mma-edge batch" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["chapter.txt"]
