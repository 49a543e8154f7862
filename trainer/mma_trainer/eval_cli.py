"""mma-eval: UAR, WAR and the confusion matrix of a checkpoint or a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mma_edge.cli_support import HelpFormatter, run_cli
from mma_edge.errors import OutputError, UsageError
from mma_trainer.data.evalsets import SETS, EvalSet, open_set
from mma_trainer.evaluate import bundle_predictor, checkpoint_predictor, evaluate
from mma_trainer.metrics import Metrics

EXAMPLES = """\
examples:
  the embedded default model, faces alone and voices alone:
    mma-eval --data DATA --set faces voices
  a checkpoint on an annotation list of the authors:
    mma-eval runs/dfew1/model.pt --val-list DFEW_set_1_test.txt --frames-root DFEW/clip_224x224
  a bundle on a random tenth of it, with the confusion matrix as a picture:
    mma-eval bundles/dfew1 --val-list DFEW_set_1_test.txt --limit 234 --output report
"""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("mma-eval", description=__doc__, epilog=EXAMPLES, formatter_class=HelpFormatter)
    parser.add_argument(
        "model",
        nargs="?",
        type=Path,
        metavar="MODEL",
        help="checkpoint or bundle (default: the embedded one)",
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of fer2013_val.npz and ravdess_speech/")
    parser.add_argument("--set", nargs="+", choices=SETS, default=[], help="public sets in --data")
    parser.add_argument("--val-list", type=Path, metavar="FILE", help="annotation list in the authors' format")
    parser.add_argument("--frames-root", type=Path, metavar="DIR", help="where the list's frame folders lie")
    parser.add_argument("--audio-root", type=Path, metavar="DIR", help="parallel tree of .wav files")
    parser.add_argument("--limit", type=int, metavar="N", help="evenly spaced clips of each set only")
    parser.add_argument("--backend", default="auto", metavar="B", help="of a bundle")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write confusion_<set>.png there")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), evaluate_command, argv, extra="train")


def evaluate_command(args: argparse.Namespace, console: Console) -> int:
    if not args.set and not args.val_list:
        raise UsageError("nothing to evaluate on", "--data DIR --set faces, or --val-list FILE", "see mma-eval --help")
    if args.set and not args.data:
        raise UsageError("--set without --data", "--data DIR")
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit {args.limit}", "at least 1")
    if args.model is not None and not args.model.exists():
        raise UsageError(f"{args.model} does not exist", "a checkpoint file or a bundle folder")
    if args.model is not None and args.model.is_file():
        predict, labels, image_size = checkpoint_predictor(args.model)
    else:
        predict, labels, image_size = bundle_predictor(args.model, args.backend)
    sets = [open_set(name, args.data, image_size) for name in args.set]
    if args.val_list:
        sets.append(_list_set(args, labels, image_size))
    for clips in sets:
        clips = clips.first(args.limit) if args.limit else clips
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task(clips.name, total=len(clips.labels))
            metrics = evaluate(predict, clips, len(labels), lambda done: progress.update(bar, completed=done))  # noqa: B023
        _print(console, clips, metrics, labels)
        if args.output:
            _plot(metrics, labels, args.output / f"confusion_{clips.name}.png")
    return 0


def _list_set(args: argparse.Namespace, labels: tuple[str, ...], image_size: int) -> EvalSet:
    from mma_trainer.data.lists import load_clip, read_list

    entries = read_list(args.val_list, args.frames_root, args.audio_root, len(labels))
    silent = sum(entry.wav is None for entry in entries)
    description = f"{args.val_list.name}, {len(entries)} clips, {silent} of them without a wav"
    targets = np.array([entry.label for entry in entries])
    return EvalSet(args.val_list.stem, description, targets, lambda index: load_clip(entries[index], image_size, None))


def _print(console: Console, clips: EvalSet, metrics: Metrics, labels: tuple[str, ...]) -> None:
    console.print(f"{clips.name}: {clips.description}", highlight=False, soft_wrap=True)
    console.print(
        f"  UAR {metrics.uar:.4f}  WAR {metrics.war:.4f}  loss {metrics.loss:.3f}  on {metrics.num_clips} clips"
    )
    table = Table(title="confusion (rows true, columns predicted)", title_justify="left", box=None)
    for heading in ("", *labels, "recall"):
        table.add_column(heading, justify="right")
    for label, row, recall in zip(labels, metrics.confusion, metrics.recall, strict=True):
        table.add_row(label, *(str(count) for count in row), "-" if np.isnan(recall) else f"{recall:.3f}")
    console.print(table, highlight=False)


def _plot(metrics: Metrics, labels: tuple[str, ...], path: Path) -> None:
    from mma_trainer.plots import plot_confusion

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        plot_confusion(metrics, labels, path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}", hint="choose another --output") from error
