"""Writes docs/commands.md from the parsers of all five programs: python docs/make_commands.py

tests/test_docs.py says when it is out of date.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from mma_benchmarks.cli import build_parser as bench
from mma_edge.cli import build_parser as edge
from mma_edge.files import replaced
from mma_edge.manual.pages import exit_table, markdown
from mma_edge.manual.parser import Parser
from mma_export.cli import build_parser as export
from mma_trainer.commands import COMMANDS
from mma_trainer.commands.evaluate import build_parser as evaluate
from mma_trainer.commands.train import build_parser as train

PAGE = Path(__file__).with_name("commands.md")
HEAD = f"""\
# Commands

Every command with its options, defaults and examples. This page is made from the programs themselves, by
`python docs/make_commands.py`; the same text is in `COMMAND --help`, and `mma-edge help run --man` prints it as a page
for `man`.

{exit_table()}
"""


def parsers() -> dict[str, Parser]:
    """Program -> its parser, in the order of the page."""
    trainers = {
        f"mma-train {name}": importlib.import_module(module).build_parser() for name, module in COMMANDS.items()
    }
    return {
        "mma-edge": edge(),
        "mma-export": export(),
        "mma-train": train(),
        **trainers,
        "mma-eval": evaluate(),
        "mma-bench": bench(),
    }


def page() -> str:
    """The whole page."""
    return f"{HEAD}\n{markdown(parsers())}\n"


if __name__ == "__main__":
    with replaced(PAGE) as aside:
        aside.write_text(page(), encoding="utf-8")
    print(PAGE)
