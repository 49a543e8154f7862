"""What follows a run sees all of it, and can neither end nor hold up the records."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

import mma_edge
from mma_edge.commands.outputs import Outputs, followed, run_sources
from mma_edge.errors import OutputError
from mma_edge.live import FilesPipeline
from mma_edge.pipeline import StreamOptions
from mma_edge.recognizer import Recognizer
from mma_edge.sinks import Follower


class Counting(Follower):
    name = "--counting"

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.frame_s: list[float] = []

    def begin(self, running: object) -> None:
        assert isinstance(running, FilesPipeline)
        self.seen["begin"] += 1

    def frame(self, source: str, frame: object, faces: object) -> None:
        self.seen["frame"] += 1
        self.frame_s.append(frame.time_s)

    def sound(self, source: str, chunk: object) -> None:
        assert source == "sample.mp4"
        self.seen["sound"] += 1

    def write(self, emotion: object) -> None:
        self.seen["write"] += 1

    def notice(self, line: str) -> None:
        self.seen[line] += 1

    def __exit__(self, *exc_info: object) -> None:
        self.seen["end"] += 1


class Broken(Counting):
    name = "--broken"

    def frame(self, source: str, frame: object, faces: object) -> None:
        super().frame(source, frame, faces)
        raise OutputError("its disk is full")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return mma_edge.load(backend="cpu")


def test_a_follower_sees_everything_and_a_broken_one_is_left_out(recognizer: Recognizer, tmp_path: Path) -> None:
    said: list[str] = []
    well, broken, path = Counting(), Broken(), tmp_path / "out.jsonl"
    options, followers = followed(StreamOptions(notify=said.append), [broken, well])
    outputs = Outputs(path, None, None, False, True, followers)
    assert run_sources(recognizer, {"sample.mp4": "sample"}, options, outputs, "", Console(quiet=True)) == 0
    answers = len(path.read_text().splitlines())
    assert answers == 16 == well.seen["write"]
    assert well.seen["frame"] == 195 and well.frame_s == sorted(well.frame_s)
    assert well.seen["begin"] == well.seen["end"] == 1 and well.seen["sound"] > 1
    assert broken.seen["frame"] == 1 and broken.seen["write"] == 0 and broken.seen["end"] == 1
    assert said == ["no more --broken: its disk is full."]
