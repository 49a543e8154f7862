"""How often bundles are right, on the labelled public sets, with both modalities and with one of them gone.

Over several bundles, backends or precisions each cell is measured in a process of its own, one after the other: what
cannot run, or dies, is a row that says why.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np

import mma_edge
from mma_benchmarks.accuracy.neutral import relative, relative_to_usual
from mma_benchmarks.grid.options import check_known
from mma_benchmarks.grid.subjects import Subject, model_of, subject_of_bundle
from mma_benchmarks.latency.measure import describe_model
from mma_benchmarks.machine.facts import describe_machine
from mma_benchmarks.result import Model, Result, from_dict, utc_now
from mma_benchmarks.schema import Accuracy, AccuracyCell, AccuracyGrid, AccuracySettings, Condition, Refused
from mma_edge.child import Child, ChildDiedError, Message, Tell, serve
from mma_edge.errors import DataError, MMAEdgeError, UsageError
from mma_edge.pipeline.neutral import AUTO
from mma_edge.precisions import BACKEND_CHOICES, PRECISIONS
from mma_edge.recognizer import Recognizer
from mma_trainer.data.public.background import Recordings, load_noise
from mma_trainer.evaluation.calibration import expected_calibration_error, honest_error
from mma_trainer.evaluation.predict import Answers, answers_of
from mma_trainer.evaluation.robustness import spoiled
from mma_trainer.evaluation.sets.clips import EvalSet
from mma_trainer.evaluation.sets.public import DEFAULT_SETS, check_labels, open_set, parse_set

Progress = Callable[[str, int, int], None]
"""Takes what is being measured, clips done and clips in all."""
MAX_WHY = 400
"""Characters of the reason why a cell could not run."""


@dataclass(frozen=True)
class AccuracyOptions:
    """What to measure."""

    data: Path  # folder of the public data, as `evaluation.sets.public` finds the sets in it
    sets: tuple[str, ...] = DEFAULT_SETS
    limit: int | None = None  # clips per set, evenly spread over it; None takes all
    batch: int = 32  # clips per call of predict
    robustness: bool = False  # also with every change of `evaluation.robustness`
    # Also relative to so many neutral clips of each person, or with "auto" to what is usual for each, see `neutral.py`.
    neutral: int | str | None = None
    bundles: tuple[Path | None, ...] = (None,)  # folders, None for the embedded default model
    backends: tuple[str, ...] = ("auto",)  # as `mma_edge.load` takes them
    precisions: tuple[str, ...] = ()  # (): all that a bundle has; of a single bundle and backend its best

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}", "at least 1", "leave it out to take every clip")
        if self.batch < 1:
            raise UsageError(f"--batch {self.batch}", "at least 1")
        if self.neutral not in (None, AUTO) and not (isinstance(self.neutral, int) and self.neutral >= 1):
            expected = f"a number of clips, at least 1, or {AUTO}"
            raise UsageError(f"--neutral {self.neutral}", expected, "leave it out to measure without references")
        for name in self.sets:
            parse_set(name)
        if not self.data.is_dir():
            raise DataError(f"{self.data} is not a folder", "the folder of the public data", "give it with --data")

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
    asked = (options.limit, options.batch, options.robustness, options.neutral)
    settings = AccuracySettings(list(dict.fromkeys(options.sets)), *asked)
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
    check_labels(recognizer.labels)
    background = load_noise(options.data, "val") if options.robustness else None
    # All sets are opened before the first is measured: what is missing is found now.
    sets = {name: open_set(name, options.data, recognizer.image_size) for name in options.sets}
    measured = []
    for name, whole in sets.items():
        chosen = whole if options.limit is None else whole.first(options.limit)
        spread = f" ({len(chosen.labels)} of {len(whole.labels)} clips, evenly spread)"
        description = chosen.description + (spread if len(chosen.labels) < len(whole.labels) else "")
        for given, spoiled_by, clips in conditions_of(chosen, background):
            names = (name, given, description)
            answers = _answers(recognizer, clips, options.batch, advance)
            measured.append(_condition(answers, names, spoiled_by))
            if options.neutral and spoiled_by is None and clips.groups is not None:
                known = (answers, clips.groups, recognizer.labels)
                usual = options.neutral == AUTO
                for more, part in [relative_to_usual(*known)] if usual else relative(*known, options.neutral):
                    measured.append(_condition(part, (name, f"{given}, {more}", description)))
    return describe_model(recognizer), measured


def conditions_of(clips: EvalSet, background: Recordings | None) -> Iterator[tuple[str, str | None, EvalSet]]:
    """(what the model gets, what spoils it or None, the clips) of a set; what spoils them only with a `background`."""
    whole = "video and audio" if len(clips.modalities) == 2 else f"{clips.modalities[0]} only"
    yield whole, None, clips
    if len(clips.modalities) == 2:
        yield "video only", None, clips.without("audio")
        yield "audio only", None, clips.without("video")
    for condition, subset in spoiled(clips, background) if background else ():
        if condition.change:
            yield "audio only" if condition.lost == "video" else whole, condition.change_name, subset


def _answers(recognizer: Recognizer, clips: EvalSet, batch: int, advance: Progress) -> Answers:
    classes, total = len(recognizer.labels), len(clips.labels)
    return answers_of(recognizer.predict, clips, classes, batch, lambda done: advance(clips.name, done, total))


def _condition(answers: Answers, names: tuple[str, str, str], spoiled_by: str | None = None) -> Condition:
    """The figures of one condition; NaN, such as the recall of a class without clips, becomes None for JSON."""
    metrics = answers.metrics
    figures = {"uar": metrics.uar, "war": metrics.war, "loss": metrics.loss}
    return Condition(
        *names,
        num_clips=metrics.num_clips,
        **{key: None if np.isnan(value) else float(value) for key, value in figures.items()},
        ece=expected_calibration_error(answers.probabilities, answers.labels),
        ece_of_honest=list(honest_error(answers.probabilities)),
        recall=[None if np.isnan(value) else float(value) for value in metrics.recall],
        confusion=metrics.confusion.tolist(),
        predict_s=answers.predict_s,
        spoiled_by=spoiled_by,
    )


def _measure_in_child(
    subject: Subject, runner: str, precision: str, options: AccuracyOptions, advance: Progress
) -> AccuracyCell:
    """`measure_cell` in a process of its own.

    Raises:
        MMAEdgeError: as it. ChildDiedError: for want of memory, or by a fault of a library.
    """
    chosen = {key: getattr(options, key) for key in ("sets", "limit", "batch", "robustness", "neutral")}
    chosen["data"] = str(options.data)
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
