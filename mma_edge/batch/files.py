"""One file after the other, or several at once, by a model that is opened once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from mma_edge import __version__
from mma_edge.batch.shared import SharedCalls
from mma_edge.batch.tasks import Answer, Facts, Job, Task, record_line
from mma_edge.bundle import sha256
from mma_edge.bundle.manifest import MANIFEST
from mma_edge.errors import SourceError
from mma_edge.pipeline import Pipeline
from mma_edge.pipeline.neutral import check_neutral
from mma_edge.precisions import GPU_BACKENDS
from mma_edge.recognizer import Recognizer
from mma_edge.sources import Event
from mma_edge.sources.file import FileSource, checked_path
from mma_edge.streaming import choose_mode

FILES_ON_A_GPU = 8
"""At once: decoding and the search for faces, which no GPU does here, keep so many cores at work."""
MOST_CLIPS = 16
"""Most clips of one call where the engine names no limit."""
TELL_S = 1.0
"""Seconds between two signs of life of a file that is being read."""
Follow = Callable[[float], None]
"""Takes how many seconds of a file were read."""


class FileRecognizer(contextlib.AbstractContextManager):
    """A model, and what it says about files; `__call__` may run in as many threads as `facts.together` says."""

    def __init__(self, job: Job) -> None:
        """MMAEdgeError where the model cannot be opened, or the options do not fit."""
        notes: list[str] = []
        self.options = job.stream_options()
        self.recognizer = Recognizer.open(job.bundle, job.backend, job.precision, job.streaming)
        check_neutral(self.options.neutral, self.recognizer.bundle)
        streaming = choose_mode(self.recognizer, job.streaming, notes.append)
        self.options = dataclasses.replace(self.options, streaming=streaming)
        bundle, on_gpu = self.recognizer.bundle, self.recognizer.backend in GPU_BACKENDS
        # With streaming the model remembers a file, and its clips go in alone.
        together = job.together or (FILES_ON_A_GPU if on_gpu and not streaming else 1)
        self.facts = Facts(
            version=__version__,
            name=bundle.name,
            digest=sha256(bundle.folder / MANIFEST),
            labels=bundle.labels,
            backend=self.recognizer.backend,
            precision=self.recognizer.precision,
            streaming=streaming,
            together=together,
            details=self.recognizer.engine.details,
            notes=(*self.recognizer.notes, *notes),
        )
        most = self.recognizer.max_batch or MOST_CLIPS
        self.calls = SharedCalls(self.recognizer, most) if together > 1 and not streaming else None

    def __call__(self, task: Task, follow: Follow) -> Answer:
        """The records of a file; `follow` is called at least once in TELL_S while it can be read.

        Raises:
            MMAEdgeError: the file cannot be read, or has nothing to recognise.
        """
        path = checked_path(task.path)
        digest = digest_of(path, lambda: follow(0.0))
        notes: list[str] = []
        span, told_s = [float("inf"), 0.0], time.monotonic()

        def on_event(event: Event) -> None:
            nonlocal told_s
            span[:] = min(span[0], event.time_s), max(span[1], event.time_s)
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                follow(span[1] - span[0])

        with contextlib.ExitStack() as stack:
            source = FileSource(path, notes.append, self.options.audio, self.options.nvdec)
            stack.callback(source.close)
            if self.calls:
                stack.enter_context(self.calls.file())
            options = dataclasses.replace(self.options, notify=notes.append)
            # A worker of one file is one core: its stages take turns. Several files wait for each other's calls.
            pipeline = stack.enter_context(
                Pipeline(
                    self.calls or self.recognizer,
                    source,
                    options,
                    threads=self.facts.together > 1,
                    name=task.name,
                    on_event=on_event,
                )
            )
            lines = [record_line(emotion) for emotion in pipeline]
        return Answer(digest, "".join(lines), len(lines), max(0.0, span[1] - span[0]), tuple(notes))

    def __exit__(self, *exc_info: object) -> None:
        if self.calls:
            self.calls.__exit__(*exc_info)


def digest_of(path: str | os.PathLike[str], alive: Callable[[], None] = lambda: None) -> str:
    """BLAKE2b (32 hex digits) of a file's whole content; `alive` is called now and then.

    All of it: files of one camera may have the same beginning, end and size. Reading a file takes less than a hundredth
    of the time that recognition takes. SourceError where it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    told_s = time.monotonic()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                if time.monotonic() - told_s > TELL_S:
                    told_s = time.monotonic()
                    alive()
    except OSError as error:
        raise SourceError(f"{Path(path).name} cannot be read ({error.strerror})", hint="copy it again") from error
    return digest.hexdigest()
