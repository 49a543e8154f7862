"""What a video shows of the answers: a box around each face, its number, label and confidence, what that rests on, who
speaks, and a bar for each class. Colours differ for the colour-blind as well, and every one stands beside its word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw

from mma_edge.pipeline import CENTRE_TRACK
from mma_edge.session.video.colours import LINE_CLASSES, LINES
from mma_edge.session.video.lettering import Colour, Patch, width_of, write
from mma_edge.types import UNCERTAIN, Box, Face

Record = Mapping[str, Any]
"""An answer as `Emotion.to_dict` gives it and as records.jsonl holds it."""
_COLOURS: list[Colour] = [tuple(bytes.fromhex(colour[1:])) for colour in LINES["picture"]]
_USUAL = dict(zip(LINE_CLASSES, _COLOURS, strict=False))
_GREY = _USUAL["neutral"]
_OTHERS = [colour for colour in reversed(_COLOURS) if colour != _GREY]
_WHITE, _SOFT, _BLACK = (255, 255, 255), (195, 195, 195), (0, 0, 0)
_PANEL = (12, 12, 12, 200)
"""Background of text and bars: dark enough for white letters on a white wall."""
_LETTERS, _LEAST_LETTERS = 1 / 34, 11
"""Height of the letters: a share of the picture's shorter side, and the fewest pixels that can be read."""
_BAR_LETTERS = 5.0
"""Length of a bar for 100 %, in heights of a letter."""


