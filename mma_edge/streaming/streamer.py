"""What is kept from window to window, and which frames are new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.bundle.streaming import MODES
from mma_edge.clip import NUM_FRAMES
from mma_edge.errors import UsageError
from mma_edge.predictor import softmax
from mma_edge.streaming.graphs import Roll, Rolled, StreamingGraphs
from mma_edge.types import Clip

AUTO = "auto"
"""The best mode that a bundle offers for an engine."""
CLEAR = 0.2
"""Difference of the two largest probabilities, at temperature 1, below which the sound is computed anew. Where the two
best classes are near to each other, what was said in the last second decides between them. Default model, 265 full
windows of 16 real clips, sound of up to 1 s ago: without this rule 98.5 % keep their class, with it 100 %."""


def check_mode(mode: str, auto: bool = False) -> None:
    """UsageError unless this is one of MODES, or AUTO where `auto` says that it may be."""
    choices = (*MODES, AUTO) if auto else MODES
    if mode not in choices:
        raise UsageError(f"--streaming {mode}", f"one of {', '.join(choices)}")


@dataclass
class StreamingStats:
    """Work done: windows with a face, how many frames went through the stem and through the layers above it, and for
    how many of the windows the sound went through its encoder."""

    updates: int = 0
    stem_frames: int = 0
    layer_frames: int = 0
    sounds: int = 0


@dataclass
class _Track:
    """What is kept for one face, by the time of the frame; only for the frames of the newest window."""

    tokens: dict[float, np.ndarray] = field(default_factory=dict)
    # Rolling: the summary, and the end of the window in which it was computed.
    summaries: dict[float, tuple[np.ndarray, float]] = field(default_factory=dict)
    has_sound: bool = False
    heard: _Heard | None = None
    is_clear: bool = False  # the last answer


class _Heard:
    """The summary of a clip's sound, float32 (D,)."""

    def __init__(self, summary: np.ndarray, clip: Clip) -> None:
        self.summary, self._end_s, self._length_s = summary, clip.end_s, clip.end_s - clip.start_s

    def serves(self, clip: Clip, max_age_s: float) -> bool:
        """Whether it may stand for the sound of a later clip: one that is as long, for a window that still grows has
        little sound, of which the newest is much."""
        length_s = clip.end_s - clip.start_s
        return 0 < max_age_s >= clip.end_s - self._end_s - 1e-6 and abs(length_s - self._length_s) < 1e-3


