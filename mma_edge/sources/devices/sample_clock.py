"""When the samples of a sound card were recorded, on this machine's clock.

A card's samples are even, but it counts seconds of its own: 50 to 100 millionths longer or shorter than ours, which is
a third of a second after an hour. The driver hands blocks over at uneven times, but never before they are recorded. So
sample n was recorded at a + n / rate, where a follows the lower envelope of (time of the call - n / rate), slowly, so
that no sound is torn. What the driver itself says of a block's age helps only while it stands still: behind PulseAudio
it jumps from 0.6 to 0.03 s, and no sound was lost or late.
"""

from __future__ import annotations

from collections import deque

WARM_UP_S = 0.5
"""After a start, drivers hand over what was stored, or fetch what is missing: so long, nothing is believed."""
_KEEP_S = 10.0
"""Age of the delays whose smallest counts."""
_SLEW, _FIRST_SLEW, _FIRST_S = 200e-6, 0.02, 1.0
"""Share of the time by which the clock follows: twice a bad card's drift. More in the second after a start or step."""
_STEP_S = 0.05
"""A larger difference is no drift: samples were lost, or the first ones were late."""
_LOST_S = 0.5
"""Samples were lost when all blocks of so long are late. A driver that was only held up hands over the rest at once."""
_AGE_SPAN_S, _AGE_SPREAD_S = 1.0, 0.005
"""The driver's age of a block is believed while it differs by less than this over so long."""


class SampleClock:
    """Times of the blocks of one stream, from its start on."""

    def __init__(self) -> None:
        self._num_samples = 0
        self._first_s: float | None = None
        self._offset_s: float | None = None  # what a sample's number / rate is moved by
        self._base_s = 0.0  # the same without what the driver stores: what steps are measured from
        self._stepped_s = 0.0  # end of the block at which it began or stepped, in seconds of the card
        # End of a block in seconds of the card, and its delay; only those smaller than all after them.
        self._delays: deque[tuple[float, float]] = deque()
        self._ages: deque[tuple[float, float]] = deque()  # end of a block, age of its first sample; of the last second

    def place(self, num_samples: int, rate_hz: int, now_s: float, age_s: float | None) -> float | None:
        """When the first sample of the next block was recorded; None while the stream warms up.

        Args:
            num_samples: of the block.
            rate_hz: the same for all blocks.
            now_s: `time.monotonic()` when the driver handed it over.
            age_s: of its first sample, as the driver says; None where it says nothing.
        """
        start_s = self._num_samples / rate_hz
        self._num_samples += num_samples
        end_s = self._num_samples / rate_hz
        if self._first_s is None:
            self._first_s = now_s
        self._note_age(end_s, age_s)
        if now_s - self._first_s < WARM_UP_S:
            return None
        length_s, least_s = end_s - start_s, self._least_s(end_s, now_s - end_s)
        target_s = least_s - self._stored_s(length_s)
        if self._offset_s is None:
            self._base_s, self._offset_s = least_s, target_s
            self._stepped_s = end_s
        if abs(step_s := least_s - self._base_s) > _STEP_S:
            self._base_s, self._offset_s = least_s, self._offset_s + step_s
            self._stepped_s = end_s
        most_s = (_FIRST_SLEW if end_s - self._stepped_s < _FIRST_S else _SLEW) * length_s
        self._base_s += min(max(least_s - self._base_s, -most_s), most_s)
        self._offset_s += min(max(target_s - self._offset_s, -most_s), most_s)
        return start_s + self._offset_s

    def _least_s(self, end_s: float, delay_s: float) -> float:
        """The smallest delay of the last seconds, with that of the block that ends now."""
        delays = self._delays
        while delays and delays[-1][1] >= delay_s:
            delays.pop()
        delays.append((end_s, delay_s))
        while delays[0][0] < end_s - _KEEP_S:
            delays.popleft()
        if delay_s > delays[0][1] + _STEP_S:
            recent_s = next(each_s for at_s, each_s in delays if at_s > end_s - _LOST_S)
            if recent_s > delays[0][1] + _STEP_S:
                while delays[0][1] < recent_s:
                    delays.popleft()
        return delays[0][1]

    def _note_age(self, end_s: float, age_s: float | None) -> None:
        if age_s is None:
            self._ages.clear()
            return
        self._ages.append((end_s, age_s))
        while end_s - self._ages[0][0] > _AGE_SPAN_S:
            self._ages.popleft()

    def _stored_s(self, length_s: float) -> float:
        """How much longer than until its block was full a sample waited, as far as the driver is believed."""
        if not self._ages or self._ages[-1][0] - self._ages[0][0] < _AGE_SPAN_S - 2 * length_s:
            return 0.0
        ages_s = [age_s for _, age_s in self._ages]
        return max(0.0, min(ages_s) - length_s) if max(ages_s) - min(ages_s) < _AGE_SPREAD_S else 0.0
