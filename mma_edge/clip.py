"""Cuts a source into clips: tracked face crops and the log-mel of the same time span."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mma_edge.audio.logmel import FRAME_LENGTH_MS, FRAME_SHIFT_MS, NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.audio.ring import ClipSound, VoiceGate
from mma_edge.errors import UsageError
from mma_edge.faces.speaker import Motion, speaker_of, speaking_shares
from mma_edge.types import AudioChunk, Box, Clip

NUM_FRAMES = 16
LONGEST_SOUND_S = NUM_MEL_FRAMES * FRAME_SHIFT_MS / 1000
"""Span of the log-mel, 5.12 s; with rates whose 10 ms are not a whole number of samples it fills a few rows less."""
STALLED_S = 1.0
"""Video older than this, and than a hop, no longer shows who is there; slow cameras give a frame per second."""
SPOOL_BYTES = 32 << 20
"""Crops of a whole file are kept in memory up to this size, above it in a temporary file."""


def frame_indices(num_frames: int, count: int = NUM_FRAMES) -> np.ndarray:
    """Which frames of a clip the model sees at test time: the middle of each of `count` equal segments.

    With n > count frames: int(tick / 2 + tick * i), tick = n / count; otherwise every frame once and the last one
    repeated (the authors' loader, test mode). int64 (count,), ascending; UsageError where n is not at least 1.
    """
    if num_frames < 1:
        raise UsageError(f"a clip of {num_frames} frames", "at least one frame")
    if num_frames > count:
        tick = num_frames / count
        return (tick / 2 + tick * np.arange(count)).astype(np.int64)
    return np.minimum(np.arange(count), num_frames - 1)


def input_shapes(image_size: int) -> dict[str, tuple[int, ...]]:
    """Shape of one clip in each of the graph's inputs: the contract between export and run time."""
    return {"frames": (NUM_FRAMES, image_size, image_size, 3), "mel": (NUM_MEL_FRAMES, NUM_MEL_BINS)}


def batch_of(clips: Sequence[Clip], image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 (N, 16, S, S, 3) and mel float32 (N, 512, 128) of all clips; a missing modality is zeros."""
    shapes = input_shapes(image_size)
    frames = np.zeros((len(clips), *shapes["frames"]), np.uint8)
    mel = np.zeros((len(clips), *shapes["mel"]), np.float32)
    for row, clip in enumerate(clips):
        if clip.frames is not None:
            frames[row] = clip.frames
        if clip.mel is not None:
            mel[row] = clip.mel
    return frames, mel


def evenly(total: int, count: int) -> np.ndarray:
    """Indices of at most `count` of `total` items, evenly spread from the first to the last."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).astype(int)) if total else np.zeros(0, int)


@dataclass(frozen=True, eq=False, slots=True)
class Crop:
    """One face of one frame, resized: image uint8 (S, S, 3) RGB."""

    track_id: int
    box: Box
    image: np.ndarray
    time_s: float
    arrival_s: float
    motion: Motion | None = None  # since the frame before; None where it is the only face, or new


class SlidingClips:
    """Every `hop_s` one clip of the last `window_s` for each face track, or for the voice alone.

    The hops count from the first datum. A clip begins with the window or with the source, whichever is later, so the
    first answers come before a whole window is full. A track that is in none of the last hop's frames is gone and gets
    no clip, and neither does a track whose video stalled (STALLED_S); sound without any track gets one clip with track
    None. With a `gate`, a window in whose sound it hears no voice has no sound. Of several faces the one that clearly
    speaks (`mma_edge.faces.speaker`) has the sound alone; where nobody does, all have it.
    """

    _margin_s = 0.0
    """How much older than the window a crop may be before it is forgotten."""

    def __init__(self, window_s: float, hop_s: float, gate: VoiceGate | None = None) -> None:
        if not 0 < hop_s <= window_s:
            raise UsageError(f"hop of {hop_s:g} s and window of {window_s:g} s", "0 < hop <= window")
        if window_s > LONGEST_SOUND_S:
            expected = f"at most {LONGEST_SOUND_S} s, the span of the log-mel"
            raise UsageError(f"window of {window_s:g} s", expected, "use --whole for long clips")
        self.window_s, self.hop_s = window_s, hop_s
        self._crops: deque[Crop] = deque()
        self._sound = ClipSound(window_s + 2 * hop_s, gate)
        self._first_s: float | None = None
        self._hops_done = 0
        self._last_s = 0.0  # newest datum
        self._frame_s = 0.0  # newest frame
        self._covered_s = 0.0  # end of the last window handed out

    def due(self, now_s: float) -> list[Clip]:
        """Clips whose windows end at or before `now_s`; call it with each datum's time before adding the datum."""
        if self._first_s is None:
            self._first_s = self._covered_s = now_s
        clips = []
        while (end_s := self._first_s + (self._hops_done + 1) * self.hop_s) <= now_s:
            clips += self._window(end_s)
            self._hops_done += 1
            if end_s - self.window_s > self._last_s:
                # The device stalled: the windows from here until now are empty, so skip their hops.
                self._hops_done = max(self._hops_done, int((now_s - self._first_s) / self.hop_s) - 1)
        return clips

    def pass_gap(self, now_s: float) -> None:
        """For live sources, before `due`: where nothing came for a while, the windows that fell due meanwhile are not
        handed out. They would be answered late, and all that is in them is old."""
        if self._first_s is not None and now_s - self._last_s > STALLED_S + self.hop_s:
            self._hops_done = max(self._hops_done, int((now_s - self._first_s) / self.hop_s))

    def add_crops(self, crops: Iterable[Crop], time_s: float) -> None:
        """Add the faces of the frame at `time_s`; a frame without a face has no crops."""
        self._crops.extend(crops)
        self._frame_s = time_s
        self._last_s = max(self._last_s, time_s)

    def add_audio(self, chunk: AudioChunk) -> None:
        self._sound.accept(chunk)
        self._last_s = max(self._last_s, chunk.end_s)

    def finish(self) -> list[Clip]:
        """The clips at the source's end: the hops that are left, then the rest if it is half a hop or everything."""
        if self._first_s is None:
            return []
        clips = self.due(self._last_s)
        rest_s = self._last_s - self._covered_s
        if rest_s >= self.hop_s / 2 or self._hops_done == 0:
            clips += self._window(self._last_s)
            self._hops_done += 1  # a second call gives nothing more
        return clips

    def _sample(self, crops: list[Crop], start_s: float, end_s: float) -> list[Crop]:
        """The 16 crops that the model sees, of one track's crops in the window."""
        return [crops[index] for index in frame_indices(len(crops))]

    def _window(self, end_s: float) -> list[Clip]:
        start_s = max(self._first_s, end_s - self.window_s)
        while self._crops and self._crops[0].time_s < start_s - self._margin_s - 1e-6:
            self._crops.popleft()
        self._covered_s = end_s
        mel, voice = self._sound.window(start_s, end_s)
        tracks: dict[int, list[Crop]] = {}
        for crop in self._crops:
            if crop.time_s <= end_s + 1e-6:
                tracks.setdefault(crop.track_id, []).append(crop)
        oldest_s = max(min(self._frame_s, end_s) - self.hop_s, end_s - max(self.hop_s, STALLED_S), start_s) - 1e-6
        present = {track: crops for track, crops in tracks.items() if crops[-1].time_s >= oldest_s}
        if not present:
            arrival_s = self._sound.newest_arrival_s
            return [] if mel is None else [Clip(start_s, end_s, None, None, None, mel, arrival_s, voice=voice)]
        shares = self._speaking(present, mel, start_s)
        speaker = speaker_of(shares)
        clips = []
        for track, crops in sorted(present.items()):
            own = mel if speaker in (None, track) else None
            sampled = self._sample(crops, start_s, end_s)
            frames, times_s = np.stack([crop.image for crop in sampled]), tuple(crop.time_s for crop in sampled)
            arrival_s = max(crops[-1].arrival_s, self._sound.newest_arrival_s if own is not None else 0.0)
            heard = (voice, shares.get(track))
            clips.append(Clip(start_s, end_s, track, crops[-1].box, frames, own, arrival_s, times_s, *heard))
        return clips

    def _speaking(self, tracks: dict[int, list[Crop]], mel: np.ndarray | None, start_s: float) -> dict:
        """The share of each of several tracks in the voice, see `speaking_shares`."""
        if mel is None or len(tracks) < 2:
            return {}
        moves = {track: [(c.time_s, c.motion) for c in crops if c.motion] for track, crops in tracks.items()}
        return speaking_shares(moves, mel, self._sound.first_s(start_s))


class WholeClips:
    """The paper's protocol: one clip for the whole source and each face track of it.

    It has 16 frames spread over all of the track's crops and the first 5.12 s of sound. The crops wait in a spooled
    file, so memory does not grow with the length.
    """

    def __init__(self, gate: VoiceGate | None = None) -> None:
        self._spools: dict[int, tempfile.SpooledTemporaryFile] = {}
        self._newest: dict[int, Crop] = {}
        # Room for the sound that is used and for the block that ends after it.
        self._sound = ClipSound(2 * LONGEST_SOUND_S, gate)
        self._sound_start_s: float | None = None
        self._span: list[float] = []

    def due(self, now_s: float) -> list[Clip]:
        """No clip before the end."""
        self._span = [min(now_s, *self._span), max(now_s, *self._span)] if self._span else [now_s, now_s]
        return []

    def add_crops(self, crops: Iterable[Crop], time_s: float) -> None:
        for crop in crops:
            if crop.track_id not in self._spools:
                self._spools[crop.track_id] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
            self._spools[crop.track_id].write(crop.image.tobytes())
            self._newest[crop.track_id] = crop

    def add_audio(self, chunk: AudioChunk) -> None:
        self._span[1] = max(self._span[1], chunk.end_s)
        if self._sound_start_s is None:
            self._sound_start_s = chunk.time_s
        # The last row's window ends 15 ms after the span of the rows.
        if chunk.time_s < self._sound_start_s + LONGEST_SOUND_S + FRAME_LENGTH_MS / 1000:
            self._sound.accept(chunk)

    def finish(self) -> list[Clip]:
        start_s, end_s = self._span or (0.0, 0.0)
        sound_s = self._sound_start_s or 0.0
        mel, voice = self._sound.window(sound_s, sound_s + LONGEST_SOUND_S)
        heard_s = self._sound.newest_arrival_s
        if not self._newest:
            return [] if mel is None else [Clip(start_s, end_s, None, None, None, mel, heard_s, voice=voice)]
        clips = []
        for track, newest in sorted(self._newest.items()):
            spool, shape, nbytes = self._spools[track], newest.image.shape, newest.image.nbytes
            frames = []
            for index in frame_indices(spool.tell() // nbytes):
                spool.seek(int(index) * nbytes)
                frames.append(np.frombuffer(spool.read(nbytes), np.uint8).reshape(shape))
            arrival_s = max(newest.arrival_s, heard_s)
            clips.append(Clip(start_s, end_s, track, newest.box, np.stack(frames), mel, arrival_s, voice=voice))
            spool.close()
        return clips


class GridClips(SlidingClips):
    """`SlidingClips` whose frames do not depend on the window's start, so that overlapping windows share them.

    Time is cut into segments of window_s / 16, starting at the source's first datum. Each segment has one frame, the
    one on display at its middle; where the hop is a multiple of the segment (the defaults: 0.5 s and 0.25 s),
    `frame_indices` takes these middles too. With another hop a window takes the 16 segments that are complete at its
    end: its frames are up to one segment older than those of `frame_indices`.

    A segment in which the face was not seen shows the last frame before it. A track that begins after the window's
    start, or has at most 16 frames in the window, is sampled by `frame_indices`.
    """

    def __init__(self, window_s: float, hop_s: float, gate: VoiceGate | None = None) -> None:
        super().__init__(window_s, hop_s, gate)
        self._tick_s = self._margin_s = window_s / NUM_FRAMES

    def _sample(self, crops: list[Crop], start_s: float, end_s: float) -> list[Crop]:
        inside = [crop for crop in crops if crop.time_s >= start_s - 1e-6]
        last = int((end_s - self._first_s) / self._tick_s + 1e-6)  # the first segment that is not complete
        on_display: dict[int, Crop] = {}
        for crop in crops:
            number, phase = divmod((crop.time_s - self._first_s) / self._tick_s + 1e-6, 1.0)
            # The last frame up to the middle; if there is none, the first one after it.
            if phase <= 0.5 + 2e-6 or number not in on_display:
                on_display[int(number)] = crop
        first = last - NUM_FRAMES
        if len(inside) <= NUM_FRAMES or first not in on_display:
            return super()._sample(inside, start_s, end_s)
        sampled = [on_display[first]]
        for number in range(first + 1, last):
            sampled.append(on_display.get(number, sampled[-1]))
        return sampled
