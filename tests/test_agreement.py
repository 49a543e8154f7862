"""The figures every gate judges by: nothing that differs, or is no number, looks like agreement."""

from __future__ import annotations

import numpy as np
import pytest

from mma_edge.engines.agreement import agreement

REFERENCE = np.array([[2.0, 0.0, -1.0], [0.0, 1.0, 0.9], [-1.0, 0.0, 3.0]], np.float32)


def test_the_same_answers_agree() -> None:
    same = agreement(REFERENCE, REFERENCE.copy())
    assert (same.clips, same.finite, same.max_difference, same.top1) == (3, True, 0.0, 1.0)
    assert same.min_cosine == pytest.approx(1)


def test_differences_are_the_largest_and_the_mean() -> None:
    other = REFERENCE.copy()
    other[1, 0] += 0.9
    found = agreement(REFERENCE, other)
    assert found.max_difference == pytest.approx(0.9) and found.mean_difference == pytest.approx(0.1)
    assert found.top1 == 1.0 and found.min_cosine < 1


def test_another_class_counts_unless_the_reference_is_undecided() -> None:
    other = REFERENCE[:, [0, 2, 1]]  # rows 2 and 3 answer otherwise; in row 2 the two best are 0.1 apart
    assert agreement(REFERENCE, other).top1 == pytest.approx(1 / 3)
    assert agreement(REFERENCE, other, tie=0.11).top1 == pytest.approx(2 / 3)


def test_what_is_not_finite_agrees_with_nothing() -> None:
    other = REFERENCE.copy()
    other[0, 0] = np.nan
    found = agreement(REFERENCE, other)
    assert not found.finite and np.isnan(found.max_difference) and found.top1 == pytest.approx(2 / 3)
