"""Everything that mma-eval finds out about a model, as plain values for JSON, report and console."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mma_edge.bundle import read_bundle, write_temperatures
from mma_edge.bundle.manifest import MODALITIES
from mma_edge.errors import DataError, OutputError
from mma_trainer.data.public.background import Recordings
from mma_trainer.evaluation.calibration import (
    ECE_BINS,
    Calibration,
    abstention,
    calibrate,
    expected_calibration_error,
    honest_error,
)
from mma_trainer.evaluation.metrics import (
    Metrics,
    finite,
    group_intervals,
    recall_intervals,
    uar_interval,
    war_interval,
)
from mma_trainer.evaluation.predict import Answers, Predictor, answers_of
from mma_trainer.evaluation.robustness import CLEAN, spoiled
from mma_trainer.evaluation.sets.clips import EvalSet

THRESHOLDS = tuple(np.round(np.arange(0.0, 1.0, 0.05), 2).tolist())
Progress = Callable[[str, int, int], None]  # takes the name of the set or condition, clips done, clips in all


@dataclass(frozen=True, eq=False)
class Evaluated:
    """One set: its answers, and those of the robustness conditions by name ("clean" first) if asked for."""

    clips: EvalSet
    answers: Answers
    conditions: dict[str, Answers]


def evaluate_set(
    model: Predictor, clips: EvalSet, robustness: bool, background: Recordings | None, progress: Progress
) -> Evaluated:
    """Run a set, under every condition if `robustness`; those of real noise need a `background`."""
    if not robustness:
        return Evaluated(clips, _answers(model, clips, progress), {})
    conditions = {condition.name: _answers(model, subset, progress) for condition, subset in spoiled(clips, background)}
    return Evaluated(clips, conditions[CLEAN], conditions)


def _answers(model: Predictor, clips: EvalSet, progress: Progress) -> Answers:
    total = len(clips.labels)
    return answers_of(model.predict, clips, len(model.labels), progress=lambda done: progress(clips.name, done, total))


def figures_of(result: Evaluated, labels: Sequence[str], thresholds: Sequence[float]) -> dict:
    """The entry of a set in metrics.json. NaN, the recall of a class without clips, becomes None."""
    metrics, answers = result.answers.metrics, result.answers
    curve = abstention(answers.probabilities, answers.labels)
    tables = {"at": curve.rows(thresholds), "table": curve.rows(THRESHOLDS), "curve": curve.curve()}
    return {
        "set": result.clips.name,
        "description": result.clips.description,
        "clips_per_item": result.clips.views,
        **metric_figures(metrics, labels),
        **_intervals_by_group(result),
        "ece": expected_calibration_error(answers.probabilities, answers.labels),
        "ece_of_honest": list(honest_error(answers.probabilities)),
        "predict_s": answers.predict_s,
        "abstention": {"aurc": curve.aurc, **tables},
        "robustness": [
            {
                "condition": name,
                "uar": finite(a.metrics.uar),
                "war": finite(a.metrics.war),
                "uar_difference": finite(a.metrics.uar - metrics.uar),
                "war_difference": finite(a.metrics.war - metrics.war),
                "ece": expected_calibration_error(a.probabilities, a.labels),
            }
            for name, a in result.conditions.items()
        ],
    }


def _intervals_by_group(result: Evaluated) -> dict:
    """Intervals of UAR and WAR over the set's speakers instead of its clips; nothing where they are not known."""
    answers, groups = result.answers, result.clips.groups
    if groups is None or len(np.unique(groups)) < 2:
        return {}
    uar, war = group_intervals(answers.labels, answers.probabilities.argmax(axis=1), groups)
    return {"uar_interval": list(uar), "war_interval": list(war)}


