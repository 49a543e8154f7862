"""The models of a grid: bundles that exist, or are exported for this run from a checkpoint or random weights."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mma_trainer
from mma_benchmarks.result import Advance, Model
from mma_benchmarks.schema import GridSubject
from mma_edge.bundle import DEFAULT_BUNDLE, Bundle, read_bundle, sha256
from mma_edge.bundle.manifest import MANIFEST
from mma_edge.child import ChildDiedError
from mma_edge.errors import CheckpointError, DependencyError, UsageError

SEED = 1
GATE_CLIPS = 8
EXPORT = "import sys; from mma_export.cli import main; sys.exit(main(sys.argv[1:]))"
BUILD = "import sys; from mma_edge.cli import main; sys.exit(main(['build', *sys.argv[1:]]))"
DEFAULT_CHECKPOINT = Path(mma_trainer.__file__).parent / "assets" / "nano" / "nano.pt"


@dataclass(frozen=True)
class Subject:
    """One model of the grid."""

    name: str  # unique in the grid
    origin: str  # where its weights come from, in words
    image_size: int
    labels: tuple[str, ...]
    manifest_sha256: str
    bundles: dict[str, Path]  # precision -> folder of a bundle that has it
    checkpoint: Path | None  # of the same weights, for PyTorch
    missing: dict[str, str] = field(default_factory=dict)  # precision -> why no bundle has it
    no_plan: dict[str, str] = field(default_factory=dict)  # precision -> why TensorRT has no engine that was asked for

    @property
    def any_bundle(self) -> Path:
        return next(iter(self.bundles.values()))

    def facts(self, flops_per_clip: float | None) -> GridSubject:
        """Its entry in the result."""
        own = (self.name, self.origin, self.manifest_sha256, self.image_size, list(self.labels))
        return GridSubject(*own, flops_per_clip)


def model_of(subjects: Sequence[Subject]) -> Model:
    """The `bundle` of a result about several."""
    first = subjects[0]
    others = f" and {len(subjects) - 1} more" if len(subjects) > 1 else ""
    ran = ["see the cells"] * 3
    return Model(first.name + others, first.manifest_sha256, list(first.labels), first.image_size, *ran)


def subject_of_bundle(folder: Path | None, checkpoint: Path | None) -> Subject:
    """A bundle as it is; the default model has its checkpoint with it where the trainer's files are installed.

    Raises:
        BundleError: as `read_bundle`. CheckpointError: `checkpoint` does not exist.
    """
    bundle = read_bundle(folder)
    if checkpoint is not None:
        _check_exists(checkpoint)
    elif bundle.folder.resolve() == DEFAULT_BUNDLE.resolve() and DEFAULT_CHECKPOINT.is_file():
        checkpoint = DEFAULT_CHECKPOINT
    return _subject(bundle, "a bundle", checkpoint)


def subject_of_checkpoint(
    checkpoint: Path, precisions: Sequence[str], folder: Path, advance: Advance, plan_batch: int, *export_options: str
) -> Subject:
    """Export a checkpoint below `folder` by `mma-export`; of a precision that fails the reason is kept.

    TensorRT engines are built too, for up to `plan_batch` clips at once; 0 builds none.

    Raises:
        CheckpointError: it does not exist, or not even its fp32 graph could be exported.
    """
    _check_exists(checkpoint)
    output = folder / checkpoint.stem
    wanted = list(precisions)
    missing, no_plan = {}, {}
    # A precision that misses its gate is marked, and measured all the same: how fast it is does not depend on it.
    arguments = ["--checkpoint", str(checkpoint), "--output", str(output), "--keep-going", *export_options]
    advance(f"exporting {checkpoint.stem} at {', '.join(wanted)}")
    while why := _run(EXPORT, [*arguments, "--precision", *wanted]):
        if wanted == ["fp32"]:
            raise CheckpointError(f"{checkpoint.name} could not be exported ({why})")
        # Again with fp32 alone: it is what all others are compared with.
        missing |= {precision: f"mma-export: {why}" for precision in wanted if precision != "fp32"}
        wanted = ["fp32"]
        advance(f"exporting {checkpoint.stem} at fp32")
    for precision in wanted if plan_batch else ():
        advance(f"building a TensorRT engine of {checkpoint.stem} at {precision}")
        if why := _run(BUILD, [str(output), "--precision", precision, "--max-batch", str(plan_batch)]):
            no_plan[precision] = f"mma-edge build: {why}"
    return _subject(read_bundle(output), f"exported from {checkpoint.name}", checkpoint, missing, no_plan)


def subject_of_model(
    model: str,
    image_size: int | None,
    precisions: Sequence[str],
    folder: Path,
    advance: Advance,
    plan_batch: int,
    *export_options: str,
) -> Subject:
    """The architecture with seeded random weights, exported below `folder`: as fast as a trained one."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise DependencyError("torch is not installed", hint='pip install "mma-edge[export]"') from error
    from mma_trainer.model import MMADFER, config_of
    from mma_trainer.weights.checkpoint import Checkpoint, save_checkpoint

    config = config_of(model)
    if image_size is not None:
        try:
            config = config.replace(image_size=image_size)
        except (ValueError, CheckpointError) as error:
            what = f"--image-size {image_size} with --model {model} ({error})"
            raise UsageError(what, "e.g. 112, 160, 224") from error
    advance(f"random weights of {model} at {config.image_size} px")
    torch.manual_seed(SEED)
    checkpoint = folder / f"{model}-{config.image_size}.pt"
    save_checkpoint(checkpoint, Checkpoint(config, MMADFER(config).state_dict()))
    # Random weights give no right answers to keep: a few clips are enough for scales and gate.
    few = ("--gate-clips", str(GATE_CLIPS)) if set(precisions) != {"fp32"} or export_options else ()
    subject = subject_of_checkpoint(checkpoint, precisions, folder, advance, plan_batch, *few, *export_options)
    return dataclasses.replace(subject, origin=f"random weights, seed {SEED}")


def _run(program: str, arguments: list[str]) -> str:
    """Run one of our commands; "" or why it failed. In a process of its own, for the exporter needs much memory.

    No `Child`, which speaks JSON with a function of ours: a whole command tells people on stderr how it failed.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [""])[-1].removeprefix("error: ")
    return last if last and done.returncode > 0 else ChildDiedError(done.returncode, last).describe()


def _subject(bundle: Bundle, origin: str, checkpoint: Path | None, *missing: dict[str, str]) -> Subject:
    size, bundles = bundle.image_size, dict.fromkeys(bundle.precisions, bundle.folder)
    name = bundle.name if bundle.name.endswith(f"-{size}") else f"{bundle.name} {size}"
    digest = sha256(bundle.folder / MANIFEST)
    return Subject(f"{name} px", origin, size, bundle.labels, digest, bundles, checkpoint, *missing)


def _check_exists(checkpoint: Path) -> None:
    if not checkpoint.is_file():
        raise CheckpointError(f"{checkpoint} does not exist", "a checkpoint of mma-train or of the authors")
