"""mma-bench accuracy: one bundle in depth, or a grid of bundles, backends and precisions."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import TimeRemainingColumn

from mma_benchmarks.commands.support import add_bundles, add_output, finish, results_folder, unique
from mma_edge.commands.support import progress, say

HELP = "measure recall, calibration and confusion on labelled clips"
EXAMPLES = """\
examples:
  mma-bench accuracy --data data
  mma-bench accuracy bundles/dfew --data data --set pseudo --limit 500
  mma-bench accuracy bundles/dfew --data data --backend cpu openvino --precision fp32 int8
  mma-bench accuracy --data data --set voices av-javanese/04,05 --robustness
  mma-bench accuracy --data data --set javanese/04,05 av-javanese/04,05 --neutral 3
  mma-bench accuracy --data data --set javanese/04,05 av-javanese/04,05 --neutral auto

Sets with face and voice are measured three times: with both, without sound and without faces. "av-javanese" and
"av-ravdess" are real clips; "pseudo" pairs faces with voices of the same label. A speech corpus by its name is the
whole corpus: its figures are honest for a model that was not trained on it. docs/evaluation.md has all sets, and which
files of --data each of them needs. More than one bundle, backend or precision makes a grid.
"""

SETS_HELP = "public sets, e.g. faces voices javanese/04,05 (default: people whom the default model was not trained on)"


def add_options(parser: argparse.ArgumentParser) -> None:
    add_bundles(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the public data")
    parser.add_argument("--set", nargs="+", metavar="SET", help=SETS_HELP)
    robustness_help = "also with noise, other loudness, bad light ..., and the points lost to clean"
    parser.add_argument("--robustness", action="store_true", help=robustness_help)
    neutral_help = (
        "also relative to N neutral clips of each person (as mma-edge run --neutral FILE), beside the same without; "
        "auto: also relative to what is usual for each (as --neutral auto)"
    )
    parser.add_argument("--neutral", type=_clips, metavar="N|auto", help=neutral_help)
    parser.add_argument("--limit", type=int, metavar="N", help="clips per set, evenly spread (default: all)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="clips per call of the engine")
    add_output(parser)


def _clips(text: str) -> int | str:
    """A number; any other text as it is, for `AccuracyOptions` to say what was expected."""
    try:
        return int(text)
    except ValueError:
        return text


def run(args: argparse.Namespace, console: Console) -> int:
    from mma_benchmarks.accuracy.measure import AccuracyOptions, measure_accuracy

    chosen = {"sets": tuple(args.set)} if args.set else {}
    options = AccuracyOptions(
        data=args.data,
        **chosen,
        limit=args.limit,
        batch=args.batch,
        robustness=args.robustness,
        neutral=args.neutral,
        bundles=tuple(args.bundle) or (None,),
        backends=unique(args.backend),
        precisions=unique(args.precision),
    )
    folder = results_folder(args.output)
    with progress(console, TimeRemainingColumn()) as bars:
        tasks: dict[str, int] = {}

        def advance(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        result = measure_accuracy(options, args.typed, advance)
    if not options.is_grid:
        from mma_benchmarks.accuracy.page import caveats

        for caveat in caveats(result):
            say(console, caveat.text, "yellow" if caveat.note else "dim")
    return finish(result, folder, console)
