"""A thread that looks every second whether a run gets on: for systemd's watchdog, for /healthz, after a suspend."""

from __future__ import annotations

import contextlib
import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from mma_edge.service.systemd import Notifier
from mma_edge.types import Notify, ignore_notice

LOOK_S = 1.0
STUCK_S = 60.0
"""A thread that is so long at one piece of work is stuck: no engine needs that for a batch in a live run."""
SILENT_S = 30.0
"""Where no source has delivered for so long, the run is not healthy."""
SLEPT_S = 2.0
"""The clock that counts suspends got ahead by more than this: the machine slept."""
STATUS_S = 10.0
"""How often systemd is told a new status line."""


class WatchedThread(Protocol):
    """What a thread says of its work, see `mma_edge.live.ThreadProgress`."""

    name: str
    waiting: bool  # for work
    since_s: float  # `time.monotonic()` when it began to wait, or the work in hand
    ended: bool


class WatchedSource(Protocol):
    """What came of a source, see `mma_edge.live.SourceProgress`."""

    name: str
    last_frame_s: float | None  # `time.monotonic()`; None: nothing yet
    last_sound_s: float | None
    answers: int
    error: str | None


@dataclass(frozen=True)
class Health:
    """How a run fares."""

    run_s: float
    silent_s: dict[str, float]  # source -> since when it has delivered nothing
    errors: dict[str, str]  # of the sources that ended with one
    stuck: tuple[str, ...]  # threads
    answers: int
    suspends: int

    @property
    def healthy(self) -> bool:
        """Whether at least one source delivers and no thread is stuck."""
        return not self.stuck and any(silent_s <= SILENT_S for silent_s in self.silent_s.values())

    def to_dict(self) -> dict[str, Any]:
        """The answer of /healthz."""
        return {
            "healthy": self.healthy,
            "run_s": round(self.run_s, 1),
            "answers": self.answers,
            "suspends": self.suspends,
            "stuck": list(self.stuck),
            "sources": {
                name: {"silent_s": round(silent_s, 1), "error": self.errors.get(name)}
                for name, silent_s in self.silent_s.items()
            },
        }

    def line(self) -> str:
        """For `systemctl status`."""
        deliver = sum(silent_s <= SILENT_S for silent_s in self.silent_s.values())
        text = f"{deliver} of {len(self.silent_s)} sources deliver, {self.answers} answers in {self.run_s:.0f} s"
        return text + (f", stuck: {', '.join(self.stuck)}" if self.stuck else "")


def boot_clock() -> float:
    """Seconds since the start of the machine, those of suspends included; elsewhere than on Linux not these."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Watch(AbstractContextManager):
    """Use it in a `with` block around the run: systemd hears READY at its beginning and STOPPING at its end.

    As long as no thread is stuck, systemd's watchdog is told that the run lives. A stuck one is said once, with every
    thread's stack on stderr; then systemd, where it is there, ends and restarts the service.
    """

    def __init__(
        self,
        threads: Sequence[WatchedThread],
        sources: Sequence[WatchedSource],
        notify: Notify = ignore_notice,
        on_resume: Callable[[float], None] = lambda slept_s: None,  # called with the length of a suspend
        notifier: Notifier | None = None,
        *,
        stuck_s: float = STUCK_S,
        clock: Callable[[], float] = time.monotonic,
        boot: Callable[[], float] = boot_clock,
    ) -> None:
        self._threads, self._sources = threads, sources
        self._notify, self._on_resume, self._notifier = notify, on_resume, notifier or Notifier()
        self._stuck_s, self._clock, self._boot = stuck_s, clock, boot
        self._start_s = self._looked_s = self._awake_s = clock()
        self._ahead_s = boot() - clock()
        self._status_s = float("-inf")
        self._suspends = 0
        self._said: set[str] = set()
        # Twice in systemd's time, as it asks for.
        self._pause_s = min(LOOK_S, (self._notifier.watchdog_s or LOOK_S) / 2)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mma-edge-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._notifier.ready()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._notifier.stopping()
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._pause_s):
            self.look()

    def look(self) -> None:
        """One round."""
        now_s = self._clock()
        ahead_s = self._boot() - now_s
        slept_s, self._ahead_s = ahead_s - self._ahead_s, ahead_s
        # This thread was held up as well (the process was stopped): the others had no time either.
        if now_s - self._looked_s > self._pause_s + SLEPT_S or slept_s > SLEPT_S:
            self._awake_s = now_s
        self._looked_s = now_s
        if slept_s > SLEPT_S:
            self._suspends += 1
            self._notify(f"the machine slept for {slept_s:.0f} s: the sources are opened again")
            self._on_resume(slept_s)
        health = self.health()
        for name in health.stuck:
            if name not in self._said:
                self._notify(f"{name} is stuck for more than {self._stuck_s:g} s; the stacks follow")
                with contextlib.suppress(OSError, ValueError, RuntimeError):  # stderr may be closed
                    faulthandler.dump_traceback(all_threads=True)
        self._said = set(health.stuck)
        if not health.stuck:
            self._notifier.alive()
        if now_s - self._status_s >= STATUS_S:
            self._status_s = now_s
            self._notifier.status(health.line())

    def health(self) -> Health:
        """How the run fares now; from any thread."""
        now_s = self._clock()
        silent_s = {}
        for source in self._sources:
            came_s = (source.last_frame_s, source.last_sound_s, self._start_s)
            silent_s[source.name] = now_s - max(each for each in came_s if each is not None)
        errors = {source.name: source.error for source in self._sources if source.error is not None}
        return Health(
            now_s - self._start_s,
            silent_s,
            errors,
            tuple(thread.name for thread in self._threads if self._is_stuck(thread, now_s)),
            sum(source.answers for source in self._sources),
            self._suspends,
        )

    def _is_stuck(self, thread: WatchedThread, now_s: float) -> bool:
        busy = not (thread.waiting or thread.ended)
        return busy and now_s - max(thread.since_s, self._awake_s) > self._stuck_s


def allow_stack_dumps() -> None:
    """Every thread's stack on stderr: after a crash, and when the process gets SIGUSR1, which then goes on."""
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # there may be no stderr
        if not faulthandler.is_enabled():
            faulthandler.enable()
        if hasattr(signal, "SIGUSR1"):
            faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
