"""What mma-eval --output writes: report.html, metrics.json and the confusion matrices as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mma_edge.files import make_folder
from mma_trainer.evaluation.calibration import ECE_BINS, reliability
from mma_trainer.evaluation.figures import Evaluated
from mma_trainer.evaluation.predict import Predictor
from mma_trainer.report.blocks import (
    FIT_HEADER,
    FUSION_CAPTION,
    FUSION_HEADER,
    HONEST_NOTE,
    INTERVAL_NOTE,
    ROBUSTNESS_HEADER,
    calibration_rows,
    fusion_rows,
    headline,
    honest_range,
    recall_and_confusion,
    robustness_rows,
    value_table,
    write_report,
)
from mma_trainer.report.figures import abstention_curve, difference_bars, plot_confusion, reliability_diagram
from mma_trainer.report.page import Block, Figure, Gallery, Heading, Page, Table, Text, number, percent

HONESTY_NOTE = (
    f"Expected calibration error (ECE): answers sorted by confidence into {ECE_BINS} equal-width bins; the distance "
    f"between mean confidence and share of right answers, weighted by the answers of a bin. {HONEST_NOTE} AURC: share "
    "of wrong answers, averaged over all coverages when the least confident clips are left unanswered; lower is better."
)
ROBUSTNESS_NOTE = (
    "White noise, and recordings of real background that were kept out of training, are added to the waveform, their "
    "power against that of the whole clip; loudness is a gain, clipped at full scale; the telephone band is 300 to "
    "3,400 Hz; blur has a sigma of 5 % of the face; dark is brightness x 0.3; sound is "
    "shifted against the frames, what leaves the clip is lost and silence takes its place; a dropped frame shows the "
    "last one that came through. On stills, shifts only test a missing beginning or end of the sound, and dropped "
    "frames make no difference. All of it is the same in every run."
)
CALIBRATION_NOTE = (
    "Temperature scaling fitted by negative log-likelihood, one temperature for each combination of modalities. "
    "'Now' is cross-fitted: each half of the clips at the temperature of the other half. The figures of the sets "
    "below are those before this calibration."
)


def write_eval_report(
    folder: Path,
    name: str,
    model: Predictor,
    results: Sequence[Evaluated],
    figures: Sequence[Mapping],
    calibration: Mapping | None,
) -> Path:
    """Write the report of an evaluation; OutputError where something cannot be written.

    Args:
        results, figures: one each per set (`evaluation.figures.figures_of`).
        calibration: `evaluation.figures.calibration_record`, if a temperature was fitted.
    """
    make_folder(folder)
    facts = {
        "model": name,
        "classes": model.labels,
        "faces": f"{model.image_size} px",
        "temperatures in use": {key: number(value, 3) for key, value in model.temperatures.items()},
        "sets": [entry["set"] for entry in figures],
    }
    blocks: list[Block] = [value_table("What was evaluated", facts), Text(INTERVAL_NOTE)]
    if calibration:
        rows = calibration_rows(calibration, 2, " %", ",")
        table = Table("Expected calibration error and likelihood", FIT_HEADER, rows, (1,))
        blocks += [Heading("Calibration"), Text(CALIBRATION_NOTE), table]
    for result, entry in zip(results, figures, strict=True):
        blocks += _set_blocks(result, entry)
        plot_confusion(result.answers.metrics, model.labels, folder / f"confusion_{result.clips.name}.png")
    values = {"model": name, "temperatures": model.temperatures, "sets": list(figures), "calibration": calibration}
    return write_report(folder, Page(f"Evaluation of {Path(name).name}", blocks), values)


def _set_blocks(result: Evaluated, entry: Mapping) -> list[Block]:
    aurc = number(entry["abstention"]["aurc"], 3)
    honest = f"honest: {honest_range(entry['ece_of_honest'])}"
    honesty = reliability_diagram(reliability(result.answers.probabilities, result.answers.labels))
    silence = abstention_curve(entry["abstention"]["curve"])
    figures = [
        Figure(honesty, "Right answers by stated confidence; area of a dot: its share of the answers"),
        Figure(silence, "Right answers among those given, when the least confident are withheld"),
    ]
    return [
        Heading(entry["set"]),
        Text(entry["description"] + ".", note=entry["set"] == "pseudo"),
        headline(entry, [("ECE", percent(entry["ece"], 2, " %"), honest), ("AURC", aurc, "lower is better")]),
        *recall_and_confusion(entry, level=3),
        Heading("Confidence", 3),
        Text(HONESTY_NOTE),
        Gallery(figures),
        _thresholds(entry),
        *(_robustness(entry["robustness"]) if entry["robustness"] else ()),
    ]


def _thresholds(entry: Mapping) -> Table:
    tenths = entry["abstention"]["table"][::2]  # of steps of 0.05
    wanted = {row["threshold"]: row for row in (*tenths, *entry["abstention"]["at"])}
    rows = [
        (f"{threshold:g}", percent(row["coverage"], 2, " %"), percent(row["accuracy"], 2, " %"))
        for threshold, row in sorted(wanted.items())
    ]
    header = ("confidence", "clips answered", "of these right")
    return Table("Answering only at this confidence and above", header, rows)


def _robustness(rows: Sequence[Mapping]) -> list[Block]:
    clean, *others = rows
    fusion = fusion_rows({row["condition"]: row["uar"] for row in rows}, 2, " %")
    figure = difference_bars([row["condition"] for row in others], clean["uar"], [row["uar"] for row in others])
    caption = "Under each condition, and the difference to clean in percentage points"
    return [
        Heading("Robustness", 3),
        Text(ROBUSTNESS_NOTE),
        Figure(figure, "UAR under each condition; dashed: clean"),
        Table(caption, ROBUSTNESS_HEADER, robustness_rows(rows, 2, " %")),
        *([Table(FUSION_CAPTION, FUSION_HEADER, fusion)] if fusion else ()),
    ]
