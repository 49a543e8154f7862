"""Promises of a batch's workers: a file is lost only where it kills two of them, and several share one call."""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from square_videos import ONE_RED, make_video

import mma_edge
from mma_edge.batch.files import FileRecognizer
from mma_edge.batch.pool import Pool
from mma_edge.batch.shared import SharedCalls
from mma_edge.batch.tasks import Answer, Facts, Failure, Job, Task, WorkerDied, plain_options
from mma_edge.errors import BackendError, BundleError
from mma_edge.pipeline import StreamOptions
from mma_edge.types import Clip, Emotion

FACTS = Facts("1", "m", "d", ("a", "b"), "cpu", "fp32", None, 1, "", ())
ANSWER = Answer("d", "", 0, 1.0, ())


class Script:
    """A worker that does what its files are called; it refuses what a real one has no answer to."""

    def __init__(self, together: int = 1, facts: Facts = FACTS, opens: Callable[[], None] = lambda: None) -> None:
        self.facts = Facts(**{**vars_of(facts), "together": together})
        self.had: list[str] = []
        self.open, self.killed, self.most = False, threading.Event(), 0
        self._opens, self._mine = opens, []

    def ready(self) -> Facts:
        self._opens()
        self.open = True
        return self.facts

    def send(self, task: Task) -> None:
        assert self.open and not self.killed.is_set() and len(self._mine) < self.facts.together
        self._mine.append(task)
        self.had.append(task.name)
        self.most = max(self.most, len(self._mine))

    def next(self) -> tuple[str, Answer | Failure]:
        assert self._mine
        if any(t.name == "kills" or (t.name.startswith("once") and not t.tries) for t in self._mine):
            raise WorkerDied("the process was ended by SIGSEGV")
        if any(task.name == "hangs" for task in self._mine):
            assert self.killed.wait(20)
            raise WorkerDied("killed")
        task = self._mine.pop(0)
        return task.name, Failure("SourceError", "no film", 3) if task.name == "bad" else ANSWER

    def close(self) -> None:
        self.open = False

    def kill(self) -> None:
        self.killed.set()


def vars_of(facts: Facts) -> dict:
    return {name: getattr(facts, name) for name in Facts.__dataclass_fields__}


def run(names: Sequence[str], workers: int, together: int = 1) -> tuple[dict[str, object], list[Script]]:
    hired: list[Script] = []

    def hire() -> Script:
        hired.append(Script(together))
        return hired[-1]

    with Pool(hire, [Task(name, name, 1, 1) for name in names]) as pool:
        pool.open()
        pool.begin(workers)
        ends = [(task.name, what) for task, what in pool]
    assert len(ends) == len(dict(ends))
    return dict(ends), hired


@pytest.mark.parametrize(("workers", "together"), [(1, 1), (3, 1), (1, 4), (2, 3)])
def test_every_file_ends_once_and_only_one_that_kills_twice_is_lost(workers: int, together: int) -> None:
    names = [f"file {number}" for number in range(20)]
    names[3:3] = ["kills", "once", "bad", "once more"]
    ends, hired = run(names, workers, together)
    assert set(ends) == set(names)
    lost = {name: what for name, what in ends.items() if isinstance(what, Failure)}
    assert set(lost) == {"kills", "bad"} and "SIGSEGV, twice" in lost["kills"].reason
    tried = Counter(name for worker in hired for name in worker.had)
    assert tried["kills"] == 2 and max(tried.values()) == 2
    assert not any(worker.open for worker in hired)
    assert max(worker.most for worker in hired) == together


def test_nothing_begins_before_the_facts_are_accepted() -> None:
    worker = Script()
    with Pool(lambda: worker, [Task("file", "file", 1, 1)]) as pool:
        assert pool.open() == FACTS
    assert worker.had == [] and worker.killed.is_set() and not worker.open


def test_leaving_in_the_middle_ends_the_workers() -> None:
    hired: list[Script] = []

    def hire() -> Script:
        hired.append(Script())
        return hired[-1]

    with Pool(hire, [Task(name, name, 1, 1) for name in ("hangs", "file")]) as pool:
        pool.open(2)
        pool.begin(2)
        assert next(iter(pool))[0].name == "file"
    assert len(hired) == 2 and all(worker.killed.is_set() and not worker.open for worker in hired)


