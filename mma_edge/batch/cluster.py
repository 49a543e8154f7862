"""Actors of a Ray cluster that is there already, in place of processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from typing import Any

from mma_edge.batch.tasks import Answer, Facts, Failure, Job, Task, WorkerDied
from mma_edge.errors import BackendError, DependencyError, MMAEdgeError, UsageError, first_line
from mma_edge.precisions import GPU_BACKENDS

CONNECT_S = 5.0
_WAIT_S = 0.5
"""For which a thread waits for Ray before it looks whether all has ended."""


class Recognition:
    """The actor: one core, one model. Runs on a node of the cluster, where mma-edge must be installed."""

    def __init__(self, job: Job) -> None:
        from mma_edge.batch.worker import ONE_CORE

        # Before the engine's library is loaded. Ray has set OMP_NUM_THREADS to the actor's cores.
        for name, value in ONE_CORE.items():
            os.environ.setdefault(name, value)
        self._job = job
        self._recognizer = None

    def open(self) -> Facts | MMAEdgeError:
        """The facts, or why the model cannot be opened."""
        from mma_edge.batch.files import FileRecognizer

        try:
            self._recognizer = FileRecognizer(self._job)
        except MMAEdgeError as error:
            return error
        return self._recognizer.facts

    def recognise(self, task: Task) -> Answer | Failure:
        """What a file gave. Its path must be readable on this node."""
        try:
            return self._recognizer(task, lambda read_s: None)
        except Exception as error:
            return Failure.of(error)


class Cluster:
    """A connection to a cluster."""

    def __init__(self, address: str, job: Job) -> None:
        """Connect.

        Raises:
            UsageError: for a GPU. DependencyError: ray is not installed. BackendError: no cluster answers.
        """
        if job.backend in GPU_BACKENDS:
            raise UsageError(f"--ray with --backend {job.backend}", "cpu, openvino or auto", "an actor takes one core")
        # Before ray is imported: no reports to its makers.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise DependencyError("ray is not installed", hint='pip install "mma-edge[ray]"') from error
        on_sigterm = signal.getsignal(signal.SIGTERM)
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        except Exception as error:  # of many kinds
            hint = "start one with: ray start --head --include-dashboard=false"
            raise BackendError(f"no Ray cluster at {address} ({first_line(error)[:200]})", hint=hint) from error
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # ray has put its own in its place
        self._ray = ray
        self._job = job
        own = {"num_cpus": 1, "max_restarts": 0, "max_concurrency": job.together or 1}
        self._actor = ray.remote(**own)(Recognition)

    def cores(self) -> int:
        """Of the whole cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def worker(self) -> RayWorker:
        return RayWorker(self._ray, self._actor.remote(self._job))

    def close(self) -> None:
        self._ray.shutdown()


class RayWorker:
    """An actor; see `mma_edge.batch.tasks.Worker`."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._opening = actor.open.remote()
        self._running: dict[Any, str] = {}

    def ready(self) -> Facts | None:
        if not self._ray.wait([self._opening], timeout=_WAIT_S)[0]:
            return None  # no node has a core to spare yet
        facts = self._got(self._opening)
        if isinstance(facts, MMAEdgeError):
            raise facts
        return facts

    def send(self, task: Task) -> None:
        self._running[self._actor.recognise.remote(task)] = task.name

    def next(self) -> tuple[str, float | Answer | Failure]:
        (done, *_), _ = self._ray.wait(list(self._running), num_returns=1)
        what = self._got(done)
        return self._running.pop(done), what

    def close(self) -> None:
        self.kill()

    def kill(self) -> None:
        self._ray.kill(self._actor)

    def _got(self, reference: Any) -> Any:
        """The value; WorkerDied where the actor or its node is gone."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            raise WorkerDied(f"the Ray actor ended ({first_line(error)[:200]})") from error


def _knock(address: str) -> None:
    """OSError where nothing listens at HOST:PORT; ray itself would wait for minutes."""
    if place := re.fullmatch(r"(?:ray://)?([^:/]+|\[.+\]):(\d+)", address):
        socket.create_connection((place[1].strip("[]"), int(place[2])), CONNECT_S).close()
