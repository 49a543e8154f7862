"""Who is in the videos, and folds that have nobody on both sides.

A model that is tested on the people whom it was trained on looks better than it is for everybody else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from mma_edge.errors import DataError, UsageError
from mma_trainer.data.preparation.layouts import TEST, TRAIN, Layout, Video, check_division, split_folds

HOW = "a sub-folder per person (CLASS/PERSON/clip.mp4), a column person in the CSV, or --person REGEX"
MOST_FOLDS = 5
MAX_NAMED = 8


def person_pattern(text: str) -> re.Pattern[str]:
    """What --person means: the first group of a match in a file's name is the person; UsageError for another text."""
    example = "a regular expression whose first group is the person, e.g. '^([^-_]+)' for anna-03.mp4"
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"--person {text!r} is not a regular expression ({error})", example) from error
    if not pattern.groups:
        raise UsageError(f"--person {text!r} has no group", example, "put the person in parentheses")
    return pattern


def name_people(layout: Layout, pattern: re.Pattern[str]) -> Layout:
    """The person of every video by its file's name; DataError where one does not match."""
    videos, unmatched = [], []
    for video in layout.videos:
        file = video.path.name if video.path else video.name
        found = pattern.search(file)
        videos.append(replace(video, person=found[1] if found else None))
        unmatched += [] if found and found[1] else [file]
    if unmatched:
        what = f"--person {pattern.pattern!r} finds nobody in {len(unmatched)} of {len(videos)} file names"
        raise DataError(f"{what} (first: {unmatched[0]})", "a person in every name", "correct it, or rename the files")
    return replace(layout, videos=tuple(videos))


def people_of(videos: Iterable[Video]) -> list[str]:
    return sorted({video.person for video in videos if video.person})


def cross_validation_folds(layout: Layout) -> int:
    """A sensible number of folds: one per person up to five, or as many as each class has clips for."""
    people = len(people_of(layout.videos))
    smallest = min(Counter(video.label for video in layout.videos).values(), default=0)
    return min(people if people > 1 else max(2, smallest), MOST_FOLDS)


def divide(layout: Layout, folds: int, val_share: float, seed: int) -> Layout:
    """Folds of videos that come without: by person where at least two are known, else by `split_folds`.

    Each person is in one part, and the parts are about equally large in every class; a clip without a person is divided
    alone. Of a single fold the tested part is as near to `val_share` as whole people allow, and leaves every class
    something to train on where any part does. A function of names, people and seed alone.
    """
    check_division(folds, val_share)
    count = len(people_of(layout.videos))
    if count < 2:
        return split_folds(layout, folds, val_share, seed)
    if folds > count:
        hint = "each fold tests people that it was not trained on"
        raise UsageError(f"--folds {folds} with clips of {count} people", f"at most {count}", hint)
    parts = folds if folds > 1 else min(count, max(2, round(1 / val_share)))
    units: dict[tuple, np.ndarray] = {}  # clips that stay together: how many of each class
    for video in sorted(layout.videos, key=lambda video: video.name):
        units.setdefault(_unit(video), np.zeros(len(layout.labels), int))[video.label] += 1
    rng = np.random.default_rng(seed)
    keys = sorted(units)
    shuffled = sorted(rng.permutation(len(keys)), key=lambda index: -units[keys[index]].sum())
    held, part_of = np.zeros((parts, len(layout.labels)), int), {}
    for key in (keys[index] for index in shuffled):  # the largest first, each to where its classes are fewest
        crowd = held @ units[key]
        part_of[key] = min(range(parts), key=lambda part: (crowd[part], held[part].sum(), part))
        held[part_of[key]] += units[key]
    tests = {part: (part + 1,) for part in range(parts)}
    if folds == 1:
        order = [int(part) for part in rng.permutation(parts)]
        total = held.sum(axis=0)
        whole = [part for part in order if ((total - held[part] > 0) | (total == 0)).all()]
        tests = {part: (1,) if part == (whole or order)[0] else () for part in order}
    videos = (replace(video, tests=tests[part_of[_unit(video)]]) for video in layout.videos)
    return replace(layout, videos=tuple(videos), folds=folds)


def _unit(video: Video) -> tuple[str, str]:
    return ("person", video.person) if video.person else ("clip", video.name)


def check_sides(layout: Layout) -> None:
    """DataError where folds that came with the videos have a person on both sides."""
    for fold in range(1, layout.folds + 1):
        sides = _sides(layout.videos, fold)
        if both := sorted(set(people_of(sides[TRAIN])) & set(people_of(sides[TEST]))):
            what = f"{_some(both)} in the training and in the test clips of fold {fold}"
            raise DataError(what, "everybody on one side", "leave out the column fold, or correct it")


def side_lines(videos: Sequence[Video], folds: int) -> list[str]:
    """How many clips, of how many people, each fold has on either side."""
    lines = []
    for fold in range(1, folds + 1):
        trained, tested = (_count(side) for side in _sides(videos, fold).values())
        lines.append(f"fold {fold}: {trained} to train on, {tested} to test on")
    return lines


def warnings(videos: Sequence[Video]) -> list[str]:
    """What cannot be known about people, or what can be said about nobody else."""
    people = people_of(videos)
    nameless = [video.name for video in videos if not video.person]
    if not people:
        what = "who is in the videos is not known: the same people may be on both sides"
        return [f"{what}, and the figures would be too good. To name them: {HOW}"]
    lines = []
    if nameless:
        text = f"{len(nameless)} clips name no person (first: {nameless[0]})"
        lines.append(f"{text}: whoever is in them may be on the other side, too. To name people: {HOW}")
    if len(people) == 1 and not nameless:
        lines.append(f"all clips are of {people[0]}: nothing will be known about other people")
    return lines


def found_line(videos: Sequence[Video]) -> str:
    """Who was found, to be checked by the user."""
    people = people_of(videos)
    return f"{len(people)} {'person' if len(people) == 1 else 'people'}: {_some(people)}"


def _sides(videos: Iterable[Video], fold: int) -> dict[str, list[Video]]:
    sides: dict[str, list[Video]] = {TRAIN: [], TEST: []}
    for video in videos:
        if (split := video.split(fold)) is not None:
            sides[split].append(video)
    return sides


def _count(side: Sequence[Video]) -> str:
    people, nameless = len(people_of(side)), sum(not video.person for video in side)
    known = f"{people} {'person' if people == 1 else 'people'}"
    who = known if not nameless else f"{known} and unknown ones" if people else "unknown people"
    return f"{len(side)} clips of {who}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