def test_a_model_that_cannot_be_opened_is_its_own_error() -> None:
    def broken() -> None:
        raise BundleError("the bundle is broken")

    with Pool(lambda: Script(opens=broken), []) as pool, pytest.raises(BundleError, match="the bundle is broken"):
        pool.open()


def test_workers_that_never_start_end_the_run_in_one_line() -> None:
    deaths: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def dies() -> None:
        deaths.put(True)
        raise WorkerDied("the process was ended by SIGKILL, most likely for want of memory")

    with Pool(lambda: Script(opens=dies), []) as pool, pytest.raises(BackendError, match="want of memory"):
        pool.open()
    assert deaths.qsize() == 1


def test_two_workers_with_different_models_do_not_answer_together() -> None:
    other = Facts(**{**vars_of(FACTS), "precision": "int8"})
    hired = iter([Script(), Script(facts=other)])
    with Pool(lambda: next(hired), [Task(name, name, 1, 1) for name in ("hangs", "b")]) as pool:
        pool.open()
        pool.begin(2)
        with pytest.raises(BackendError, match="precision fp32 and int8"):
            list(pool)


class Counting:
    """A recognizer that answers with the number in the clip, refuses a clip numbered 13, and notes its calls."""

    labels, image_size = ("a", "b"), 4

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict_clips(self, clips: Sequence[Clip]) -> list[Emotion]:
        self.calls.append(len(clips))
        if any(clip.start_s == 13 for clip in clips):
            raise BackendError("13")
        row = np.array([0.5, 0.5], np.float32)
        return [Emotion(c.start_s, c.end_s, None, None, (), self.labels, row, 0.0) for c in clips]


def clip(number: float) -> Clip:
    return Clip(number, number + 1, None, None, None, None, 0.0)


def test_clips_of_several_files_go_into_one_call_and_each_file_gets_its_own_answers() -> None:
    model, answers = Counting(), {}
    together = threading.Barrier(4)

    def file(first: int) -> None:
        with calls.file():
            together.wait()
            for number in range(first, first + 5):
                try:
                    answers[number] = [e.start_s for e in calls.predict_clips([clip(number), clip(number + 0.5)])]
                except BackendError as error:
                    answers[number] = str(error)

    with SharedCalls(model, most=6) as calls:
        threads = [threading.Thread(target=file, args=(first,)) for first in (0, 10, 20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    expected = {number: [number, number + 0.5] for first in (0, 10, 20, 30) for number in range(first, first + 5)}
    assert answers == {**expected, 13: "13."}
    assert 2 < max(model.calls) <= 6 and calls.largest == max(model.calls)


def test_files_read_at_once_have_the_answers_of_files_alone(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("videos")
    names = [f"{number}.mp4" for number in range(3)]
    for number, name in enumerate(names):
        make_video(folder / name, ONE_RED * (3 + number), sound_s=0)
    options = StreamOptions(window_s=0.4, hop_s=0.2, centre_fallback=True, audio=False)
    job = Job(None, "cpu", options=plain_options(options), together=3)
    answers: dict[str, Answer] = {}
    with FileRecognizer(job) as recognizer:
        assert recognizer.facts.together == 3

        def recognise(name: str) -> None:
            answers[name] = recognizer(Task(name, str(folder / name), 1, 1), lambda read_s: None)

        threads = [threading.Thread(target=recognise, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert recognizer.calls.largest > 1
    alone = mma_edge.load(backend="cpu")
    for name in names:
        own = {"window_s": 0.4, "hop_s": 0.2, "centre_fallback": True, "audio": False}
        expected = [emotion.to_dict() for emotion in alone.stream(folder / name, **own)]
        records = [json.loads(line) for line in answers[name].records.splitlines()]
        assert len(records) == len(expected) == answers[name].answers > 10
        for record, one in zip(records, expected, strict=True):
            probabilities = record.pop("probabilities"), one.pop("probabilities")
            assert {**record, "age_ms": None} == {**one, "age_ms": None}
            assert probabilities[0] == pytest.approx(probabilities[1], abs=2e-6)
