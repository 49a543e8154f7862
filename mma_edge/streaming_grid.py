"""Sampling for a stream: 16 frames on a grid that is fixed in time, so that windows that overlap share them."""

from __future__ import annotations

from mma_edge.clip import NUM_FRAMES, Crop, SlidingClips


class GridClips(SlidingClips):
    """`SlidingClips` whose frames do not change with the window's start.

    Time is cut into segments of window_s / 16 from the source's first datum on. Each has one frame, the one on
    display at its middle; where the hop is a multiple of the segment (the defaults: 0.5 s and 0.25 s) these are the
    middles that `frame_indices` takes too. With another hop a window takes the 16 segments that are complete at its
    end: its frames are up to a segment older than `frame_indices` would have them.

    A segment in which the face was not seen shows the last frame before it. A track that does not reach back to the
    window's start yet, or has no more than 16 frames in it, is sampled by `frame_indices`.
    """

    def __init__(self, window_s: float, hop_s: float) -> None:
        super().__init__(window_s, hop_s)
        self._tick_s = self._margin_s = window_s / NUM_FRAMES

    def _sample(self, crops: list[Crop], start_s: float, end_s: float) -> list[Crop]:
        inside = [crop for crop in crops if crop.time_s >= start_s - 1e-6]
        last = int((end_s - self._first_s) / self._tick_s + 1e-6)  # the first segment that is not complete
        on_display: dict[int, Crop] = {}
        for crop in crops:
            number, phase = divmod((crop.time_s - self._first_s) / self._tick_s + 1e-6, 1.0)
            # The last one up to the middle; failing that, the first one after it.
            if phase <= 0.5 + 2e-6 or number not in on_display:
                on_display[int(number)] = crop
        first = last - NUM_FRAMES
        if len(inside) <= NUM_FRAMES or first not in on_display:
            return super()._sample(inside, start_s, end_s)
        sampled = [on_display[first]]
        for number in range(first + 1, last):
            sampled.append(on_display.get(number, sampled[-1]))
        return sampled
