"""The run that is observed, in a process of its own: python -m mma_benchmarks.soak.child REQUEST"""

from __future__ import annotations

import contextlib
import sys

from mma_edge.child import Message, Tell, serve


def work(request: Message, tell: Tell) -> int:
    """`mma-edge run` with the request's arguments, its notices in the request's file; its exit code."""
    from mma_edge.cli import main

    with open(request["notices"], "w", encoding="utf-8", buffering=1) as notices, contextlib.redirect_stderr(notices):
        return main(["run", *request["arguments"]])


if __name__ == "__main__":
    sys.exit(serve(work))
