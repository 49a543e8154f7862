"""mma-train prepare: raw videos to face crops, wavs and annotation lists that mma-train trains on.

Faces are found, followed and cut as the runtime does it. Finished clips are kept: repeat
the command after an interruption and it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.progress import TextColumn, TimeRemainingColumn

from mma_edge.commands.support import Parser, progress, run_cli, say
from mma_edge.errors import DataError, OutputError, UsageError
from mma_edge.files import replaced, to_json
from mma_edge.sources.file import videos_in
from mma_trainer.data.check import counts
from mma_trainer.data.preparation import layouts, people
from mma_trainer.data.preparation.cut import CRASHED, FACES, WORK, CropOptions, Outcome, finished, prepare_video
from mma_trainer.data.preparation.layouts import TEST, TRAIN, Layout, Video
from mma_trainer.data.preparation.pool import run_all
from mma_trainer.data.preparation.sound import extract_sound
from mma_trainer.data.protocols import DESCRIPTION, PROTOCOLS, SCHEMA, prepared_list

FAILURES = "failures.csv"
MAX_SHOWN = 20
PLAIN = {"highlight": False, "soft_wrap": True, "markup": False}  # printed as it stands

EXAMPLES = """\
examples:
  one folder of videos per class (videos/angry/*.mp4, videos/happy/*.mp4 ...), a fifth of each to test:
    mma-train prepare --classes videos --output prepared
  the same, nobody in both lists: folders videos/angry/anna/*.mp4, or files videos/angry/anna-03.mp4:
    mma-train prepare --classes videos --output prepared
    mma-train prepare --classes videos --person '^([^-]+)-' --output prepared
  a CSV with columns path,label and maybe person and fold:
    mma-train prepare --csv clips.csv --output prepared
  MAFW by its authors' lists:
    mma-train prepare --dataset mafw --data MAFW --videos MAFW/data/clips --output prepared
  only the wavs of DFEW, whose download has the faces (Clip/clip_224x224) and the raw videos:
    mma-train prepare --sound-only --videos DFEW/Clip/original --output DFEW/raw_wav
  and then:
    mma-train --dataset prepared --data prepared --fold 1 ...
"""


def build_parser() -> argparse.ArgumentParser:
    texts = {"description": __doc__, "epilog": EXAMPLES}
    parser = Parser("mma-train prepare", **texts)
    source = parser.add_argument_group("videos (one of --classes, --csv and --dataset)")
    source.add_argument("--classes", type=Path, metavar="DIR", help="one folder of videos per class")
    source.add_argument("--csv", type=Path, metavar="FILE", help="columns path,label[,person][,fold]")
    source.add_argument("--dataset", choices=PROTOCOLS, help="by the authors' lists, found in --data")
    source.add_argument("--data", type=Path, metavar="DIR", help="where annotation/ lies, with --dataset")
    source.add_argument("--videos", type=Path, metavar="DIR", help="raw videos, with --dataset or --csv")
    add_naming_options(source)
    split = parser.add_argument_group("folds (unless the videos come with folds)")
    split.add_argument("--folds", type=int, default=1, metavar="K", help="cross-validation in K parts")
    split.add_argument(
        "--val-share", type=float, default=0.2, metavar="X", help="tested part of each class, of one fold"
    )
    split.add_argument("--seed", type=int, default=1, metavar="N", help="of the division into folds")
    clips = parser.add_argument_group("clips")
    clips.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the prepared data set")
    clips.add_argument("--format", choices=("jpg", "png"), default="jpg", help="png: exactly what the runtime sees")
    clips.add_argument("--crop-size", type=int, default=0, metavar="S", help="resize crops to S pixels (0: as cut)")
    clips.add_argument(
        "--centre-fallback", action="store_true", help="the centre of the picture where a video shows no face"
    )
    clips.add_argument("--sound-only", action="store_true", help="only write <name>.wav of every file in --videos")
    clips.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    clips.add_argument("--overwrite", action="store_true", help="make finished clips again")
    clips.add_argument("--strict", action="store_true", help="end with an error when any video failed")
    return parser


def add_naming_options(group: argparse._ArgumentGroup) -> None:
    """Options of `layouts_of` that mma-train tune has, too."""
    text = "class names in order (default: the known ones as in the default model, then the others by name)"
    group.add_argument("--labels", metavar="A,B,...", help=text)
    text = "the first group in a file's name is the person (default: CLASS/PERSON/..., or the CSV's column)"
    group.add_argument("--person", metavar="REGEX", help=text)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    return run_cli(build_parser(), prepare, argv, extra="train")


def prepare(args: argparse.Namespace, console: Console) -> int:
    if args.workers < 1:
        raise UsageError(f"--workers {args.workers}", "at least 1")
    if args.crop_size < 0:
        raise UsageError(f"--crop-size {args.crop_size}", "a side in pixels, or 0 for crops as they are cut")
    if args.sound_only:
        return _prepare_sound(args, console)
    return prepare_layout(args, console, read_layout(args))


def read_layout(args: argparse.Namespace) -> Layout:
    """The videos that were asked for, with their people; DataError or UsageError for what cannot be used."""
    layout = layouts.with_unique_names(_layout(args))
    if args.person:
        layout = people.name_people(layout, people.person_pattern(args.person))
    return layout


def prepare_layout(args: argparse.Namespace, console: Console, layout: Layout) -> int:
    """Divide and cut videos that `read_layout` found."""
    if layout.folds == 0:
        layout = people.divide(layout, args.folds, args.val_share, args.seed)
    else:
        people.check_sides(layout)
    options = CropOptions(args.format, args.crop_size, args.centre_fallback)
    candidates = [video for video in layout.videos if video.path is not None and not args.overwrite]
    done = {video.name: finished(args.output, video, options) for video in candidates}
    outcomes = {name: outcome for name, outcome in done.items() if outcome}
    waiting = [video for video in layout.videos if video.name not in outcomes]
    if outcomes:
        say(console, f"{len(outcomes)} of {len(layout.videos)} videos are done already")
    _make_folder(args.output)
    work = functools.partial(prepare_video, output=args.output, options=options)
    crash = "its process died: a defect of the decoder, or memory used up"
    results = run_all(
        work, waiting, min(args.workers, len(waiting) or 1), lambda v: Outcome.failed(v.name, CRASHED, crash, options)
    )
    with _bar(console, "preparing", len(layout.videos), len(outcomes)) as advance:
        for video, outcome in results:
            outcomes[video.name] = outcome
            advance(sum(outcome.failure is not None for outcome in outcomes.values()))
    return _conclude(args, layout, outcomes, console)


def _prepare_sound(args: argparse.Namespace, console: Console) -> int:
    """`--sound-only`: a flat folder of wavs, like DFEW's `raw_wav`; wavs that are there are not made again."""
    if args.videos is None or args.classes or args.csv or args.dataset or args.person:
        raise UsageError("--sound-only", "--videos DIR and --output DIR alone", "see mma-train prepare --help")
    files = {path.stem: path for path in videos_in(args.videos)}
    if not files:
        raise DataError(f"no videos in {args.videos}", "files such as 00001.mp4", "check --videos")
    _make_folder(args.output)
    jobs = [(path, args.output / f"{name}.wav") for name, path in files.items()]
    waiting = [job for job in jobs if args.overwrite or not job[1].exists()]
    failures = []
    results = run_all(extract_sound, waiting, min(args.workers, len(waiting) or 1), lambda job: CRASHED)
    with _bar(console, "extracting", len(jobs), len(jobs) - len(waiting)) as advance:
        for (path, _), failure in results:
            if failure:
                failures.append((failure, path.stem, str(path), "yes", ""))
            advance(len(failures))
    _write_failures(args.output, failures)
    for failure, name, *_ in failures[:MAX_SHOWN]:
        say(console, f"{name}: {failure}")
    summary = f"{len(jobs) - len(failures)} wavs of {len(jobs)} videos in {args.output}"
    summary += f"; {len(failures)} failed: see {args.output / FAILURES}" if failures else ""
    if len(failures) == len(jobs) or (failures and args.strict):
        raise DataError(summary, "no failures (--strict)" if args.strict else "at least one video with sound")
    say(console, summary)
    return 0


@contextmanager
def _bar(console: Console, title: str, total: int, done: int) -> Iterator[Callable[[int], None]]:
    """A bar of which `done` of `total` are over; the function moves it on by one and shows how many failed so far."""
    with progress(console, TextColumn("{task.fields[failed]}"), TimeRemainingColumn()) as bars:
        bar = bars.add_task(title, total=total, completed=done, failed="")
        yield lambda failed: bars.update(bar, advance=1, failed=f"{failed} failed" if failed else "")


def _layout(args: argparse.Namespace) -> Layout:
    given = [name for name in ("classes", "csv", "dataset") if getattr(args, name) is not None]
    if len(given) != 1:
        said = " and ".join(f"--{name}" for name in given) or "no videos"
        raise UsageError(said, "one of --classes DIR, --csv FILE and --dataset NAME", "see mma-train prepare --help")
    labels = tuple(name.strip() for name in args.labels.split(",")) if args.labels else None
    if labels and (len(set(labels)) < len(labels) or not all(labels)):
        raise UsageError(f"--labels {args.labels}", "different names, separated by commas")
    if args.classes:
        return layouts.class_folders(args.classes, labels)
    if args.csv:
        layout = layouts.csv_table(args.csv, args.videos, labels)
        if args.person and people.people_of(layout.videos):
            raise UsageError(f"--person with {args.csv}, which has a column person", "one of them")
        return layout
    if labels or args.person:
        option = "--labels" if labels else "--person"
        raise UsageError(f"{option} with --dataset {args.dataset}", "the data set's own", f"leave {option} out")
    if args.videos is None or args.data is None:
        raise UsageError(f"--dataset {args.dataset} without --data and --videos", "where the lists and the videos lie")
    for option in ("data", "videos"):
        if not getattr(args, option).is_dir():
            raise DataError(f"--{option}: {getattr(args, option)} is not a folder", "a folder")
    return layouts.annotated(PROTOCOLS[args.dataset], args.data, args.videos)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / DESCRIPTION).unlink(missing_ok=True)  # until the data set is complete again
    except OSError as error:
        raise OutputError(f"{output} cannot be written ({error})", hint="choose another --output") from error


def _conclude(args: argparse.Namespace, layout: Layout, outcomes: dict[str, Outcome], console: Console) -> int:
    """Write lists, failures and description; print the result."""
    usable = [video for video in layout.videos if outcomes[video.name].failure is None]
    failures = [("entry that cannot be used", name, "", "yes", text) for name, text in layout.complaints]
    for video in layout.videos:
        outcome = outcomes[video.name]
        if problem := outcome.failure or outcome.note:
            left_out = "yes" if outcome.failure else "no"
            failures.append((problem[0], video.name, str(video.path or ""), left_out, problem[1]))
    try:
        absent = _write_lists(args.output, layout, usable, outcomes)
        _write_failures(args.output, failures)
        if usable:
            _write_description(args, layout, usable)
        if (args.output / WORK).is_dir():
            (args.output / WORK).rmdir()
    except OSError as error:
        raise OutputError(f"{args.output} cannot be written ({error})", hint="free disk space, then repeat") from error
    for kind, name, _, left_out, text in failures[:MAX_SHOWN]:
        say(console, f"{kind}: {name}: {text}{'' if left_out == 'yes' else ' (kept, heard as silence)'}")
    if len(failures) > MAX_SHOWN:
        say(console, f"and {len(failures) - MAX_SHOWN} more")
    for text in [*absent, *_people_lines(args, layout, usable)]:
        say(console, text)
    summary = f"{len(usable)} clips of {len(layout.videos)} videos in {args.output}"
    if failures:
        summary += f"; {counts(kind for kind, *_ in failures)}: see {args.output / FAILURES}"
    if not usable:
        raise DataError(summary, "at least one usable video")
    if args.strict and any(left_out == "yes" for *_, left_out, _ in failures):
        raise DataError(summary, "no failures (--strict)", "repair the videos and repeat the command")
    say(console, summary)
    return 0


def _write_failures(output: Path, failures: Sequence[tuple[str, ...]]) -> None:
    with (output / FAILURES).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("kind", "clip", "video", "left_out", "problem"))
        writer.writerows(failures)


def _write_lists(output: Path, layout: Layout, usable: list[Video], outcomes: dict[str, Outcome]) -> list[str]:
    """One list per fold and split; returns lines for the classes that all of them lack, and that one of them does."""
    never = replace(layout, videos=tuple(usable)).absent
    lacking = [f"no clip of {', '.join(never)} in any list"] if never else []
    for fold, split in product(range(1, layout.folds + 1), (TRAIN, TEST)):
        chosen = [video for video in usable if video.split(fold) == split]
        path = prepared_list(output, fold, split)
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{FACES}/{v.name} {outcomes[v.name].frames} {v.label}\n" for v in chosen))
        present = {video.label for video in chosen}
        missing = [name for label, name in enumerate(layout.labels) if label not in present and name not in never]
        if missing:
            lacking.append(f"{path.name} has no clip of {', '.join(missing)}")
    return lacking


def _people_lines(args: argparse.Namespace, layout: Layout, usable: list[Video]) -> list[str]:
    """Who is on which side; nothing for data sets whose makers settled that."""
    if args.dataset or not usable:
        return []
    found = [people.found_line(usable)] if people.people_of(usable) else []
    notes = [f"warning: {text}" for text in people.warnings(usable)]
    return [*found, *people.side_lines(usable, layout.folds), *notes]


def _write_description(args: argparse.Namespace, layout: Layout, usable: list[Video]) -> None:
    description = {
        "schema": SCHEMA,
        "labels": layout.labels,
        "folds": layout.folds,
        "clips": len(usable),
        "people": {video.name: video.person for video in usable if video.person},
        "made_of": str(args.classes or args.csv or args.dataset),
        "format": args.format,
        "crop_size": args.crop_size,
        "centre_fallback": args.centre_fallback,
    }
    with replaced(args.output / DESCRIPTION) as aside:
        aside.write_text(to_json(description))
