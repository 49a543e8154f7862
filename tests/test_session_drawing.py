"""What is drawn on a picture is legible at every size and in every alphabet; blurred faces are blurred."""

from __future__ import annotations

import numpy as np
import pytest

from mma_edge.session.video.blur import AFTER_S, AHEAD_S, FacesAround, blur
from mma_edge.session.video.drawing import Drawing, colours_of, rests_on, speaker_of
from mma_edge.types import Face

LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")


def grey(level: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    return np.full((size[1], size[0], 3), level, np.uint8)


def record(track: int | None = 1, label: str = "happy", **given: object) -> dict:
    shares = {name: 0.7 if name == label else 0.05 for name in LABELS}
    usual = {"track_id": track, "box": None, "start_s": 0.0, "end_s": 4.0, "label": label, "probabilities": shares,
             "modalities": ["video", "audio"], "speaking": None}  # fmt: skip
    return usual | given


def test_a_face_is_blurred_before_it_was_found_and_after_it_was_lost() -> None:
    around, face = FacesAround(), Face(1, (10.0, 10.0, 20.0, 20.0), 0.9)
    for number in range(60):
        around.add(number / 10, [face] if 20 <= number < 30 else [])
    assert around.at(2.0 - AHEAD_S - 0.15) == [] and around.at(2.0 - AHEAD_S + 0.05) == [face.box]
    assert around.at(2.9 + AFTER_S - 0.05) == [face.box] and around.at(2.9 + AFTER_S + 0.15) == []


def test_a_blurred_face_has_a_few_pixels_left_and_the_rest_of_the_picture_all() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    before = image.copy()
    blur(image, [(80.0, 80.0, 120.0, 120.0), (190.0, -50.0, 260.0, 20.0), (500.0, 0.0, 600.0, 90.0)])
    assert image[80:120, 80:120].std() < 30 < before[80:120, 80:120].std()
    assert (image[130:, :180] == before[130:, :180]).mean() > 0.9 and (image[:, :60] == before[:, :60]).all()


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1280, 720), (3840, 2160), (360, 640), (16, 16)])
def test_box_label_and_bars_are_drawn_at_every_size(width: int, height: int) -> None:
    image = grey(128, (width, height))
    box = (0.3 * width, 0.4 * height, 0.5 * width, 0.7 * height)
    Drawing(LABELS)(image, [Face(1, box, 0.9)], {1: record()})
    changed = np.abs(image.astype(int) - 128).max(axis=2) > 20
    yellow = (np.abs(image.astype(int) - colours_of(LABELS)["happy"]).max(axis=2) < 8).sum()
    assert changed.sum() > 0.02 * width * height and yellow > 0.002 * width * height
    if width > 16:
        middle = image[round(0.45 * height) : round(0.65 * height), round(0.35 * width) : round(0.45 * width)]
        assert (middle == 128).all(), "the face itself stays free"


def test_names_of_classes_may_have_any_letters() -> None:
    image, labels = grey(128, (640, 360)), ("glücklich", "весёлый", "悲しい", "\u0007")
    answer = record() | {"label": "悲しい", "probabilities": dict.fromkeys(labels, 0.25)}
    Drawing(labels)(image, [Face(1, (100.0, 100.0, 300.0, 300.0), 0.9)], {1: answer})
    assert (image != 128).any()


def test_colours_differ_and_the_usual_classes_keep_theirs() -> None:
    colours = colours_of(LABELS)
    assert len(set(colours.values())) == 7
    more = colours_of(("contempt", *LABELS, "anxiety"))
    assert {label: more[label] for label in LABELS} == colours
    assert len(set(colours_of(("bored", "awake", "asleep")).values())) == 3


def test_what_an_answer_rests_on_and_who_speaks() -> None:
    assert rests_on(record()) == "face + voice" and rests_on(record(modalities=["audio"])) == "voice"
    alone = {1: record(speaking=0.8), 2: record(2, speaking=0.2, modalities=["video"])}
    assert speaker_of(alone) == 1
    assert speaker_of({1: record(speaking=0.5), 2: record(2, speaking=0.4)}) is None, "both have the voice"
    assert speaker_of({1: record()}) is None
