"""How often bundles are right, on the labelled public sets, with both modalities and with one of them gone.

Over several bundles, backends or precisions each cell is measured in a process of its own, one after the other: what
cannot run, or dies, is a row that says why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

import mma_edge
from mma_benchmarks.grid.options import check_known
from mma_benchmarks.grid.subjects import Subject, model_of, subject_of_bundle
from mma_benchmarks.latency.measure import describe_model
from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Model, Result, from_dict, utc_now
from mma_benchmarks.schema import Accuracy, AccuracyCell, AccuracyGrid, AccuracySettings, Condition, Refused
from mma_edge.child import Child, ChildDiedError, Message, Tell, serve
from mma_edge.errors import DataError, MMAEdgeError, UsageError
from mma_edge.precisions import BACKEND_CHOICES, PRECISIONS
from mma_edge.recognizer import Recognizer
from mma_trainer.evaluation.calibration import expected_calibration_error
from mma_trainer.evaluation.predict import answers_of
from mma_trainer.evaluation.sets import SETS, EvalSet, open_set
from mma_trainer.labels import DFEW_LABELS

Progress = Callable[[str, int, int], None]
"""Takes what is being measured, clips done and clips in all."""
MAX_WHY = 400
"""Characters of the reason why a cell could not run."""


@dataclass(frozen=True)
class AccuracyOptions:
    """What to measure."""

    data: Path  # folder of the public data: ferplus_val.npz, ravdess_speech/
    sets: tuple[str, ...] = SETS
    limit: int | None = None  # clips per set, evenly spread over it; None takes all
    batch: int = 32  # clips per call of predict
    bundles: tuple[Path | None, ...] = (None,)  # folders, None for the embedded default model
    backends: tuple[str, ...] = ("auto",)  # as `mma_edge.load` takes them
    precisions: tuple[str, ...] = ()  # (): all that a bundle has; of a single bundle and backend its best

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}", "at least 1", "leave it out to take every clip")
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch}", "at least 1")
        if unknown := [name for name in self.sets if name not in SETS]:
            raise UsageError(f"set {unknown[0]!r}", f"one of {', '.join(SETS)}")
        if not self.data.is_dir():
            expected = "a folder with ferplus_val.npz and ravdess_speech/"
            raise DataError(f"{self.data} is not a folder", expected, "give it with --data")

    @property
    def is_grid(self) -> bool:
        return any(len(values) > 1 for values in (self.bundles, self.backends, self.precisions))


def measure_accuracy(options: AccuracyOptions, command: str, advance: Progress = lambda *step: None) -> Result:
    """Run the benchmark; `advance` is told of every batch.

    Raises:
        MMAEdgeError: of a single cell: as `mma_edge.load` and the sets raise it; DataError where labels do not fit
            the bundle. Of a grid: UsageError: an unknown backend or precision. BundleError: an unreadable bundle.
    """
    machine = describe_machine()
    settings = AccuracySettings(list(dict.fromkeys(options.sets)), options.limit, options.batch)
    if not options.is_grid:
        (folder,), (backend,), precision = options.bundles, options.backends, next(iter(options.precisions), None)
        model, conditions = measure_cell(folder, backend, precision, options, advance)
        return Result("accuracy", utc_now(), command, machine, model, Accuracy(settings, conditions))
    check_known("--backend", options.backends, BACKEND_CHOICES)
    check_known("--precision", options.precisions, PRECISIONS)
    subjects = [subject_of_bundle(folder, None) for folder in options.bundles]
    cells, refused = [], []
    for subject in subjects:
        for runner, precision in product(options.backends, options.precisions or subject.bundles):
            try:
                cells.append(_measure_in_child(subject, runner, precision, options, advance))
            except (MMAEdgeError, ChildDiedError) as error:
                refused.append(Refused(subject.name, runner, precision, options.batch, str(error)[:MAX_WHY]))
    results = AccuracyGrid(settings, cells, refused)
    return Result("accuracy-grid", utc_now(), command, machine, model_of(subjects), results)


def measure_cell(
    folder: str | os.PathLike | None, backend: str, precision: str | None, options: AccuracyOptions, advance: Progress
) -> tuple[Model, list[Condition]]:
    """One bundle, backend and precision: what ran, and its figures on each set."""
    recognizer = mma_edge.load(folder, backend, precision)
    if recognizer.labels[: len(DFEW_LABELS)] != DFEW_LABELS:
        raise DataError(
            f"the bundle's classes are {', '.join(recognizer.labels)}",
            f"those of the sets first: {', '.join(DFEW_LABELS)}",
            "measure a bundle with DFEW's classes",
        )
    measured = []
    for name in dict.fromkeys(options.sets):
        whole = open_set(name, options.data, recognizer.image_size)
        chosen = whole if options.limit is None else whole.first(options.limit)
        spread = f" ({len(chosen.labels)} of {len(whole.labels)} clips, evenly spread)"
        for condition, clips in conditions_of(name, chosen):
            description = clips.description + (spread if len(chosen.labels) < len(whole.labels) else "")
            measured.append(_evaluate(recognizer, clips, options.batch, advance, (name, condition, description)))
    return describe_model(recognizer), measured


def conditions_of(name: str, clips: EvalSet) -> list[tuple[str, EvalSet]]:
    """What the model gets to see and hear of a set: the modalities' names and the clips with these alone."""
    if name != "pseudo":
        return [("video only" if name == "faces" else "audio only", clips)]
    return [("video and audio", clips), ("video only", clips.without("audio")), ("audio only", clips.without("video"))]


