"""The run that serves the page, in a process of its own: python -m mma_benchmarks.dashboard.child REQUEST"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time

from mma_edge.child import Message, Tell, serve

EVERY_S = 0.5
PAGE_THREADS = ("web-server", "mma-edge-pictures", "mma-edge-page-disk")
"""Names of the threads that a run has for its page alone."""


def work(request: Message, tell: Tell) -> int:
    """`mma-edge serve` with the request's arguments, notices and processor times in its files; the exit code."""
    from mma_edge.cli import main

    threading.Thread(target=_measure, args=(request["times"],), name="measure", daemon=True).start()
    with open(request["notices"], "w", encoding="utf-8", buffering=1) as notices, contextlib.redirect_stderr(notices):
        return main(["serve", *request["arguments"]])


def _measure(path: str) -> None:
    """Write a line of seconds every EVERY_S: wall clock, of the process, of the page's threads."""
    with open(path, "w", encoding="utf-8", buffering=1) as file:
        while True:
            page_s = 0.0
            for thread in threading.enumerate():
                if thread.name.startswith(PAGE_THREADS):
                    with contextlib.suppress(OSError, ProcessLookupError):  # it has just ended
                        page_s += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            line = {"at_s": time.monotonic(), "process_s": time.process_time(), "page_s": page_s}
            file.write(json.dumps(line) + "\n")
            time.sleep(EVERY_S)


if __name__ == "__main__":
    sys.exit(serve(work))
