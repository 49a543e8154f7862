"""What mma-train tune says on the console and leaves as report.html: before and after, on clips left out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mma_trainer.evaluation.calibration import ECE_BINS
from mma_trainer.report.blocks import FIT_HEADER, calibration_rows, recall_and_confusion, value_table, write_report
from mma_trainer.report.page import Block, Code, Heading, Page, Table, Text, percent

SHOWN = {"both": "face and voice", "video": "face alone", "audio": "voice alone"}
WHO = {
    "strangers": "on people it has not seen",
    "one person": "on other clips of the same person",
    "unknown": "on clips left out, maybe of the same people",
}
"""What clips that were left out of the training stand for, by what is known about who is in them."""
NOTE = (
    "The clips are divided into folds; a model is tuned without each of them and judged on it, in the same way as the "
    "bundle's, which is tuned on all clips. Before: the model that was started from, asked for these classes only. "
    "UAR: mean of the per-class recall. WAR: share of right answers. ECE: mean distance of the stated confidence from "
    f"the share of right answers, in {ECE_BINS} bins, at temperatures fitted on the other half of the people."
)


def inputs_table(figures: Mapping, who: str) -> Table:
    """Before and after, by what the model got."""
    rows = [
        (
            SHOWN[row["input"]],
            str(row["num_clips"]),
            *(percent(row[key]) for key in ("uar_before", "uar", "war", "ece")),
        )
        for row in figures["inputs"]
    ]
    header = ("input", "clips", "UAR before", "UAR tuned", "WAR tuned", "ECE tuned")
    return Table(f"percent, {WHO[who]}", header, rows)


def made_worse(figures: Mapping) -> list[str]:
    """A line for each input that tuning did harm to."""
    return [
        f"warning: tuning made {SHOWN[row['input']]} worse ({percent(row['uar_before'], 1, ' %')} UAR before, "
        f"{percent(row['uar'], 1, ' %')} now): these are too few clips or people to tell, or to learn from"
        for row in figures["inputs"]
        if row["uar_before"] is not None and round(row["uar"], 9) < round(row["uar_before"], 9)  # not by its rounding
    ]


def people_table(figures: Mapping) -> Table:
    """Before and after, person by person, and their mean."""
    rows = [
        (row["person"], str(row["num_clips"]), *(percent(row[key]) for key in ("uar_before", "uar")))
        for row in figures["people"]
    ]
    means = (percent(_mean(figures["people"], key)) for key in ("uar_before", "uar"))
    rows.append(("mean", str(sum(row["num_clips"] for row in figures["people"])), *means))
    return Table("person by person, UAR in percent", ("person", "clips", "before", "tuned"), rows)


def _mean(rows: list[Mapping], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return float(np.mean(values)) if values else None


def write_tuning_report(folder: Path, figures: Mapping, who: str, calibration: Mapping, provenance: Mapping) -> Path:
    """Write report.html, whose path is returned, and metrics.json; OutputError where that fails.

    Args:
        figures: of `tuning.unseen.figures_of`.
        who: a key of WHO.
        calibration: `evaluation.figures.calibration_record`.
    """
    blocks: list[Block] = [Code(str(provenance["command"])), inputs_table(figures, who)]
    blocks += [Text(NOTE, note=who != "strangers")]
    blocks += [Text(line, note=True) for line in made_worse(figures)]
    if len(figures["people"]) > 1:
        blocks.append(people_table(figures))
    blocks += recall_and_confusion(figures["inputs"][0], level=2)
    blocks += [Heading("Calibration"), Table("Temperatures", FIT_HEADER, calibration_rows(calibration, 1, " %"), (1,))]
    blocks += [Heading("Recipe"), value_table("Hyper-parameters", provenance["recipe"])]
    blocks += [Heading("Tuned on"), value_table("Clips", provenance["tuned_on"])]
    return write_report(folder, Page(f"Tuned model {folder.name}", blocks), {**figures, "who": who})
