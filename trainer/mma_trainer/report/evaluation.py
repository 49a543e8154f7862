"""What mma-eval --output writes: report.html, metrics.json and the confusion matrices as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mma_edge.errors import OutputError
from mma_edge.files import make_folder, to_json, write_text
from mma_trainer.evaluation.calibration import ECE_BINS, reliability
from mma_trainer.evaluation.figures import Evaluated
from mma_trainer.evaluation.predict import Predictor
from mma_trainer.report.figures import abstention_curve, difference_bars, plot_confusion, reliability_diagram
from mma_trainer.report.page import Block, Figure, Gallery, Heading, Page, Table, Text, Tiles, to_html
from mma_trainer.report.run import (
    INTERVAL_NOTE,
    METRICS,
    REPORT,
    confusion_matrix,
    headline,
    percent,
    recall_bars,
)

HONESTY_NOTE = (
    f"Expected calibration error (ECE): answers sorted by confidence into {ECE_BINS} equal-width bins; the distance "
    "between mean confidence and share of right answers, weighted by the answers of a bin. AURC: share of wrong "
    "answers, averaged over all coverages when the least confident clips are left unanswered; lower is better."
)
ROBUSTNESS_NOTE = (
    "Noise is white and added to the waveform; blur has a sigma of 5 % of the face; dark is brightness x 0.3; sound is "
    "shifted against the frames, what leaves the clip is lost and silence takes its place; a dropped frame shows the "
    "last one that came through. On stills, shifts only test a missing beginning or end of the sound, and dropped "
    "frames make no difference. All of it is the same in every run."
)
THRESHOLDS_SHOWN = tuple(round(0.1 * step, 1) for step in range(10))


def write_eval_report(
    folder: Path,
    name: str,
    model: Predictor,
    results: Sequence[Evaluated],
    figures: Sequence[Mapping],
    calibration: Mapping | None,
) -> Path:
    """Write the report of an evaluation.

    Args:
        folder: made if need be. name: of the model.
        results, figures: one each per set (`evaluation.figures_of`).
        calibration: `evaluation.calibration_record`, if a temperature was fitted.

    Raises:
        OutputError: something cannot be written.
    """
    make_folder(folder)
    temperatures = ", ".join(f"{key} {value:.3f}" for key, value in model.temperatures.items())
    facts = (("model", name), ("classes", ", ".join(model.labels)), ("faces", f"{model.image_size} px"))
    facts = (*facts, ("temperatures in use", temperatures), ("sets", ", ".join(entry["set"] for entry in figures)))
    blocks: list[Block] = [Table("What was evaluated", ("", "value"), facts, (1,)), Text(INTERVAL_NOTE)]
    if calibration:
        blocks += _calibration(calibration)
    for result, entry in zip(results, figures, strict=True):
        blocks += _set_blocks(result, entry)
        path = folder / f"confusion_{result.clips.name}.png"
        try:
            plot_confusion(result.answers.metrics, model.labels, path)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another --output") from error
    values = {"model": name, "temperatures": model.temperatures, "sets": list(figures), "calibration": calibration}
    write_text(folder / METRICS, to_json(values))
    page = folder / REPORT
    write_text(page, to_html(Page(f"Evaluation of {Path(name).name}", blocks)))
    return page


def _set_blocks(result: Evaluated, entry: Mapping) -> list[Block]:
    (tiles,) = headline(entry)
    honesty = [("ECE", percent(entry["ece"]), ""), ("AURC", f"{entry['abstention']['aurc']:.3f}", "lower is better")]
    answers = result.answers
    blocks: list[Block] = [
        Heading(entry["set"]),
        Text(entry["description"] + ".", note=entry["set"] == "pseudo"),
        Tiles([*tiles.tiles[:2], *honesty, *tiles.tiles[2:]]),
        Heading("Recall per class", 3),
        recall_bars(entry),
        Heading("Confusion", 3),
        confusion_matrix(entry),
        Heading("Confidence", 3),
        Text(HONESTY_NOTE),
        Gallery(
            [
                Figure(
                    reliability_diagram(reliability(answers.probabilities, answers.labels)),
                    "Right answers by stated confidence; area of a dot: its share of the answers",
                ),
                Figure(
                    abstention_curve(entry["abstention"]["curve"]),
                    "Right answers among those given, when the least confident are withheld",
                ),
            ]
        ),
        _thresholds(entry),
    ]
    if entry["robustness"]:
        blocks += _robustness(entry)
    return blocks


def _thresholds(entry: Mapping) -> Table:
    wanted = {row["threshold"]: row for row in entry["abstention"]["table"] if row["threshold"] in THRESHOLDS_SHOWN}
    wanted |= {row["threshold"]: row for row in entry["abstention"]["at"]}
    rows = [
        (f"{threshold:g}", percent(row["coverage"]), percent(row["accuracy"]))
        for threshold, row in sorted(wanted.items())
    ]
    return Table(
        "Answering only at this confidence and above", ("confidence", "clips answered", "of these right"), rows
    )


def _robustness(entry: Mapping) -> list[Block]:
    rows = entry["robustness"]
    clean, *others = rows
    figure = difference_bars([row["condition"] for row in others], clean["uar"], [row["uar"] for row in others])
    signed = [(row, *(f"{100 * row[f'{key}_difference']:+.2f}" for key in ("uar", "war"))) for row in rows]
    cells = [
        (row["condition"], percent(row["uar"]), uar, percent(row["war"]), war, percent(row["ece"]))
        for row, uar, war in signed
    ]
    header = ("condition", "UAR", "to clean", "WAR", "to clean", "ECE")
    return [
        Heading("Robustness", 3),
        Text(ROBUSTNESS_NOTE),
        Figure(figure, "UAR under each condition; dashed: clean"),
        Table("Under each condition, and the difference to clean in percentage points", header, cells),
    ]


def _calibration(record: Mapping) -> list[Block]:
    rows = [
        (
            name,
            fit["source"],
            f"{fit['num_clips']:,}",
            f"{fit['temperature_before']:.3f}",
            f"{fit['temperature']:.3f}",
            *(percent(fit[key]) for key in ("ece_raw", "ece_before", "ece_after")),
            f"{fit['nll_before']:.3f}",
            f"{fit['nll_after']:.3f}",
        )
        for name, fit in record["fits"].items()
    ]
    header = ("clips with", "from", "clips", "T was", "T", "ECE at T = 1", "ECE was", "ECE now", "NLL was", "NLL now")
    note = (
        "Temperature scaling fitted by negative log-likelihood, one temperature for each combination of modalities. "
        "'Now' is cross-fitted: each half of the clips at the temperature of the other half. The figures of the sets "
        "below are those before this calibration."
    )
    return [Heading("Calibration"), Text(note), Table("Expected calibration error and likelihood", header, rows, (1,))]
