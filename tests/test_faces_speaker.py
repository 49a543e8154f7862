"""Of several faces the one whose mouth moves with the voice has the sound; with one face nothing changes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mma_edge.audio.logmel import NUM_MEL_BINS, pad_mel
from mma_edge.clip import Crop, SlidingClips
from mma_edge.faces.motion import MotionMeter
from mma_edge.faces.speaker import LEAST, MARGIN, Motion, speaker_of, speaking_shares
from mma_edge.types import AudioChunk, Clip, Face

RATE_HZ = 16_000
FPS = 25


def syllables(seconds: float, seed: int, step_s: float = 0.01) -> np.ndarray:
    """How loud a made voice is, 0 to 1, on a grid: syllables of 0.15 to 0.3 s with pauses between."""
    rng, parts = np.random.default_rng(seed), []
    while sum(map(len, parts)) < seconds / step_s:
        parts += [np.hanning(round(rng.uniform(0.15, 0.3) / step_s)), np.zeros(round(rng.uniform(0.02, 0.3) / step_s))]
    return np.concatenate(parts)[: round(seconds / step_s)]


def mel_of(loudness: np.ndarray, seed: int = 0) -> np.ndarray:
    """A log-mel (512, 128) whose level follows the loudness: 40 dB between pauses and syllables."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (len(loudness), NUM_MEL_BINS))
    return pad_mel((-12 + 9 * loudness[:, None] + noise).astype(np.float32))


def moves_of(loudness: np.ndarray, lag_s: float = 0.0, fps: float = FPS, head: float = 0.0, seed: int = 0) -> list:
    """A mouth that moves with a voice, `lag_s` before it, on a head whose own motion is up to `head`."""
    rng = np.random.default_rng(seed + 100)
    times_s = np.arange(1 / fps, len(loudness) * 0.01, 1 / fps)
    opening = np.interp(times_s + lag_s, 0.01 * np.arange(len(loudness)), loudness)
    shaking = head * rng.random(len(times_s))
    mouth, eyes = 1 + 6 * opening + shaking + rng.random(len(times_s)), 1 + shaking + rng.random(len(times_s))
    return [(float(t), Motion(float(m), float(e))) for t, m, e in zip(times_s, mouth, eyes, strict=True)]


def still(seconds: float, seed: int = 0) -> list:
    return moves_of(np.zeros(round(100 * seconds)), seed=seed)


@pytest.mark.parametrize("lag_s", [-0.08, 0.0, 0.12])
@pytest.mark.parametrize("head", [0.0, 3.0])
def test_the_mouth_that_moves_with_the_voice_wins(lag_s: float, head: float) -> None:
    for seed in range(10):
        voice, other = syllables(4.0, seed), syllables(4.0, 1000 + seed)
        faces = {3: moves_of(other, seed=seed), 5: moves_of(voice, lag_s, head=head, seed=seed), 8: still(4.0, seed)}
        shares = speaking_shares(faces, mel_of(voice), 0.0)
        assert all(0 <= share <= 1 for share in shares.values())
        assert speaker_of(shares) == 5


def test_nobody_wins_where_the_voice_is_somebody_elses() -> None:
    voice = syllables(4.0, 0)
    for seed in range(10):
        shares = speaking_shares({1: still(4.0, seed), 2: still(4.0, 50 + seed)}, mel_of(voice), 0.0)
        assert speaker_of(shares) is None


def test_two_mouths_that_move_alike_have_no_winner() -> None:
    voice = syllables(4.0, 0)
    assert speaker_of(speaking_shares({1: moves_of(voice), 2: moves_of(voice, seed=1)}, mel_of(voice), 0.0)) is None


def test_times_count_from_the_windows_beginning() -> None:
    voice = syllables(4.0, 0)
    later = [(time_s + 100, motion) for time_s, motion in moves_of(voice)]
    (now,), (then,) = (
        speaking_shares({1: moves}, mel_of(voice), start_s).values()
        for moves, start_s in ((moves_of(voice), 0.0), (later, 100.0))
    )
    assert now == pytest.approx(then) and now > LEAST


@pytest.mark.parametrize(
    "moves",
    [[], moves_of(syllables(1.2, 0)), moves_of(syllables(4.0, 0), fps=5), moves_of(syllables(4.0, 0))[-20:]],
    ids=["none", "too short", "too seldom", "just arrived"],
)
def test_a_face_that_was_seen_too_little_has_no_share(moves: list) -> None:
    voice = syllables(4.0, 0)
    shares = speaking_shares({1: moves, 2: moves_of(voice)}, mel_of(voice), 0.0)
    assert shares[1] is None and shares[2] > LEAST
    assert speaker_of(shares) is None, "nobody to compare it with"


@pytest.mark.parametrize("mel", [np.zeros((512, 128), np.float32), mel_of(syllables(1.0, 0))], ids=["none", "short"])
def test_too_little_sound_gives_no_share(mel: np.ndarray) -> None:
    assert speaking_shares({1: still(4.0), 2: still(4.0)}, mel, 0.0) == {1: None, 2: None}


