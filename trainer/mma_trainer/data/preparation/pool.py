"""Many videos through a pool of processes; one that crashes its process costs no other video."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

In, Out = TypeVar("In"), TypeVar("Out")


def _open(workers: int) -> ProcessPoolExecutor:
    # Spawned: a fork would copy locks that other threads of this process (progress bar, FFmpeg) may hold.
    context = multiprocessing.get_context("spawn")
    # Ctrl-C reaches every process of the group: the parent stops handing out work, the clip at hand is finished.
    return ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN))


def run_all(
    work: Callable[[In], Out], items: Sequence[In], workers: int, crashed: Callable[[In], Out]
) -> Iterator[tuple[In, Out]]:
    """(item, result) as they come, in any order.

    Args:
        work: a function of a module; what it raises is raised here.
        workers: processes; 1 works in this process.
        crashed: result for an item whose process died (a decoder's segmentation fault, memory used up).
    """
    if workers == 1:
        yield from ((item, work(item)) for item in items)
        return
    waiting = list(reversed(items))
    while waiting:
        suspects: list[In] = []
        with _open(workers) as pool:
            running: dict[Future, In] = {}
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        running[pool.submit(work, waiting[-1])] = waiting[-1]
                        waiting.pop()
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool:
                # Nothing says which of them crashed it: each gets a process of its own.
                suspects = list(running.values())
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        for item in suspects:
            with _open(1) as alone:
                try:
                    result = alone.submit(work, item).result()
                except BrokenProcessPool:
                    result = crashed(item)
            yield item, result