class Streamer:
    """Logits of clips that share frames with earlier clips. Use one per source; the clips need `times_s`.

    In mode rolling a frame's summary that is older than `max_age_s`, in presentation time, is computed again, and so is
    the sound's when it is older than `sound_age_s`, when the answer is or was not clear (see `CLEAR`), or when the
    window grew. An answer may then miss the newest `sound_age_s` of the sound.
    """

    def __init__(
        self,
        graphs: StreamingGraphs,
        mode: str,
        max_age_s: float = float("inf"),
        sound_age_s: float = 0.0,
        clear: float = CLEAR,
    ) -> None:
        check_mode(mode)
        self.graphs, self.mode, self.max_age_s, self._clear = graphs, mode, max_age_s, clear
        self.sound_age_s = sound_age_s if graphs.keeps_sound else 0.0
        self.stats = StreamingStats()
        self._tracks: dict[int | None, _Track] = {}

    def __call__(self, clips: Sequence[Clip]) -> np.ndarray:
        """Logits (N, C) of clips with frames, at most one of each track; forgets what the tracks no longer need."""
        tracks = [self._tracks.setdefault(clip.track_id, _Track()) for clip in clips]
        silence = np.zeros((NUM_MEL_FRAMES, NUM_MEL_BINS), np.float32)
        mels = [silence if clip.mel is None else clip.mel for clip in clips]
        self.stats.updates += len(clips)
        if self.mode == "exact":
            self._embed(tracks, clips)
            self.stats.layer_frames += NUM_FRAMES * len(clips)
            self.stats.sounds += len(clips)
            tokens = [[track.tokens[t] for t in clip.times_s] for track, clip in zip(tracks, clips, strict=True)]
            return self.graphs.window(np.array(tokens), np.stack(mels))
        new = [self._new_frames(track, clip) for track, clip in zip(tracks, clips, strict=True)]
        due = [row for row, (track, clip) in enumerate(zip(tracks, clips, strict=True)) if not self._keeps(track, clip)]
        self._embed([tracks[row] for row in due], [clips[row] for row in due])
        rolls = [self._roll(*one, row in due) for row, one in enumerate(zip(tracks, clips, mels, new, strict=True))]
        rolled = self.graphs.roll(rolls)
        unclear = [row for row, answer in enumerate(rolled) if row not in due and not self._is_clear(answer)]
        if unclear:
            again = [replace(rolls[row], tokens=rolled[row].tokens, heard=None) for row in unclear]
            for row, answer in zip(unclear, self.graphs.roll(again), strict=True):
                rolled[row] = answer
        self.stats.sounds += len(due) + len(unclear)
        self.stats.layer_frames += sum(map(len, new)) + sum(len(new[row]) for row in unclear)
        for row, (track, clip, answer) in enumerate(zip(tracks, clips, rolled, strict=True)):
            # Copies: a row that is a view would keep the whole batch in memory.
            for time_s, summary, tokens in zip(new[row], answer.summaries, answer.tokens, strict=True):
                track.summaries[time_s] = summary.copy(), clip.end_s
                if row not in due:
                    track.tokens[time_s] = tokens.copy()
            track.tokens = {time_s: track.tokens[time_s] for time_s in clip.times_s}
            is_heard = row in due or row in unclear
            track.is_clear = not is_heard or self._is_clear(answer)  # of the others it was asked above
            if is_heard and answer.heard is not None:
                track.heard = _Heard(answer.heard.copy(), clip)
        self.stats.stem_frames += sum(len(times_s) for row, times_s in enumerate(new) if row not in due)
        return np.stack([answer.logits for answer in rolled])

    def keep_only(self, track_ids: set[int | None]) -> None:
        """Forget every other track."""
        self._tracks = {number: track for number, track in self._tracks.items() if number in track_ids}

    def _embed(self, tracks: Sequence[_Track], clips: Sequence[Clip]) -> None:
        """Put each clip's frames, and no others, into its track's `tokens`; new frames of all of them in one call."""
        places = [{time_s: index for index, time_s in enumerate(clip.times_s)} for clip in clips]  # of each frame, once
        unseen = [[t for t in place if t not in track.tokens] for track, place in zip(tracks, places, strict=True)]
        frames = [clip.frames[place[t]] for clip, place, new in zip(clips, places, unseen, strict=True) for t in new]
        fresh = iter(self.graphs.stem(np.stack(frames)) if frames else ())
        self.stats.stem_frames += len(frames)
        for track, place, new in zip(tracks, places, unseen, strict=True):
            track.tokens.update((t, next(fresh).copy()) for t in new)
            track.tokens = {t: track.tokens[t] for t in place}

    def _new_frames(self, track: _Track, clip: Clip) -> list[float]:
        """The times of the frames to compute; leaves the summaries in use in the track."""
        times_s, has_sound = list(dict.fromkeys(clip.times_s)), clip.mel is not None
        if has_sound != track.has_sound:  # older context is only similar while the sound neither begins nor ends
            track.summaries, track.has_sound, track.heard = {}, has_sound, None
        oldest_s = clip.end_s - self.max_age_s - 1e-6
        kept = {t: track.summaries[t] for t in times_s if t in track.summaries and track.summaries[t][1] >= oldest_s}
        track.summaries = kept
        # The graph needs a new frame; where there is none (a slow camera), the newest one is computed again.
        return [t for t in times_s if t not in kept] or times_s[-1:]

    def _keeps(self, track: _Track, clip: Clip) -> bool:
        """Whether the sound that was heard last may stand for that of the clip."""
        return track.heard is not None and track.is_clear and track.heard.serves(clip, self.sound_age_s)

    def _roll(self, track: _Track, clip: Clip, mel: np.ndarray, new: list[float], is_due: bool) -> Roll:
        """The call for one face."""
        old = [t for t in dict.fromkeys(clip.times_s) if t not in new]
        past = np.zeros((NUM_FRAMES, self.graphs.summary_width), np.float32)
        for row, time_s in enumerate(old):
            past[row] = track.summaries[time_s][0]
        row_of = {time_s: row for row, time_s in enumerate(new + old)}
        order = np.array([row_of[time_s] for time_s in clip.times_s], np.int64)
        if is_due:
            return Roll(np.stack([track.tokens[t] for t in new]), past, order, mel)
        frames = clip.frames[[clip.times_s.index(time_s) for time_s in new]]
        return Roll(None, past, order, mel, track.heard.summary, frames)

    def _is_clear(self, answer: Rolled) -> bool:
        """Whether one of the classes is so much more probable than the next that older sound may do."""
        second, best = np.sort(softmax(answer.logits[None])[0])[-2:]
        return bool(best - second >= self._clear)
