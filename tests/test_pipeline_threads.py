"""The stages of a file run in threads: same answers, no thread left behind, errors where they belong."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import mma_edge
from mma_edge.errors import SourceError
from mma_edge.pipeline import Pipeline, StreamOptions
from mma_edge.pipeline.ahead import ahead
from mma_edge.recognizer import Recognizer
from mma_edge.sources import open_source

pytestmark = pytest.mark.wall_clock


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("mma-edge-")]


class Counter:
    """An iterator of numbers that knows how far it was read and whether it was closed."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.made, self.closed, self.fails_at = 0, False, fails_at

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.made == self.fails_at:
            raise SourceError("the disk went away")
        self.made += 1
        return self.made

    def close(self) -> None:
        self.closed = True


def test_items_keep_their_order_through_several_stages() -> None:
    items = ahead(ahead(iter(range(500)), 3, "first"), 1, "second")
    assert list(items) == list(range(500))
    assert threads() == []


def test_a_stage_works_ahead_but_not_too_far() -> None:
    counter = Counter()
    items = ahead(counter, 5, "count")
    assert counter.made == 0
    next(items)
    deadline = time.monotonic() + 5
    while counter.made < 7 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert counter.made == 7, "one read, five in the queue, one in its hand"
    items.close()
    assert counter.closed and threads() == []


def test_an_error_comes_after_the_items_before_it() -> None:
    counter = Counter(fails_at=3)
    items = ahead(ahead(counter, 8, "first"), 8, "second")
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(SourceError, match="the disk went away"):
        next(items)
    assert counter.closed and threads() == []


def test_closing_ends_every_thread_even_where_its_queue_is_full() -> None:
    for room in (1, 4):
        counter = Counter()
        items = ahead(ahead(counter, room, "first"), room, "second")
        next(items)
        items.close()
        assert counter.closed and threads() == []


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return mma_edge.load(backend="cpu")


@pytest.mark.parametrize("options", [{"hop_s": 0.5}, {"whole": True}])
def test_answers_are_the_same_to_the_last_digit_with_and_without_threads(
    recognizer: Recognizer, options: dict[str, object]
) -> None:
    roads = []
    for with_threads in (True, False):
        with Pipeline.open(recognizer, "sample", StreamOptions(**options), threads=with_threads) as pipeline:
            roads.append(list(pipeline))
            state = pipeline.state
        assert threads() == []
        assert state.answers == len(roads[-1]) and state.frames_with_face == pipeline.source.stats.frames
    assert len(roads[0]) == len(roads[1]) > 0
    for one, other in zip(*roads, strict=True):
        assert (one.start_s, one.end_s, one.track_id, one.box) == (
            other.start_s,
            other.end_s,
            other.track_id,
            other.box,
        )
        assert (one.voice, one.modalities) == (other.voice, other.modalities)
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_leaving_in_the_middle_ends_every_thread_before_the_file_is_closed(recognizer: Recognizer) -> None:
    with Pipeline.open(recognizer, "sample") as pipeline:
        for _ in pipeline:
            assert threads()
            break
    assert threads() == []
    emotions = recognizer.stream("sample")
    next(emotions)
    emotions.close()
    assert threads() == []


def test_an_error_of_the_engine_ends_every_thread(recognizer: Recognizer) -> None:
    class Broken:
        labels, image_size = recognizer.labels, recognizer.image_size

        def predict_clips(self, clips: list) -> list:
            raise SourceError("the engine broke")

    # While the error is held, so is its traceback, and with it whatever the garbage collector would have closed.
    with pytest.raises(SourceError, match="the engine broke") as held, Pipeline.open(Broken(), "sample") as pipeline:
        list(pipeline)
    assert held.value.__traceback__ is not None and threads() == []


def test_a_file_may_be_closed_while_another_thread_reads_it() -> None:
    for k in range(50):
        source = open_source("sample")
        reader = threading.Thread(target=lambda source=source: list(source.events()))
        reader.start()
        time.sleep(0.001 * k)
        source.close()
        reader.join()
        assert source.stats.frames < 195, "it ended early"


PROGRAM = """
import os, signal, sys, threading
import mma_edge
from mma_edge.pipeline import Pipeline
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
with Pipeline.open(mma_edge.load(backend="cpu"), "sample") as pipeline:
    try:
        for emotion in pipeline:
            os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("interrupted")
print([thread.name for thread in threading.enumerate() if thread.name.startswith("mma-edge-")])
"""


def test_ctrl_c_ends_a_file_at_once_and_leaves_no_thread() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split("\n")[:2] == ["interrupted", "[]"], done.stderr
    assert done.returncode == 0
