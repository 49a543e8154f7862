"""What follows a run beside its records: a session's recorder, a page, a broker. None of them can end or delay it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from mma_edge.errors import MMAEdgeError
from mma_edge.types import AudioChunk, Emotion, Face, Frame, Notify


class Follower(AbstractContextManager):
    """Sees all of a run; does nothing with it. A `mma_edge.types.Watcher`, and a sink.

    Every method must return at once, whatever the disk or the network does: what takes time belongs into a thread of
    the follower's own. It may raise MMAEdgeError, which ends the follower and not the run.
    """

    name = "follower"
    """For messages: the option that it came by."""

    def begin(self, running: Any) -> None:
        """Before the first answer: `running` is the `LivePipeline` or `FilesPipeline` that is followed."""

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        """A frame and the faces in it, by the source's thread."""

    def sound(self, source: str, chunk: AudioChunk) -> None:
        """Sound, by the source's thread."""

    def write(self, emotion: Emotion) -> None:
        """An answer, right after it went into the records."""

    def notice(self, line: str) -> None:
        """What the user is told, by any thread."""

    def __exit__(self, *exc_info: object) -> None:
        """The run has ended."""


class Followers(Follower):
    """Several as one. One that raises MMAEdgeError is said once and left out from then on."""

    def __init__(self, followers: Sequence[Follower], notify: Notify) -> None:
        self._all, self._notify = list(followers), notify
        self._well = list(followers)
        self._stack = ExitStack()

    def __enter__(self) -> Followers:
        """Enter all, or none where one raises."""
        with ExitStack() as stack:
            for follower in self._all:
                stack.enter_context(follower)
            self._stack = stack.pop_all()
        return self

    def begin(self, running: Any) -> None:
        self._each(lambda follower: follower.begin(running))

    def frame(self, source: str, frame: Frame, faces: Sequence[Face]) -> None:
        self._each(lambda follower: follower.frame(source, frame, faces))

    def sound(self, source: str, chunk: AudioChunk) -> None:
        self._each(lambda follower: follower.sound(source, chunk))

    def write(self, emotion: Emotion) -> None:
        self._each(lambda follower: follower.write(emotion))

    def notice(self, line: str) -> None:
        self._each(lambda follower: follower.notice(line))

    def _each(self, call: Callable[[Follower], None]) -> None:
        for follower in tuple(self._well):
            try:
                call(follower)
            except MMAEdgeError as error:
                # Threads of several sources may meet the same broken one.
                self._well = [each for each in self._well if each is not follower]
                self._notify(f"no more {follower.name}: {error}")

    def __exit__(self, *exc_info: object) -> None:
        self._stack.__exit__(*exc_info)