def metric_figures(metrics: Metrics, labels: Sequence[str]) -> dict:
    """UAR, WAR, loss, recall with 95 % intervals, and the confusion matrix, as plain values."""
    return {
        "num_clips": metrics.num_clips,
        "labels": list(labels),
        "uar": finite(metrics.uar),
        "uar_interval": list(uar_interval(metrics)),
        "war": finite(metrics.war),
        "war_interval": list(war_interval(metrics)),
        "loss": finite(metrics.loss),
        "recall": [finite(value) for value in metrics.recall],
        "recall_intervals": [list(interval) for interval in recall_intervals(metrics)],
        "confusion": metrics.confusion.tolist(),
    }


def left_out_figures(tested: Mapping[str, Answers]) -> list[dict]:
    """Corpora that were left out of training, each with the answers of the model trained without it; the mean last.

    UAR is over the classes that the corpus has, and any class of the model may be answered.
    """
    rows = []
    for corpus, answers in tested.items():
        metrics = answers.metrics
        rows.append(
            {
                "corpus": corpus,
                "num_clips": metrics.num_clips,
                "num_classes": len(np.unique(answers.labels)),
                "uar": metrics.uar,
                "war": metrics.war,
                "ece": expected_calibration_error(answers.probabilities, answers.labels),
            }
        )
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("uar", "war", "ece")}
    return [*rows, {"corpus": "mean", "num_clips": sum(row["num_clips"] for row in rows), "num_classes": None, **means}]


def fit_calibration(model: Predictor, results: Sequence[Evaluated], progress: Progress) -> dict[str, Calibration]:
    """A temperature for each kind of clip that the sets have: with both modalities, video alone, audio alone.

    Where no set has clips with one modality alone, the clips with both serve, the other modality taken away.
    """
    parts = [(result.clips, result.answers) for result in results]
    found = {}
    for index, modality in enumerate(MODALITIES):
        chosen = [part for part in parts if (part[1].available == index).any()]
        if not chosen and modality != "both":
            other = "audio" if modality == "video" else "video"
            lacking = [r.clips.without(other) for r in results if (r.answers.available == 0).any()]
            chosen = [(clips, _answers(model, clips, progress)) for clips in lacking]
        if rows := [_rows(clips, answers, index) for clips, answers in chosen if (answers.available == index).any()]:
            logits, labels = (np.concatenate([row[key] for row in rows]) for key in ("scores", "labels"))
            # Speakers of two sets are two: their places in the list of sets keep them apart.
            groups = np.concatenate([[f"{place}/{name}" for name in row["groups"]] for place, row in enumerate(rows)])
            before = model.temperatures[modality]
            source = ", ".join(clips.name for clips, _ in chosen)
            found[modality] = calibrate(source, logits * before, labels, groups, before)
    if not found:
        raise DataError("no clips to calibrate on", "clips with a face or a voice", "choose another set")
    return found


def _rows(clips: EvalSet, answers: Answers, index: int) -> dict[str, np.ndarray]:
    there = answers.available == index
    groups = np.arange(len(answers.labels)) if clips.groups is None else clips.groups
    return {"scores": answers.log_probabilities[there], "labels": answers.labels[there], "groups": groups[there]}


def calibration_record(temperatures: Mapping[str, float], found: Mapping[str, Calibration]) -> dict:
    """What is written into a checkpoint's or a bundle's provenance; `temperatures` are those in use before."""
    return {
        "temperature": {**temperatures, **{name: fit.temperature for name, fit in found.items()}},
        "method": f"temperature scaling by negative log-likelihood; ECE over {ECE_BINS} equal-width bins; "
        "ece_after and nll_after are cross-fitted over two halves, the temperature is fitted on all clips",
        "fits": {name: asdict(calibration) for name, calibration in found.items()},
    }


def calibrate_bundle(folder: Path, record: dict) -> None:
    """Write a calibration into the manifest of a bundle; OutputError leaves what was there as it was."""
    try:
        write_temperatures(read_bundle(folder), record["temperature"], record)
    except OSError as error:
        raise OutputError(f"{folder} cannot be calibrated ({error.strerror})", "a bundle of yours") from error
