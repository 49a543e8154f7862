"""What a grid of accuracies looks like to people."""

from __future__ import annotations

from collections.abc import Sequence

from mma_benchmarks.accuracy.page import number, percent
from mma_benchmarks.grid.page import refused_table
from mma_benchmarks.result import Result
from mma_trainer.report.page import Block, Gallery, Heading, Matrix, Table, Text

NOTE = (
    "UAR: mean of the per-class recall. WAR: share of right answers. Loss: mean negative log-likelihood, nats. ECE: "
    "distance between stated confidence and share of right answers. All cells saw the same clips."
)


def key_table(results: Sequence[Result]) -> Table:
    """One row per cell and condition."""
    rows = []
    for result in results:
        for cell in result.results["cells"]:
            for entry in cell["conditions"]:
                what = f"{entry['set']}: {entry['condition']}"
                figures = (
                    percent(entry["uar"]),
                    percent(entry["war"]),
                    number(entry["loss"], 3),
                    percent(entry["ece"]),
                )
                row = (cell["subject"], f"{cell['runner']} {cell['precision']}", what, str(entry["num_clips"]))
                rows.append((*row, *figures))
    header = ("model", "backend", "set: what the model gets", "clips", "UAR %", "WAR %", "loss", "ECE %")
    return Table("Accuracy over the grid", header, rows, prose=(1, 2))


def console_tables(result: Result) -> list[Table]:
    tables = [key_table([result])] if result.results["cells"] else []
    return [*tables, refused_table(result)] if result.results["refused"] else tables


def accuracy_grid_blocks(result: Result) -> list[Block]:
    """The section of one result, without machine."""
    found = result.results
    blocks: list[Block] = []
    if found["cells"]:
        descriptions = {e["set"]: e["description"] for cell in found["cells"] for e in cell["conditions"]}
        blocks += [Text(f"{name}: {text}.", note=name == "pseudo") for name, text in descriptions.items()]
        blocks += [key_table([result]), Text(NOTE), Heading("Confusion", 3)]
        for cell in found["cells"]:
            name = f"{cell['subject']}, {cell['runner']} {cell['precision']}"
            matrices = [
                Matrix(f"{name}: {e['set']}, {e['condition']}", tuple(cell["labels"]), e["confusion"])
                for e in cell["conditions"]
            ]
            blocks.append(Gallery(matrices))
        engines = sorted({(cell["runner"], cell["details"]) for cell in found["cells"]})
        blocks.append(Table("What ran", ("backend", "engine"), engines, prose=(1,)))
    return [*blocks, Heading("What could not run", 3), refused_table(result)] if found["refused"] else blocks
