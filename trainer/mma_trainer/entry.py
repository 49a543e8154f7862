"""Entry points of mma-train and mma-eval: where torch is not installed, they say so in one line."""

from __future__ import annotations

import importlib
import sys

from mma_edge.cli_support import missing_package, report

# Subcommands of mma-train; without one it trains.
COMMANDS = {"prepare": "mma_trainer.prepare_cli", "ablate": "mma_trainer.ablate_cli"}


def train(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in COMMANDS:
        return _run(COMMANDS[argv[0]], argv[1:])
    return _run("mma_trainer.cli", argv)


def evaluate(argv: list[str] | None = None) -> int:
    return _run("mma_trainer.eval_cli", argv)


def _run(module: str, argv: list[str] | None) -> int:
    try:
        main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        return report(missing_package(error, "train"))
    return main(argv)
