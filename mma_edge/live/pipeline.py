"""Several live sources at once: a thread for each finds faces and cuts windows, one engine answers for all.

    source's own reader -> newest frames, all sound -> faces, crops, log-mel -> newest window of each face -> engine
    (threads of the source)                            (a thread per source)                               (one thread)

Nothing waits for what comes after it, except the engine for whoever takes the answers: so an answer is never older than
a hop, a batch wait and two calls of the engine, plus the time for the frames that were being looked at.
"""

from __future__ import annotations

import dataclasses
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack

from mma_edge.errors import MMAEdgeError, SourceError, first_line
from mma_edge.live.load import EngineLoad, SourceLoad
from mma_edge.live.stats import LastMinute, SourceMeter, SourceProgress, ThreadProgress
from mma_edge.live.windows import DueWindow, DueWindows
from mma_edge.pipeline import ClipPredictor, Pipeline, StreamOptions
from mma_edge.sources import Source, open_source
from mma_edge.sources.names import Spec
from mma_edge.types import Emotion, Notify

REST_S, CLOSE_S = 0.8, 1.0
"""Longest time for the answers that are left after `stop`, and for the threads in `close`: a program should end within
2 s."""
_TICK_S = 0.2
"""Longest wait for an answer before somebody looks whether all is stopped."""
MOST_CLIPS = 16
"""Most clips of one call where the engine names no limit: a GPU computes them together."""


