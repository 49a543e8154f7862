"""Entry points of mma-train and mma-eval, which say in one line what is missing where torch is not installed.

`python -m mma_trainer` is mma-train; so is `torchrun --nproc-per-node 2 -m -- mma_trainer`, in two processes.
"""

from __future__ import annotations

import importlib
import sys

from mma_edge.commands.support import missing_package, report
from mma_trainer.commands import COMMANDS


def train(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return _run(COMMANDS[argv[0]], argv[1:])
    return _run("mma_trainer.commands.train", argv)


def evaluate(argv: list[str] | None = None) -> int:
    return _run("mma_trainer.commands.evaluate", argv)


def _run(module: str, argv: list[str] | None) -> int:
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        return report(missing_package(error, "train"))
    return main(argv)


if __name__ == "__main__":
    sys.exit(train())
