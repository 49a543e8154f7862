"""mma-train tune: videos of your own to a bundle that knows your people and classes.

The faces and voices are cut as the runtime does it; what follows the encoders of the model is trained on them; how good
that is on people it has not seen is measured by leaving people out; the bundle is trained on all clips.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import TimeRemainingColumn

from mma_edge.bundle import check_output
from mma_edge.commands.support import Parser, missing_package, progress, run_cli, say
from mma_edge.errors import CheckpointError, DataError, UsageError
from mma_edge.files import make_folder
from mma_trainer.commands import prepare
from mma_trainer.commands.run_options import open_device
from mma_trainer.data.preparation.layouts import Layout
from mma_trainer.data.preparation.people import cross_validation_folds
from mma_trainer.evaluation.figures import calibration_record
from mma_trainer.report.page import to_rich
from mma_trainer.report.tuning import inputs_table, made_worse, people_table, write_tuning_report
from mma_trainer.training.state import MODEL
from mma_trainer.tuning.clips import read_clips
from mma_trainer.tuning.features import read_features
from mma_trainer.tuning.head import RECIPE, Head, answers, train_head
from mma_trainer.tuning.unseen import answers_as, cross_validate, figures_of, temperatures
from mma_trainer.weights.checkpoint import Checkpoint, build_model, save_checkpoint
from mma_trainer.weights.start import (
    DEFAULT,
    known_rows,
    origin_of,
    parse_init,
    read_start,
    temperatures_of,
    with_labels,
)

PREPARED = "prepared"
NEEDED = ("onnx", "onnxscript", "onnxruntime")  # by the export, which comes last

EXAMPLES = """\
examples:
  one folder of videos per class, and in it one per person (videos/happy/anna/*.mp4 ...):
    mma-train tune videos --output bundles/mine
    mma-edge run camera --bundle bundles/mine
  the person in the file's name (videos/happy/anna-03.mp4); or all in a CSV with columns path,label,person:
    mma-train tune videos --person '^([^-]+)-' --output bundles/mine
    mma-train tune clips.csv --output bundles/mine
  classes in an order of your own; from another model than the default one:
    mma-train tune videos --labels calm,tense --init runs/dfew1/model.pt --output bundles/mine
  go on after an interruption:
    repeat the command: videos that are cut stay cut
  a smaller or faster bundle from the same model:
    mma-export --checkpoint runs/mine/model.pt --precision int8 --clips videos --output bundles/mine8
"""


def build_parser() -> argparse.ArgumentParser:
    texts = {"description": __doc__, "epilog": EXAMPLES}
    parser = Parser("mma-train tune", **texts)
    text = "folder with one folder of videos per class, or a CSV with columns path,label[,person][,fold]"
    parser.add_argument("source", type=Path, metavar="VIDEOS", help=text)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the bundle")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    text = "start from a checkpoint, ours or the authors', or from the default model"
    parser.add_argument("--init", type=parse_init, default=DEFAULT, metavar="FILE", help=text)
    prepare.add_naming_options(parser)
    parser.add_argument(
        "--videos", type=Path, metavar="DIR", help="where the paths of a CSV begin (default: beside it)"
    )
    text = "parts of the cross-validation (default: one per person, at most five)"
    parser.add_argument("--folds", type=int, metavar="K", help=text)
    text = "the centre of the picture where a video shows no face"
    parser.add_argument("--centre-fallback", action="store_true", help=text)
    text = "folder for cut clips, model.pt and report.html (default: runs/NAME of the bundle)"
    parser.add_argument("--run", type=Path, metavar="DIR", help=text)
    parser.add_argument(
        "--seed", type=int, default=RECIPE.seed, metavar="N", help="of folds, augmentation and training"
    )
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes that cut videos"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), tune, argv, extra="train")


def tune(args: argparse.Namespace, console: Console) -> int:
    run = args.run or Path("runs") / args.output.resolve().name
    try:
        return _tune(args, run, console)
    except KeyboardInterrupt:
        if (run / PREPARED).is_dir():
            say(
                console,
                f"nothing was written to {args.output}; what is cut stays in {run}: repeat the command to go on",
            )
        raise


def _tune(args: argparse.Namespace, run: Path, console: Console) -> int:
    _check(args, run)
    options = _prepare_options(args, run / PREPARED)
    layout = prepare.read_layout(options)
    start = read_start(args.init)
    _check_classes(layout, start, args.source)
    options.folds = args.folds or cross_validation_folds(layout)
    make_folder(run)
    make_folder(args.output.resolve().parent)
    clock = _Clock(console)
    prepare.prepare_layout(options, console, layout)
    clips = read_clips(run / PREPARED, lambda line: say(console, line))
    clock.lap(f"{len(clips.entries)} clips at hand")
    model = build_model(start, args.init)
    with _bar(console, "features", len(clips.entries)) as advance:
        features = read_features(model, clips.entries, args.seed, open_device(args.device), advance)
    clock.lap("encoders")
    before = answers_as(start.config.labels, clips.labels, answers(Head(model), features))
    torch.manual_seed(args.seed)
    wanted, recipe = with_labels(start, clips.labels), dataclasses.replace(RECIPE, seed=args.seed)
    model = build_model(wanted, args.init)
    untrained = Head(model)
    with _bar(console, "left out", len(clips.folds)) as advance:
        unseen = cross_validate(clips, features, untrained, recipe, before, advance)
    clock.lap(f"{len(clips.folds)} models, each without a part of the clips")
    figures = figures_of(unseen, clips.labels)
    console.print(to_rich(inputs_table(figures, clips.who)), highlight=False)
    if len(figures["people"]) > 1:
        console.print(to_rich(people_table(figures)), highlight=False)
    for line in made_worse(figures):
        say(console, line)
    train_head(untrained, features, range(len(clips.entries)), recipe).put_into(model)
    record = calibration_record(temperatures_of(start), temperatures(unseen))
    provenance = {
        "command": "mma-train " + " ".join(sys.argv[1:]),
        "dataset": "tuned",
        "recipe": dataclasses.asdict(recipe),
        **origin_of(start, clips.labels),
        "tuned_on": clips.counts,
        "unseen": {"who": clips.who, "folds": len(clips.folds), **figures},
        "calibration": record,
        "torch": str(torch.__version__),
    }
    save_checkpoint(run / MODEL, Checkpoint(wanted.config, model.cpu().state_dict(), provenance))
    clock.lap(f"the model of all clips, in {run / MODEL}")
    say(console, f"report: {write_tuning_report(run, figures, clips.who, record, provenance)}")
    code = _export(args, run / MODEL)
    if code:
        say(console, f"the tuned model is kept: mma-export --checkpoint {run / MODEL} --output {args.output}")
    else:
        clock.lap("export")
    return code


def _check(args: argparse.Namespace, run: Path) -> None:
    """What can be known to fail before minutes are spent."""
    check_output(args.output, args.overwrite)
    if args.folds is not None and args.folds < 2:
        raise UsageError(f"--folds {args.folds}", "at least 2: what is left out of one is trained on in the others")
    if not args.source.exists():
        raise DataError(f"{args.source} does not exist", "a folder with one folder of videos per class, or a CSV")
    if args.videos and args.source.is_dir():
        raise UsageError("--videos with a folder of videos", "--videos with a CSV", "leave --videos out")
    if (run / MODEL).exists() and not (run / PREPARED).is_dir():
        raise CheckpointError(f"{run} holds another run's {MODEL}", "a folder of its own", "choose another --run")
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise missing_package(ModuleNotFoundError(name=package), "export")
    open_device(args.device)


def _prepare_options(args: argparse.Namespace, output: Path) -> argparse.Namespace:
    """The options of mma-train prepare."""
    kind = "--classes" if args.source.is_dir() else "--csv"
    options = prepare.build_parser().parse_args([kind, str(args.source), "--output", str(output)])
    for name in ("labels", "person", "videos", "centre_fallback", "workers", "seed"):
        setattr(options, name, getattr(args, name))
    return options


def _check_classes(layout: Layout, start: Checkpoint, source: Path) -> None:
    """DataError for one class only, and for classes that nobody could learn."""
    present = [name for name in layout.labels if name not in layout.absent]
    if len(present) < 2:
        what = f"{source} has videos of {'one class' if present else 'no class'} ({', '.join(present) or 'none'})"
        raise DataError(what, "at least two classes", "add a folder of videos of another")
    known = {layout.labels[row] for row in known_rows(start.config.labels, layout.labels)}
    if unknown := [name for name in layout.absent if name not in known]:
        what = f"no videos of {', '.join(unknown)}, which the model to start from does not know either"
        raise DataError(what, "videos of every new class", "add some, or leave it out")


def _export(args: argparse.Namespace, model: Path) -> int:
    """Run mma-export as a user would, with its own output; its exit code.

    The exporter stands above the trainer, which therefore does not import it. A program of its own, and not a child
    that answers in JSON: Ctrl-C reaches it, too, and it removes what it has begun.
    """
    command = [sys.executable, "-m", "mma_export", "--checkpoint", str(model), "--output", str(args.output)]
    command += ["--name", args.output.resolve().name, *(["--overwrite"] if args.overwrite else [])]
    sys.stdout.flush()
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode


class _Clock:
    """Says how long each stage took, and how long all of them."""

    def __init__(self, console: Console) -> None:
        self._console, self._start_s = console, time.monotonic()
        self._last_s = self._start_s

    def lap(self, stage: str) -> None:
        now_s = time.monotonic()
        say(self._console, f"{stage}: {now_s - self._last_s:.0f} s ({now_s - self._start_s:.0f} s in all)")
        self._last_s = now_s


@contextmanager
def _bar(console: Console, title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar, removed when done; the function is told how many are done."""
    with progress(console, TimeRemainingColumn()) as bars:
        bar = bars.add_task(title, total=total)
        yield lambda done: bars.update(bar, completed=done)
