"""What goes to a worker and what comes back: plain values, so that they travel to other processes and machines."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Protocol

from mma_edge.errors import MMAEdgeError, first_line
from mma_edge.pipeline import StreamOptions
from mma_edge.pipeline.neutral import neutral_from_plain, plain_neutral
from mma_edge.types import Emotion

Message = dict[str, Any]
OPTIONS = (
    "window_s", "hop_s", "whole", "centre_fallback", "audio", "streaming", "sound_age_s", "voice_gate",
    "abstain_below", "smooth_s", "neutral", "nvdec",
)  # fmt: skip
"""Those of `StreamOptions` that change records."""


def plain_options(stream: StreamOptions) -> Message:
    """OPTIONS by name, as JSON holds them."""
    return {name: getattr(stream, name) for name in OPTIONS} | {"neutral": plain_neutral(stream.neutral)}


@dataclass(frozen=True)
class Job:
    """What every worker does with its files."""

    bundle: str | None  # None: the embedded one
    backend: str = "auto"
    precision: str | None = None
    streaming: str | None = None  # as asked for: "auto" becomes a mode once the model is open
    options: Message = dataclasses.field(default_factory=lambda: plain_options(StreamOptions()))
    together: int | None = None  # files that a worker reads at once; None: as many as suit the engine

    def stream_options(self) -> StreamOptions:
        return StreamOptions(**{**self.options, "neutral": neutral_from_plain(self.options["neutral"])})


@dataclass(frozen=True)
class Facts:
    """What a worker says once its model is open. Answers of two workers go together where all but `notes` is equal."""

    version: str  # of mma-edge
    name: str  # of the model
    digest: str  # SHA-256 of its manifest, which has that of every file
    labels: tuple[str, ...]
    backend: str
    precision: str
    streaming: str | None
    together: int  # files at once
    details: str  # of the engine, for people
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Task:
    """One file."""

    name: str  # relative, with slashes: the records' `source`
    path: str
    size: int  # bytes
    mtime_ns: int
    tries: int = 0  # workers that died of it


@dataclass(frozen=True)
class Answer:
    """All that a file gave."""

    digest: str  # of its content
    records: str  # JSON Lines
    answers: int
    media_s: float  # seconds of video, or of sound where there is no picture
    notes: tuple[str, ...]  # that it has no sound, for example


@dataclass(frozen=True)
class Failure:
    """Why a file gave nothing."""

    kind: str  # class of the error
    reason: str  # one line
    exit_code: int  # that `mma-edge run` on this file alone would end with

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        if isinstance(error, MMAEdgeError):
            return cls(type(error).__name__, str(error), error.exit_code)
        reason = " ".join(f"{type(error).__name__}: {first_line(error)}".split())
        return cls(type(error).__name__, reason, 1)


class Worker(Protocol):
    """A process, here or on another machine, with a model. All but `kill` are called by one thread."""

    def ready(self) -> Facts | None:
        """The facts once the model is open, None where that takes longer than some tenths of a second; call it again.

        Raises:
            WorkerDied: it ended. MMAEdgeError: the model cannot be opened.
        """

    def send(self, task: Task) -> None:
        """Give it a file."""

    def next(self) -> tuple[str, float | Answer | Failure]:
        """Name of a file, and what is known of it: how many seconds were read, or its end.

        Raises:
            WorkerDied: it ended, and what it had is lost.
        """

    def close(self) -> None:
        """Let it end; wait for that."""

    def kill(self) -> None:
        """End it at once; from any thread."""


class WorkerDied(Exception):  # noqa: N818 - as ChildDiedError, an event rather than a mistake
    """The worker ended; the text says how."""


def record_line(emotion: Emotion) -> str:
    """One record of a batch. It has no age: nobody waited for it, and a file done twice has the same records."""
    return json.dumps({**emotion.to_dict(), "age_ms": None}) + "\n"
