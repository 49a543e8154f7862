"""`mma-edge batch`: the emotions of folders full of files."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import TextColumn

from mma_edge.commands.recognition import (
    add_clip_options,
    add_model_options,
    add_neutral_option,
    notes_to,
    stream_options,
)
from mma_edge.commands.support import EXIT_INTERRUPTED, progress, say
from mma_edge.errors import SourceError, UsageError

if TYPE_CHECKING:
    from mma_edge.batch.run import Status
    from mma_edge.batch.tasks import Job

LINE_S = 10.0
"""How often a line says how far it is, where there is no terminal."""
BATCH_EXAMPLES = """\
examples:
  mma-edge batch videos --output emotions                all media files in the folder, by all cores
  mma-edge batch videos --output emotions                again: what is done is skipped, what is new is done
  mma-edge batch videos --output emotions --pattern '*_front.mp4'
  mma-edge batch list.txt extra.csv talk.mp4 --output emotions --workers 2
  mma-edge batch videos --output emotions --retry-failed
  mma-edge batch interviews --output emotions --neutral auto      relative to what is usual for each person of a file
  mma-edge batch videos --output emotions --backend cuda --files-at-once 16
  mma-edge batch /nfs/videos --output emotions --ray auto         the cores of a Ray cluster

A list has a path in each line (# begins a comment) or is a CSV with a column "path"; paths are relative to the list.
DIR gets records/NAME.jsonl for each file, records.parquet with all of them, done.jsonl, failed.jsonl and batch.json.
Ctrl-C, a crash or a power cut lose what is being worked on, and nothing else: the same command goes on.

exit codes: 0 every file is done, 2 usage, 3 some files failed or none were found, 5 bundle, 6 backend or cluster,
7 output (a full disk; or the folder is of another model or other options), 11 missing package, 130 interrupted
"""


def add_batch_command(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    description = "Emotions of all media files of folders and lists, by every core; it can be gone on with."
    texts = {"help": "recognise emotions in thousands of files", "description": description, "epilog": BATCH_EXAMPLES}
    batch = commands.add_parser("batch", **texts)
    batch.set_defaults(command=batch_command)
    add = batch.add_argument
    add("inputs", nargs="+", type=Path, metavar="FOLDER|LIST|FILE", help="folders, lists of files, or files")
    add(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the records; one of before is gone on with"
    )
    add("--workers", type=int, metavar="N", help="processes of one core each (default: every core; on a GPU 1)")
    pattern = "of a folder take the files whose name or path below it is like GLOB, whatever their type"
    add("--pattern", action="append", metavar="GLOB", help=pattern)
    add("--retry-failed", action="store_true", help="try the files again that failed before")
    add("--overwrite", action="store_true", help="forget what DIR holds of an earlier batch, and do all files again")
    at_once = "files that a worker reads at once, their clips in one call of the engine (default: on a GPU 8, else 1)"
    add("--files-at-once", type=int, metavar="N", help=at_once)
    add("--ray", metavar="ADDRESS", help="work on this Ray cluster, whose nodes can read the same paths (extra ray)")
    add("--quiet", action="store_true", help="print notices and errors only")
    add_model_options(add)
    add_clip_options(add)
    add_neutral_option(add)


def batch_command(args: argparse.Namespace, console: Console) -> int:
    from mma_edge.batch.run import BatchOptions, run_batch

    for option in ("workers", "files_at_once"):
        if (value := getattr(args, option)) is not None and value < 1:
            raise UsageError(f"--{option.replace('_', '-')} {value}", "at least 1")
    notify = notes_to(Console(stderr=True))
    options = BatchOptions(
        inputs=tuple(path.expanduser() for path in args.inputs),
        output=args.output,
        patterns=tuple(args.pattern or ()),
        workers=args.workers,
        retry_failed=args.retry_failed,
        overwrite=args.overwrite,
        ray=args.ray,
        notify=notify,
    )
    job = job_of(args)
    # SIGTERM ends the run as cleanly as Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    last: list[Status] = []
    with _shown(console, args.quiet) as show:

        def follow(status: Status) -> None:
            last[:] = [status]
            show(status)

        try:
            status = run_batch(job, options, follow)
        except KeyboardInterrupt:
            done = f"{last[0].finished} of {last[0].files} files are done" if last else "nothing is done"
            print(f"interrupted: {done}; the same command goes on", file=sys.stderr)
            return EXIT_INTERRUPTED
    if not args.quiet:
        say(console, _summary(status, args.output))
    if status.failed:
        notify(f"{_files(status.failed)} failed: {args.output / 'failed.jsonl'} says why; --retry-failed tries again")
    return SourceError.exit_code if status.failed else 0


def job_of(args: argparse.Namespace) -> Job:
    """What the workers do; UsageError where the options do not fit together."""
    from mma_edge.batch.tasks import Job, plain_options
    from mma_edge.clip import SlidingClips

    checked = stream_options(args, None, lambda line: None)
    if not checked.whole:
        SlidingClips(checked.window_s, checked.hop_s)  # one error here, not one for each file
    options = plain_options(checked)
    # "auto" is known once the model is open.
    options["streaming"] = None if args.streaming == "auto" else checked.streaming
    bundle = None if args.bundle is None else str(args.bundle.absolute())
    return Job(bundle, args.backend, args.precision, args.streaming, options, args.files_at_once)


@contextlib.contextmanager
def _shown(console: Console, quiet: bool) -> Iterator[Callable[[Status], None]]:
    """Shows how far it is: a bar in a terminal, elsewhere a line now and then."""
    if quiet:
        yield lambda status: None
        return
    if not console.is_terminal:
        told_s = time.monotonic()

        def line(status: Status) -> None:
            nonlocal told_s
            if status.phase == "recognising" and time.monotonic() - told_s > LINE_S:
                told_s = time.monotonic()
                say(console, f"{status.finished} of {_files(status.files)}, {_pace(status)}")

        yield line
        return
    with progress(console, TextColumn("{task.fields[pace]}", markup=False)) as bars:
        bar = bars.add_task("", total=None, pace="")

        def draw(status: Status) -> None:
            at_work = status.phase == "recognising"
            known = {"total": status.files or None, "completed": status.finished}
            bars.update(bar, description=status.phase, pace=_pace(status) if at_work else "", **known)

        yield draw


def _pace(status: Status) -> str:
    left_s = status.left_s
    parts = [f"{status.failed} failed"] if status.failed else []
    parts += [f"{status.media_rate:.1f} s of video per second"]
    parts += [f"{_duration(left_s)} left"] if left_s is not None else []
    return ", ".join(parts)


def _summary(status: Status, output: Path) -> str:
    parts = [f"{status.done} done"] if status.done else ["nothing new"]
    known = {"before": status.skipped, "under another name": status.moved}
    parts += [f"{count} done {how}" for how, count in known.items() if count]
    parts += [f"{status.duplicates} with the content of others"] if status.duplicates else []
    parts += [f"{status.failed} failed"] if status.failed else []
    text = f"{_files(status.files)}: {', '.join(parts)}"
    if status.done:
        rate = f"{60 * status.done / max(1e-3, status.wall_s):.0f} files a minute"
        text += f"; {_duration(status.wall_s)}, {rate}, {status.media_rate:.1f} s of video per second"
    return f"{text}; records in {output}"


def _files(count: int) -> str:
    return f"{count} file" + "s" * (count != 1)


def _duration(seconds: float) -> str:
    """As a person says it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
