"""Workers that share a queue of files, each behind a thread; a file whose worker died is tried once more, alone."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from mma_edge.batch.tasks import Answer, Facts, Failure, Task, Worker, WorkerDied
from mma_edge.errors import BackendError

TRIES = 2
"""Workers that may die of a file."""
STARTS = 3
"""Workers that may die in a row before their model is open."""
END_S = 5.0
"""How long the end waits for the threads: each has a process to see off."""
Outcome = tuple[Task, float | Answer | Failure]
"""A file, and how many seconds of it were read, or its end."""


class Pool(contextlib.AbstractContextManager):
    """`open` it, `begin`, and iterate over what becomes of the tasks, until each has an Answer or a Failure.

    Use it in a `with` block: afterwards no worker is left, whatever they were doing.
    """

    def __init__(self, make_worker: Callable[[], Worker], tasks: Iterable[Task]) -> None:
        self._make_worker = make_worker
        self._fresh, self._suspects = deque(tasks), deque[Task]()
        self._begun, self._over = False, False
        self._out = 0  # tasks that a worker has
        self._changed = threading.Condition()  # of all above
        self._told: queue.SimpleQueue[Facts | Outcome | BaseException | None] = queue.SimpleQueue()
        self._workers: set[Worker] = set()
        self._threads: list[threading.Thread] = []
        self._facts: Facts | None = None

    def open(self, workers: int | None = None) -> Facts:
        """Start the workers, one where nobody knows yet how many; the facts of the first that is ready.

        MMAEdgeError where the model cannot be opened.
        """
        self._hire(workers or 1)
        told = self._told.get()
        if isinstance(told, BaseException):
            raise told
        return told

    def begin(self, workers: int) -> None:
        """Hand out the files, to so many workers."""
        self._hire(workers)
        with self._changed:
            self._begun = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Outcome]:
        """After `begin`. MMAEdgeError where no worker can be had any more."""
        while (told := self._told.get()) is not None:
            if isinstance(told, BaseException):
                raise told
            yield told

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._over = True
            for worker in self._workers:
                worker.kill()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(END_S)

    def _hire(self, workers: int) -> None:
        """Until there are so many, or one for each file."""
        while len(self._threads) < max(1, min(workers, len(self._fresh))):
            thread = threading.Thread(target=self._run, name=f"mma-edge-worker-{len(self._threads) + 1}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self) -> None:
        """In a thread: one worker after the other, the next where one died."""
        deaths = 0
        try:
            while not self._ended():
                worker = self._make_worker()
                with self._changed:
                    self._workers.add(worker)
                    if self._over:
                        worker.kill()
                try:
                    facts = self._await(worker)
                    if facts is not None:
                        deaths = 0
                        self._serve(worker, facts.together)
                except WorkerDied as death:
                    deaths += 1
                    if self._facts is None or deaths == STARTS:
                        hint = "fewer --workers take less memory"
                        raise BackendError(f"a worker cannot start: {death}", hint=hint) from death
                finally:
                    with self._changed:
                        self._workers.discard(worker)
                    worker.close()
        except BaseException as error:  # whatever it is, the run ends with it
            if not self._over:
                self._told.put(error)
            return
        if threading.current_thread() is self._threads[0]:
            self._told.put(None)  # it stays until every task has ended

    def _await(self, worker: Worker) -> Facts | None:
        """The facts, None where all has ended meanwhile."""
        while (facts := worker.ready()) is None:
            if self._ended():
                return None
        with self._changed:
            first, self._facts = self._facts, self._facts or facts
        if first is None:
            self._told.put(facts)
        elif differs := different(first, facts):
            raise BackendError(f"two workers do not have the same: {differs}", hint="install the same on every machine")
        return facts

    def _serve(self, worker: Worker, together: int) -> None:
        """Give it files until all have ended, or it has."""
        mine: dict[str, Task] = {}
        try:
            while True:
                while len(mine) < together and not any(task.tries for task in mine.values()):
                    if (task := self._take(idle=not mine)) is None:
                        break
                    mine[task.name] = task
                    worker.send(task)
                if not mine:
                    return
                name, what = worker.next()
                self._told.put((mine[name], what))
                if not isinstance(what, float):
                    del mine[name]
                    self._returned()
        except WorkerDied as death:
            if self._over:
                return
            for task in mine.values():
                again = dataclasses.replace(task, tries=task.tries + 1)
                if again.tries < TRIES:
                    with self._changed:
                        self._suspects.append(again)
                else:
                    self._told.put((again, Failure(type(death).__name__, f"{task.name}: {death}, twice", 1)))
                self._returned()

    def _take(self, idle: bool) -> Task | None:
        """The next file for a worker, None where there is none. A worker that is `idle` waits: another may die; and it
        alone gets the files of one that died, because nobody knows which of them it was."""
        with self._changed:
            while not self._ended():
                if idle and self._begun and self._suspects:
                    task = self._suspects.popleft()
                elif self._begun and self._fresh:
                    task = self._fresh.popleft()
                elif idle:
                    self._changed.wait()
                    continue
                else:
                    return None
                self._out += 1
                return task
        return None

    def _returned(self) -> None:
        with self._changed:
            self._out -= 1
            self._changed.notify_all()

    def _ended(self) -> bool:
        with self._changed:
            return self._over or (self._begun and not (self._fresh or self._suspects or self._out))


def different(one: Facts, other: Facts) -> str:
    """What keeps the answers of two models from going together, "" where nothing does."""
    names = ("version", "name", "digest", "labels", "backend", "precision", "streaming")
    pairs = {name: (getattr(one, name), getattr(other, name)) for name in names}
    return ", ".join(f"{name} {first} and {second}" for name, (first, second) in pairs.items() if first != second)