class SourceThread(threading.Thread):
    """Everything before the engine, for one source."""

    def __init__(
        self,
        number: int,
        pipeline: Pipeline,
        progress: SourceProgress,
        load: SourceLoad,
        due: DueWindows,
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        # A daemon: a driver that never returns must not keep the program alive.
        super().__init__(name=f"mma-edge-{pipeline.name}", daemon=True)
        self.number, self.pipeline, self.progress = number, pipeline, progress
        self._load, self._due, self._on_error = load, due, on_error

    def run(self) -> None:
        try:
            for clips in self.pipeline.windows():
                if clips:
                    self.progress.windows += len(clips)
                    self.progress.replaced += self._due.put(self.number, clips)
                self._load.look()
        except BaseException as error:  # whatever it is, the other sources go on
            self.progress.error = str(error) or type(error).__name__
            self._on_error(self.pipeline.name, error)
        finally:
            self.progress.thread.ended = True
            self._due.end(self.number)
            self.pipeline.source.close()


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _Answer:
    emotion: Emotion
    arrival_s: float  # of the newest datum
    ready_s: float


class LivePipeline(AbstractContextManager):
    """Iterate over it for the emotions of live sources, each with its source's name.

    A source that fails is said and left out; the iteration ends when none is left, with the first one's error where all
    failed. After `stop` the iteration ends, and another one gives the answers that were not taken yet. Use it in a
    `with` block.
    """

    def __init__(
        self, recognizer: ClipPredictor, sources: Mapping[str, Source], options: StreamOptions | None = None
    ) -> None:
        """Takes over the open `sources`, by name. UsageError where the options do not fit live sources."""
        self.options = options = options or StreamOptions()
        self.stages = LastMinute()
        """Milliseconds by stage, and "age" of the answers when they are taken; "age NAME" of those of one source."""
        self.engine, self.delivery = ThreadProgress("engine"), ThreadProgress("delivery")
        """What the engine has done, and whoever takes the answers."""
        self.failures: dict[str, MMAEdgeError] = {}
        self.names, self.labels = tuple(sources), recognizer.labels
        self.started_s = time.monotonic()
        self._recognizer = recognizer
        # With streaming, all faces of a source go in together: what is kept of those that are missing is forgotten.
        most = sys.maxsize if options.streaming else getattr(recognizer, "max_batch", None) or MOST_CLIPS
        self._due = DueWindows(len(sources), options.hop_s, most)
        self._load = EngineLoad(options.hop_s, options.notify)
        self.left_behind: list[str] = []
        """Sources, or "the engine", whose threads `close` could not wait for: a driver or a server does not answer."""
        self._out: queue.SimpleQueue[list[_Answer]] = queue.SimpleQueue()  # an empty list is the end
        self._taken = threading.Semaphore()  # the engine's, as soon as its last answers were taken
        self._bugs: list[MMAEdgeError] = []  # of `failures`, those that nobody foresaw
        self._ready: deque[_Answer] = deque()
        self._stopped = threading.Event()
        self._stop_s = 0.0
        self._error: BaseException | None = None
        self._started = self._ended = False
        self._threads = [
            self._source_thread(number, name, source) for number, (name, source) in enumerate(sources.items())
        ]
        self._engine_thread = threading.Thread(target=self._run_engine, name="mma-edge-engine", daemon=True)

    @classmethod
    def open(
        cls, recognizer: ClipPredictor, sources: Mapping[str, Spec], options: StreamOptions | None = None
    ) -> LivePipeline:
        """On sources that `open_source` understands, by name; where one cannot be opened, none is left open."""
        options = options or StreamOptions()
        with ExitStack() as stack:
            opened = {}
            for name, spec in sources.items():
                notify = prefixed(options.notify, name, len(sources))
                source = open_source(spec, notify, options.audio, options.nvdec, options.capture)
                opened[name] = stack.enter_context(source)
            pipeline = cls(recognizer, opened, options)
            stack.pop_all()
        return pipeline

    def _source_thread(self, number: int, name: str, source: Source) -> SourceThread:
        progress = SourceProgress(name, ThreadProgress(name))
        meter = SourceMeter(self.stages, progress)
        pipeline = Pipeline(self._recognizer, source, self.options, meter, name=name, on_event=meter.note)
        load = SourceLoad(meter, source.stats, pipeline.tracker, self.options.notify)
        return SourceThread(number, pipeline, progress, load, self._due, self._fail)

    @property
    def pipelines(self) -> list[Pipeline]:
        """What is before the engine, for each source."""
        return [thread.pipeline for thread in self._threads]

    @property
    def sources(self) -> list[SourceProgress]:
        """What came of each source so far."""
        return [thread.progress for thread in self._threads]

    def __iter__(self) -> Iterator[Emotion]:
        if not self._started and not self._stopped.is_set():
            self._started = True
            self.started_s = time.monotonic()
            for thread in (*self._threads, self._engine_thread):
                thread.start()
        return self._answers()

    def _answers(self) -> Iterator[Emotion]:
        while True:
            while self._ready:
                answer = self._ready.popleft()
                now_s = time.monotonic()
                name = answer.emotion.source
                self.stages.add("deliver", 1000 * (now_s - answer.ready_s))
                self.stages.add("age", 1000 * (now_s - answer.arrival_s))
                self.stages.add(f"age {name}", 1000 * (now_s - answer.arrival_s))
                self.delivery.begin()
                yield answer.emotion
                self.delivery.done()
            if self._ended:
                break
            try:
                answers = self._out.get(timeout=_TICK_S)
            except queue.Empty:
                if self._stopped.is_set() and time.monotonic() > self._stop_s:
                    break
                continue
            self._ended = not answers
            self._ready.extend(answers)
            self._taken.release()
        if self._error is not None:
            raise self._error
        if not self._stopped.is_set():
            self._conclude()

    def _conclude(self) -> None:
        """After the last answer: say what each source lacked, and raise where none was of any use."""
        for thread in self._threads:
            if thread.pipeline.name not in self.failures:
                try:
                    thread.pipeline.conclude()
                except MMAEdgeError as error:
                    self._fail(thread.pipeline.name, error)
        if len(self.failures) == len(self._threads):
            error = next(iter(self.failures.values()))
            raise error.__cause__ if error in self._bugs else error

    def _fail(self, name: str, error: BaseException) -> None:
        """Note that a source failed; of several it is said, because the others go on."""
        if self._stopped.is_set():
            return  # it was closed
        if not isinstance(error, MMAEdgeError):
            failure = SourceError(f"{type(error).__name__}: {first_line(error)}")
            failure.__cause__ = error
            self._bugs.append(failure)
            error = failure
        self.failures[name] = error
        if len(self._threads) > 1:
            self.options.notify(f"{name} ended: {error}")

    def _run_engine(self) -> None:
        try:
            while (batch := self._next_batch()) is not None:
                start_s = time.monotonic()
                self.engine.begin()
                for window in batch:
                    self.stages.add("queue", 1000 * (start_s - window.due_s))
                answers = self._predict(batch)
                took_s = time.monotonic() - start_s
                self.stages.add("engine", 1000 * took_s)
                self.stages.add("batch", len(batch))
                self.engine.done()
                self._out.put(answers)
                due = sum(source.windows for source in self.sources)
                self._load.look(took_s, len(batch), due, sum(source.replaced for source in self.sources))
        except BaseException as error:  # whoever takes the answers gets it
            self._error = error
        finally:
            self.engine.ended = True
            self._out.put([])

    def _next_batch(self) -> list[DueWindow] | None:
        """What is due, once the last answers were taken: of what waits until then, the newest is left."""
        start_s = time.monotonic()
        self._taken.acquire()
        self._load.waited(time.monotonic() - start_s)
        return None if self._stopped.is_set() else self._due.take()

    def _predict(self, batch: list[DueWindow]) -> list[_Answer]:
        """All clips in one call; with streaming, where the model remembers a source, one call for each source."""
        groups = {0: batch}
        if self.options.streaming:
            groups = {number: [w for w in batch if w.source == number] for number in {w.source for w in batch}}
        answers = []
        for group in groups.values():
            group = sorted(group, key=lambda window: window.clip.end_s)
            predictor = self._threads[group[0].source].pipeline.predictor
            emotions = predictor.predict_clips([window.clip for window in group])
            ready_s = time.monotonic()
            for window, emotion in zip(group, emotions, strict=True):
                thread = self._threads[window.source]
                for finished in thread.pipeline.finished([emotion]):
                    thread.progress.answers += 1
                    answers.append(_Answer(finished, window.clip.newest_arrival_s, ready_s))
        return answers

    def resume(self, slept_s: float = 0.0) -> None:
        """After the machine slept for so long: see `Pipeline.resume`. From any thread."""
        self._due.forget()
        for pipeline in self.pipelines:
            pipeline.resume()

    def stop(self) -> None:
        """Ask everything to end; does not wait. May be called from any thread."""
        self._stop_s = time.monotonic() + REST_S
        self._stopped.set()
        self._due.close()
        self._taken.release()

    def close(self) -> None:
        """Stop, close the sources and wait for all threads, at most CLOSE_S; says which did not end."""
        if not self._stopped.is_set():
            self.stop()
        closers = [
            threading.Thread(target=thread.pipeline.source.close, name=f"close {thread.pipeline.name}", daemon=True)
            for thread in self._threads
        ]
        for closer in closers:  # all at once: each may take a second
            closer.start()
        deadline_s = time.monotonic() + CLOSE_S
        owners = [source.name for source in self.sources]
        left = {}  # an ordered set
        threads = zip([*closers, *self._threads, self._engine_thread], [*owners, *owners, "the engine"], strict=True)
        for thread, owner in threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                left[owner] = None
        self.left_behind = list(left)
        if left:
            self.options.notify(f"still busy after {CLOSE_S:g} s and left to itself: {', '.join(left)}")

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def prefixed(notify: Notify, name: str, sources: int) -> Notify:
    """Says which of several sources a notice is about."""
    return notify if sources == 1 else lambda line: notify(line if line.startswith(name) else f"{name}: {line}")