def test_the_winner_is_clear_by_the_margin_and_by_itself() -> None:
    assert speaker_of({1: LEAST, 2: LEAST - MARGIN - 0.01}) == 1
    assert speaker_of({1: 0.9, 2: 0.91 - MARGIN}) is None
    assert speaker_of({1: LEAST - 0.01, 2: 0.0}) is None
    assert speaker_of({1: None, 2: 0.8, 3: 0.1}) == 2
    assert speaker_of({1: 0.9}) is None is speaker_of({})


def clips_of(*faces: list, seconds: float = 4.0, late_s: float = 0.0) -> list[Clip]:
    """The clips of the last window, of tracks 1, 2, ... with these motions, under a noise with syllables.

    The first `late_s` of the sound were not recorded.
    """
    cut = SlidingClips(4.0, 0.5)
    loudness = np.repeat(syllables(seconds, 0), RATE_HZ // 100)
    wave = ((0.003 + 0.3 * loudness) * np.random.default_rng(0).standard_normal(len(loudness))).astype(np.float32)
    events = [
        AudioChunk(wave[None, at : at + 1600], RATE_HZ, at / RATE_HZ, 1.0)
        for at in range(round(late_s * RATE_HZ), len(wave), 1600)
    ]
    frames: dict[float, list[Crop]] = {}
    for track, moves in enumerate(faces, 1):
        for time_s, motion in moves:
            crop = Crop(track, (0, 0, 9, 9), np.zeros((8, 8, 3), np.uint8), time_s, 1.0, motion)
            frames.setdefault(time_s, []).append(crop)
    for time_s, what in sorted([(e.time_s, e) for e in events] + [*frames.items()], key=lambda pair: pair[0]):
        cut.due(time_s)
        cut.add_audio(what) if isinstance(what, AudioChunk) else cut.add_crops(what, time_s)
    return cut.finish()


def test_the_speaker_has_the_sound_and_the_others_are_judged_by_their_faces() -> None:
    silent, speaker = clips_of(still(4.0), moves_of(syllables(4.0, 0)))
    assert (silent.mel is None, speaker.mel is None) == (True, False)
    assert speaker.speaking > silent.speaking + MARGIN


def test_a_microphone_that_begins_late_is_compared_at_its_own_time() -> None:
    voice = syllables(4.0, 0)
    in_time, late = (
        {clip.track_id: clip.speaking for clip in clips_of(still(4.0), moves_of(voice), late_s=late_s)}
        for late_s in (0.0, 1.0)
    )
    assert late[2] > late[1] + MARGIN and late[2] == pytest.approx(in_time[2], abs=0.15)


def test_all_have_the_sound_where_nobody_clearly_speaks() -> None:
    voice = syllables(4.0, 0)
    for faces in ((moves_of(voice), moves_of(voice, seed=1)), (still(4.0), still(4.0, 1))):
        clips = clips_of(*faces)
        assert all(clip.mel is not None and clip.speaking is not None for clip in clips)


def test_one_face_has_the_sound_and_no_share() -> None:
    (clip,) = clips_of(still(4.0))
    assert clip.mel is not None and clip.speaking is None


def test_motion_is_measured_where_there_are_several_faces_and_of_mouth_and_eyes_apart() -> None:
    meter, picture = MotionMeter(), np.full((240, 480, 3), 100, np.uint8)
    left, right = Face(1, (50, 50, 130, 150), 1.0), Face(2, (300, 50, 380, 150), 1.0)
    assert meter(picture, [left]) == {} == meter(picture, [left, right]), "of one face, and of new ones, none"
    talking = picture.copy()
    talking[115:150, 70:110] = 160  # the left one's mouth
    found = meter(talking, [left, right])
    assert found[2] == Motion(0.0, 0.0) and found[1].mouth > 20 > 1 > found[1].eyes
    assert set(meter(picture, [left])) == set(), "the other one has left"
    assert set(meter(picture, [left, right])) == set()


def test_a_head_that_shifts_without_talking_hardly_moves() -> None:
    rng, meter = np.random.default_rng(0), MotionMeter()
    texture = cv2.GaussianBlur(rng.integers(0, 256, (240, 480, 3), np.uint8), (0, 0), 4)
    boxes = [Face(1, (50, 50, 130, 150), 1.0), Face(2, (300, 50, 380, 150), 1.0)]
    meter(texture, boxes)
    shifted = np.roll(texture, 3, axis=1)
    found = meter(shifted, boxes)
    assert max(found[1]) < 0.5 * np.abs(shifted.astype(int) - texture).mean()


def test_a_face_half_outside_the_picture_is_measured_and_one_outside_is_not() -> None:
    meter, picture = MotionMeter(), np.zeros((100, 200, 3), np.uint8)
    faces = [Face(1, (-40, 0, 40, 90), 1.0), Face(2, (300, 0, 380, 90), 1.0), Face(3, (90, 0, 170, 90), 1.0)]
    meter(picture, faces)
    assert set(meter(picture, faces)) == {1, 3}
