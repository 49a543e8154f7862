"""A process that recognises files, one core each: `mma_edge.child` starts it, orders are files."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading

from mma_edge.batch.tasks import Answer, Facts, Failure, Job, Message, Task, WorkerDied
from mma_edge.child import Child, ChildDiedError, ChildTimeoutError, Tell, orders, serve
from mma_edge.engines.base import THREADS_VARIABLE

SILENCE_S = 300.0
"""A worker that says nothing for so long hangs: in a decoder, or on a disk that went away."""
ONE_CORE = {THREADS_VARIABLE: "1", "OMP_NUM_THREADS": "1"}
"""Environment of a worker: as many workers as cores, none with threads that take another one's core."""


class LocalWorker:
    """A process on this machine; see `mma_edge.batch.tasks.Worker`."""

    def __init__(self, job: Job) -> None:
        own = {name: os.environ.get(name, value) for name, value in ONE_CORE.items()}
        self._child = Child(("-m", "mma_edge.batch.worker"), dataclasses.asdict(job), own)
        self.pid = self._child.pid

    def ready(self) -> Facts:
        facts = self._message()["facts"]
        return Facts(**{**facts, "labels": tuple(facts["labels"]), "notes": tuple(facts["notes"])})

    def send(self, task: Task) -> None:
        self._child.send(dataclasses.asdict(task))

    def next(self) -> tuple[str, float | Answer | Failure]:
        return outcome(self._message())

    def close(self) -> None:
        self._child.close()

    def kill(self) -> None:
        self._child.kill()

    def _message(self) -> Message:
        try:
            return self._child.message(SILENCE_S)
        except ChildDiedError as error:
            raise WorkerDied(error.describe()) from error
        except ChildTimeoutError as error:
            raise WorkerDied(f"nothing was heard of it for {SILENCE_S:g} s") from error


def message_of(name: str, what: Answer | Failure) -> Message:
    """What `outcome` understands."""
    return {"file": name, type(what).__name__.lower(): dataclasses.asdict(what)}


def outcome(message: Message) -> tuple[str, float | Answer | Failure]:
    """A file's name, and the seconds read or its end."""
    if "answer" in message:
        answer = message["answer"]
        return message["file"], Answer(**{**answer, "notes": tuple(answer["notes"])})
    if "failure" in message:
        return message["file"], Failure(**message["failure"])
    return message["file"], message["read_s"]


def work(request: Message, tell: Tell) -> None:
    """The process: opens the model, says so, and recognises files, each in a thread, until its stdin closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    from mma_edge.batch.files import FileRecognizer  # what it imports takes a second

    with FileRecognizer(Job(**request)) as recognizer:
        tell({"facts": dataclasses.asdict(recognizer.facts)})

        def recognise(task: Task) -> None:
            try:
                what = recognizer(task, lambda read_s: tell({"file": task.name, "read_s": read_s}))
            except BaseException as error:  # whatever it is, the other files go on
                what = Failure.of(error)
            tell(message_of(task.name, what))

        for order in orders():
            name = f"mma-edge-{order['name']}"
            threading.Thread(target=recognise, args=(Task(**order),), name=name, daemon=True).start()


if __name__ == "__main__":
    sys.exit(serve(work))
