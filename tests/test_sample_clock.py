"""Promises of `SampleClock`: sound stays whole and in time, whatever the driver says of its time. No time passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest

from mma_edge.sources.devices.sample_clock import WARM_UP_S, SampleClock

RATE_HZ, BLOCK = 48000, 1440
BLOCK_S = BLOCK / RATE_HZ
Late = Callable[[float], float]
Age = Callable[[float], float | None]


def placed(
    seconds: float, late: Late = lambda s: 0.0, age: Age = lambda s: None, rate: float = 1.0, clock: object = None
) -> Iterator[tuple[float, float]]:
    """(true time, time by the clock) of each block of a card that runs at `rate`, from its start at 100 s.

    `late` is by how much the driver hands a block over too late, `age` what it says of the block's age.
    """
    clock, called_s = clock or SampleClock(), 0.0
    for number in range(round(seconds / BLOCK_S)):
        true_s = 100.0 + number * BLOCK_S / rate
        # Calls come one after the other, however late the first is.
        called_s = max(called_s, true_s + BLOCK_S / rate + late(true_s - 100.0))
        got_s = clock.place(BLOCK, RATE_HZ, called_s, age(true_s - 100.0))
        if got_s is not None:
            yield true_s, got_s


def errors_ms(pairs: Iterator[tuple[float, float]]) -> np.ndarray:
    return np.array([1000 * (got_s - true_s) for true_s, got_s in pairs])


def steps_ms(pairs: Iterator[tuple[float, float]]) -> np.ndarray:
    """How far each block is from the end of the one before it: what tears sound."""
    return np.array([1000 * (after - before - BLOCK_S) for before, after in pairwise(got for _, got in pairs)])


def jitter(most_s: float) -> Late:
    random = np.random.default_rng(0)
    return lambda s: random.uniform(0.0, most_s)


@pytest.mark.parametrize("drift_ppm", [100, -100])
def test_an_hour_on_a_card_that_drifts_stays_within_20_ms(drift_ppm: int) -> None:
    errors = errors_ms(placed(3600, jitter(0.02), rate=1 + drift_ppm * 1e-6))
    assert len(errors) == pytest.approx(3600 / BLOCK_S, rel=1e-3)
    assert np.abs(errors).max() < 20
    assert np.abs(errors[-1000:]).max() < 3  # it drifted by 360 ms meanwhile


def pulse(s: float) -> float:
    """What PortAudio said of a block's age behind PulseAudio."""
    return 0.246 if s < 1.3 else 0.03


def wild(s: float) -> float:
    return 0.103 + 0.598 * (int(s / 0.35) * 37 % 100) / 100


@pytest.mark.parametrize("age", [pulse, wild], ids=["246 to 30 ms", "103 to 701 ms"])
def test_jumps_of_the_drivers_own_time_move_no_sound(age: Age) -> None:
    pairs = list(placed(20, jitter(0.01), age))
    # A beep in each second of true time, where the clock puts it.
    beeps = np.interp(np.arange(101.0, 119.0), *zip(*pairs, strict=True))
    assert np.abs(np.diff(beeps) - 1.0).max() < 0.004
    assert np.abs(steps_ms(iter(pairs))).max() < 1.0
    assert np.abs(errors_ms(iter(pairs))).max() < 12


def test_an_age_that_stands_still_is_believed() -> None:
    """60 ms in the driver beside the block: followed slowly, and given up as slowly when it begins to jump."""
    errors = errors_ms(placed(400, lambda s: 0.06, lambda s: BLOCK_S + 0.06))
    assert errors[0] == pytest.approx(60, abs=1) and abs(errors[-1]) < 1
    pairs = list(placed(60, lambda s: 0.06, lambda s: BLOCK_S + 0.06 if s < 30 else wild(s)))
    assert np.abs(steps_ms(iter(pairs))).max() < 0.02 * BLOCK_S * 1000 + 1e-6
    assert errors_ms(iter(pairs))[-1] > errors_ms(iter(pairs))[int(29 / BLOCK_S)]


def test_the_clock_follows_by_at_most_200_ppm_after_its_first_second() -> None:
    steps = steps_ms(placed(60, lambda s: 0.04 if s < 5 else 0.0))
    after = round(1.0 / BLOCK_S) + 1
    assert np.abs(steps[after:]).max() <= 200e-6 * BLOCK_S * 1000 + 1e-9
    assert np.abs(steps[after:]).max() > 0


def test_a_driver_that_was_held_up_loses_no_sound() -> None:
    """0.4 s without a call, then all at once; as PortAudio's thread on a busy machine."""
    errors = errors_ms(placed(10, lambda s: max(0.0, 5.4 - s) if 5.0 <= s < 5.4 else 0.0))
    assert np.abs(errors).max() < 1


def test_lost_sound_is_a_gap_of_its_length() -> None:
    clock = SampleClock()
    list(placed(6, clock=clock))
    # From here on each block is what was recorded 0.3 s later.
    late = [1000 * (got_s - true_s) for true_s, got_s in placed(6, lambda s: 6.0 + 0.3, clock=clock)]
    assert late[0] == pytest.approx(6000, abs=1) and late[-1] == pytest.approx(6300, abs=1)
    first = next(number for number, each in enumerate(late) if each > 6200)
    assert first * BLOCK_S <= 0.55


def test_what_a_driver_hands_over_at_its_start_counts_for_nothing() -> None:
    """A backlog that comes at once, as behind PulseAudio: the first block 1.7 s late, the others on top of it."""
    pairs = list(placed(10, lambda s: 1.7 if s == 0 else 0.0))
    assert np.abs(errors_ms(iter(pairs))).max() < 1
    assert pairs[0][0] >= 100.0 + WARM_UP_S


def test_blocks_that_came_too_late_from_the_start_are_corrected_at_once() -> None:
    errors = errors_ms(placed(10, lambda s: 0.2 if s < 3 else 0.0))
    assert errors[0] == pytest.approx(200, abs=1) and np.abs(errors[round(3 / BLOCK_S) :]).max() < 30