def _evaluate(
    recognizer: Recognizer, clips: EvalSet, batch: int, advance: Progress, names: tuple[str, str, str]
) -> Condition:
    """The figures of one condition; NaN, such as the recall of a class without clips, becomes None for JSON."""
    classes, total = len(recognizer.labels), len(clips.labels)
    answers = answers_of(recognizer.predict, clips, classes, batch, lambda done: advance(clips.name, done, total))
    metrics = answers.metrics
    figures = {"uar": metrics.uar, "war": metrics.war, "loss": metrics.loss}
    return Condition(
        *names,
        num_clips=metrics.num_clips,
        **{key: None if np.isnan(value) else float(value) for key, value in figures.items()},
        ece=expected_calibration_error(answers.probabilities, clips.labels),
        recall=[None if np.isnan(value) else float(value) for value in metrics.recall],
        confusion=metrics.confusion.tolist(),
        predict_s=answers.predict_s,
    )


def _measure_in_child(
    subject: Subject, runner: str, precision: str, options: AccuracyOptions, advance: Progress
) -> AccuracyCell:
    """`measure_cell` in a process of its own.

    Raises:
        MMAEdgeError: as it. ChildDiedError: for want of memory, or by a fault of a library.
    """
    chosen = {"data": str(options.data), "sets": options.sets, "limit": options.limit, "batch": options.batch}
    request = {"cell": (str(subject.any_bundle), runner, precision), "options": chosen}

    def follow(message: Message) -> None:
        name, done, total = message["step"]
        advance(f"{subject.name}, {runner} {precision}: {name}", done, total)

    with Child(("-m", "mma_benchmarks.accuracy.measure"), request) as child:
        facts, conditions = child.result(follow)
    return from_dict(Model, facts).accuracy_cell(subject.name, from_dict(list[Condition], conditions))


def _work(asked: Message, tell: Tell) -> tuple:
    """The child's side of `_measure_in_child`."""
    chosen = asked["options"]
    options = AccuracyOptions(**{**chosen, "data": Path(chosen["data"]), "sets": tuple(chosen["sets"])})
    model, conditions = measure_cell(*asked["cell"], options, lambda *step: tell({"step": step}))
    return asdict(model), [asdict(condition) for condition in conditions]


if __name__ == "__main__":
    sys.exit(serve(_work))