class Drawing:
    """Draws on the pictures of one video. Remembers where each face's bars were, so that they do not jump."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._colours = colours_of(tuple(labels))
        self._places: dict[int | None, int] = {}

    def __call__(self, image: np.ndarray, faces: Sequence[Face], answers: Mapping[int | None, Record]) -> None:
        """Draw on a picture, uint8 (H, W, 3) RGB, which is changed.

        Args:
            faces: where they are in it. answers: the current ones, by track number (None: of the voice alone).
        """
        height, width = image.shape[:2]
        letters = max(_LEAST_LETTERS, round(_LETTERS * min(height, width)))
        boxes = {face.track_id: _inside(face.box, width, height) for face in faces}
        centre = answers.get(CENTRE_TRACK)
        if centre is not None and centre["box"] is not None:
            boxes[CENTRE_TRACK] = _inside(centre["box"], width, height)
        speaker = speaker_of(answers)
        tags = {}
        for track, box in boxes.items():
            answer = answers.get(track)
            tag = _tag(*self._tag_texts(track, answer, track == speaker), self._colour(answer), letters)
            self._frame(image, box, self._colour(answer), max(2, letters // (4 if track == speaker else 7)))
            x = max(0, min(box[0], width - tag.size[0]))
            above = box[1] - tag.size[1]
            tags[track] = (tag, x, above if above >= 0 else box[1])
        taken = [*boxes.values(), *(_area(*tag) for tag in tags.values())]
        if None in answers:
            tag = _tag(*self._tag_texts(None, answers[None], False), self._colour(answers[None]), letters)
            tags[None] = (tag, letters // 2, letters // 2)
            taken.append(_area(*tags[None]))
        for tag, x, y in tags.values():
            tag.put(image, x, y)
        self._places = {track: place for track, place in self._places.items() if track in tags}
        for track in tags:
            if track in answers:
                # Of several, the bars may stand away from their face.
                bars = self._bars(f"face {track}" if len(tags) > 1 and track else "", answers[track], letters)
                place = self._place(track, boxes.get(track), _area(*tags[track]), bars.size, taken, (width, height))
                if place is not None:
                    bars.put(image, *place)
                    taken.append(_area(bars, *place))

    def _colour(self, answer: Record | None) -> Colour:
        return _WHITE if answer is None else self._colours.get(answer["label"], _GREY)

    def _tag_texts(self, track: int | None, answer: Record | None, speaks: bool) -> tuple[str, str]:
        """The large and the small line of a tag."""
        who = {None: "voice", CENTRE_TRACK: "centre"}.get(track, str(track))
        if answer is None:
            return who, ""
        best, share = max(answer["probabilities"].items(), key=lambda item: item[1])
        said = f"{who}  {answer['label']} {share:.0%}"
        if answer["label"] == UNCERTAIN:
            said = f"{who}  {UNCERTAIN} ({best} {share:.0%})"
        if track is None:
            return said, ""
        return said, rests_on(answer) + (", speaks" if speaks else "")

    def _bars(self, title: str, answer: Record, letters: int) -> Patch:
        # Whole percents, so that pictures of the same answer are made once.
        rows = tuple((name, round(100 * share)) for name, share in answer["probabilities"].items())
        return _bars(title, rows, tuple(self._colours.get(name, _GREY) for name, _ in rows), answer["label"], letters)

    def _frame(self, image: np.ndarray, box: tuple[int, int, int, int], colour: Colour, line: int) -> None:
        """A line that is seen on every background: it has a dark border."""
        start, end = (box[0], box[1]), (box[2] - 1, box[3] - 1)
        cv2.rectangle(image, start, end, _BLACK, line + 2)
        cv2.rectangle(image, start, end, colour, line)

    def _place(
        self, track: int | None, box: tuple | None, tag: tuple, size: tuple, taken: list[tuple], picture: tuple
    ) -> tuple[int, int] | None:
        """Where the bars go: beside the face if there is room, where they were before if they still can."""
        (width, height), (right, bottom) = size, (picture[0] - size[0], picture[1] - size[1])
        gap = max(2, height // 24)
        if box is None:
            places = [(tag[0], tag[3])]
        else:
            y, x = max(0, min(box[1], bottom)), max(0, min(box[0], right))
            places = [(box[2] + gap, y), (box[0] - gap - width, y), (x, box[3] + gap), (x, tag[1] - gap - height)]
            # A face that fills the picture: a corner, even over its own box.
            places += [(gap, bottom - gap), (right - gap, bottom - gap)]
        first = self._places.get(track, 0)
        for number in sorted(range(len(places)), key=lambda number: (number != first or number > 3, number)):
            x, y = places[number]
            area = (x, y, x + width, y + height)
            others = [each for each in taken if number < 4 or each != box]
            inside = x >= 0 and y >= 0 and x <= right and y <= bottom
            if inside and not any(_overlap(area, each) for each in others):
                self._places[track] = number
                return x, y
        return None


def rests_on(answer: Record) -> str:
    """What the model had: face, voice, or both."""
    given = answer["modalities"] or ()
    names = [name for name, modality in (("face", "video"), ("voice", "audio")) if modality in given]
    return " + ".join(names) or "unknown"


def speaker_of(answers: Mapping[int | None, Record]) -> int | None:
    """Of several faces the one that has the voice alone, see `mma_edge.faces.speaker`; None where that is not clear."""
    judged = {track: answer for track, answer in answers.items() if answer.get("speaking") is not None}
    heard = [track for track, answer in judged.items() if "audio" in (answer["modalities"] or ())]
    return heard[0] if len(judged) > 1 and len(heard) == 1 else None


@lru_cache(maxsize=16)
def colours_of(labels: tuple[str, ...]) -> dict[str, Colour]:
    """A colour for each class; the usual ones always have the same."""
    colours = {label: _USUAL[label] for label in labels if label in _USUAL}
    others = [label for label in labels if label not in _USUAL]
    free = [colour for colour in _OTHERS if colour not in colours.values()] or _OTHERS
    return colours | {label: free[number % len(free)] for number, label in enumerate(others)}


@lru_cache(maxsize=64)
def _tag(text: str, small: str, colour: Colour, letters: int) -> Patch:
    """The label on its colour, and below it what it rests on."""
    pad, little = max(2, letters // 4), max(_LEAST_LETTERS, round(0.8 * letters))
    first, second = round(1.5 * letters), round(1.4 * little) if small else 0
    width = max(width_of(text, letters), width_of(small, little)) + 2 * pad
    image = Image.new("RGBA", (width, first + second), _PANEL)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, width, first - 1), fill=(*colour, 255))
    red, green, blue = colour
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 120
    write(draw, pad, first / 2, text, letters, _BLACK if bright else _WHITE)
    if small:
        write(draw, pad, first + second / 2, small, little, _WHITE)
    return Patch.of(image)


@lru_cache(maxsize=12)
def _bars(title: str, rows: tuple[tuple[str, int], ...], colours: tuple[Colour, ...], best: str, letters: int) -> Patch:
    """Below the title, if there is one, name, bar and percent of each class."""
    size = max(_LEAST_LETTERS, round(0.85 * letters))
    row, pad, bar = round(1.45 * size), max(2, size // 3), round(_BAR_LETTERS * size)
    names, figures = max(width_of(name, size) for name, _ in rows), width_of("100%", size)
    first = row if title else 0
    image = Image.new("RGBA", (4 * pad + names + bar + figures, 2 * pad + first + row * len(rows)), _PANEL)
    draw = ImageDraw.Draw(image)
    write(draw, pad, pad + row / 2, title, size, _WHITE)
    for number, ((name, percent), colour) in enumerate(zip(rows, colours, strict=True)):
        y, x = pad + first + row * (number + 0.5), 2 * pad + names
        ink = _WHITE if name == best else _SOFT
        write(draw, pad, y, name, size, ink)
        draw.rectangle((x, y - 0.28 * size, x + bar, y + 0.28 * size), fill=(84, 84, 84, 255))
        if percent:
            draw.rectangle((x, y - 0.28 * size, x + bar * percent / 100, y + 0.28 * size), fill=(*colour, 255))
        text = f"{percent}%"
        write(draw, x + bar + pad + figures - width_of(text, size), y, text, size, ink)
    return Patch.of(image)


def _inside(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """The box in whole pixels, cut to the picture."""
    x0, y0, x1, y1 = (round(value) for value in box)
    return max(0, min(x0, width - 1)), max(0, min(y0, height - 1)), max(1, min(x1, width)), max(1, min(y1, height))


def _area(patch: Patch, x: int, y: int) -> tuple[int, int, int, int]:
    return x, y, x + patch.size[0], y + patch.size[1]


def _overlap(a: tuple, b: tuple) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
