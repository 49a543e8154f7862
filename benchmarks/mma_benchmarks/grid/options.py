"""What a grid consists of: the checked options of the command line, and the cells that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mma_benchmarks.grid.runners import EAGER, EAGER_CUDA, RUNNERS, TORCH_RUNNERS, device_of
from mma_benchmarks.grid.subjects import Subject, subject_of_bundle, subject_of_checkpoint, subject_of_model
from mma_benchmarks.result import Advance
from mma_edge.errors import UsageError
from mma_edge.precisions import PRECISIONS
from mma_trainer.architectures import ARCHITECTURES

LARGEST_BATCH = 1024
"""Largest batch that the exported graphs take."""


@dataclass(frozen=True)
class GridOptions:
    """What to measure."""

    bundles: tuple[Path, ...] = ()  # folders; (): the default model where no model or checkpoint is given
    model: str | None = None  # architecture with random weights
    image_sizes: tuple[int, ...] = ()  # the model is exported at each of them; (): its own
    checkpoint: Path | None = None  # of the one bundle, for PyTorch; without a bundle it is exported
    backends: tuple[str, ...] = ("auto",)  # some of RUNNERS
    precisions: tuple[str, ...] = ()  # (): all that a bundle has
    batches: tuple[int, ...] = (1,)  # clips per call
    rounds: int = 7  # counted turns of each cell
    turn_s: float = 1.0  # how long a turn aims to take
    eager: bool = True  # measure PyTorch too, which every ratio is to

    def __post_init__(self) -> None:
        check_known("--backend", self.backends, RUNNERS)
        check_known("--precision", self.precisions, PRECISIONS)
        check_known("--model", (self.model,) if self.model else (), tuple(ARCHITECTURES))
        if wrong := [size for size in self.image_sizes if size < 1]:
            raise UsageError(f"--image-size {wrong[0]}", "pixels, e.g. 112, 160 or 224")
        if wrong := [batch for batch in self.batches if not 1 <= batch <= LARGEST_BATCH]:
            raise UsageError(f"--batch {wrong[0]}", f"1 to {LARGEST_BATCH}")
        if self.rounds < 1:
            raise UsageError(f"--rounds {self.rounds}", "at least 1")
        if not 0 < self.turn_s <= 600:
            raise UsageError(f"--turn {self.turn_s:g}", "seconds, more than 0 and at most 600")
        one_by_one = "measure them one after the other"
        if self.model and (self.bundles or self.checkpoint):
            raise UsageError("--model beside a bundle or a checkpoint", "one of them", one_by_one)
        if self.image_sizes and not self.model:
            hint = f"add --model {' or '.join(ARCHITECTURES)}"
            raise UsageError("--image-size without --model", "a bundle's own size", hint)
        if self.checkpoint and len(self.bundles) > 1:
            raise UsageError("--checkpoint beside several bundles", "one bundle", one_by_one)


def check_known(option: str, given: Sequence[str], known: Sequence[str]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise UsageError(f"{option} {unknown[0]}", f"one of {', '.join(known)}")


def prepare_subjects(options: GridOptions, folder: Path, advance: Advance) -> list[Subject]:
    """The models, exported below `folder` where there is no bundle yet.

    Raises:
        MMAEdgeError: a bundle or checkpoint that cannot be read, an export that fails at every precision.
    """
    # fp32 is what the torch model is checked against, and what every bundle begins with.
    exported = tuple(dict.fromkeys(["fp32", *options.precisions]))
    how = (exported, folder, advance, max(options.batches) if "tensorrt" in options.backends else 0)
    if options.model:
        sizes = dict.fromkeys(options.image_sizes or (None,))
        subjects = [subject_of_model(options.model, size, *how) for size in sizes]
    elif options.checkpoint and not options.bundles:
        subjects = [subject_of_checkpoint(options.checkpoint, *how)]
    else:
        subjects = [subject_of_bundle(path, options.checkpoint) for path in options.bundles or (None,)]
    names = [subject.name for subject in subjects]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UsageError(f"two bundles are both {twice[0]}", "bundles with names of their own", "see mma-export --name")
    return subjects


def plan_cells(options: GridOptions, subject: Subject) -> list[tuple[str, str]]:
    """(runner, precision) of every cell, the references in front.

    A precision that was not asked for by name is one of the bundle's; PyTorch then runs fp32.
    """
    cells = [(runner, "fp32") for runner in references(options)]
    for runner in options.backends:
        own = ("fp32",) if runner in TORCH_RUNNERS else tuple(subject.bundles)
        cells += [(runner, precision) for precision in options.precisions or own]
    return list(dict.fromkeys(cells))


def references(options: GridOptions) -> list[str]:
    """PyTorch in eager mode on each device that the grid computes on."""
    if not options.eager:
        return []
    devices = {device_of(runner) for runner in options.backends}
    return [runner for device, runner in (("cpu", EAGER), ("cuda", EAGER_CUDA)) if device in devices]
