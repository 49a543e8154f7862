"""Which products suffer too much from 8 bits: found by measurement, and kept in float32.

Each suspect in turn is kept in float32, with all others in 8 bits, and it is noted how much nearer the logits come.
Then more and more suspects are kept in float32, the most sensitive first, until the gate is passed, and one more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from mma_export.precision.clips import RealClips, logits_of
from mma_export.precision.gate import Comparison, compare
from mma_export.precision.sites import Site

Quantize = Callable[[set[str]], onnx.ModelProto]
"""Names of the nodes to keep in float32 -> the quantised graph."""


@dataclass(frozen=True, eq=False)
class Found:
    """Outcome of the search.

    Attributes:
        graph: the quantised graph.
        kept: names of the nodes left in float32, the most sensitive first.
        comparison: of the graph, on the clips it was searched with.
        sensitivity: as of `measure`; empty where nothing had to be kept.
    """

    graph: onnx.ModelProto
    kept: tuple[str, ...]
    comparison: Comparison
    sensitivity: dict[str, float]


def measure(
    suspects: list[Site],
    quantize: Quantize,
    reference: np.ndarray,
    without: np.ndarray,
    clips: RealClips,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Node -> how much nearer to float32 the logits come when it alone is kept, largest first.

    Measured in mean absolute difference on the clips; negative where keeping it does harm. `reference` are float32's
    logits, `without` those of the graph that keeps nothing.
    """
    found = {}
    before = float(np.abs(without - reference).mean())
    for done, site in enumerate(suspects):
        advance(done, len(suspects))
        logits = logits_of(quantize({site.node}), clips)
        found[site.node] = before - float(np.abs(logits - reference).mean())
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def search(
    suspects: list[Site],
    quantize: Quantize,
    reference: np.ndarray,
    clips: RealClips,
    few: np.ndarray,
    passes: Callable[[Comparison], bool],
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Found:
    """The graph with nearly as many sites quantised as the gate lets pass; where none passes, the nearest to float32.

    Args:
        suspects: the sites that may be kept.
        reference: float32's logits on `clips`.
        few: rows of some of the clips, to rank the suspects with: each suspect takes a run over them.
        passes: the gate; better with a margin, because other clips decide in the end.
        advance: told (done, total) while suspects are ranked.
    """
    graph = quantize(set())
    logits = logits_of(graph, clips)
    comparison = compare(reference, logits, clips)
    if passes(comparison):
        return Found(graph, (), comparison, {})
    sensitivity = measure(suspects, quantize, reference[few], logits[few], clips.part(few), advance)
    ranked, best = list(sensitivity), Found(graph, (), comparison, sensitivity)
    for kept in _attempts(ranked, suspects):
        graph = quantize(set(kept))
        comparison = compare(reference, logits_of(graph, clips), clips)
        if passes(comparison):
            needed = Found(graph, tuple(kept), comparison, sensitivity)
            # One more than was needed, because other clips decide in the end, unless it does harm on these already.
            further = kept + [node for node in ranked if node not in kept][:1]
            graph = quantize(set(further))
            comparison = compare(reference, logits_of(graph, clips), clips)
            return Found(graph, tuple(further), comparison, sensitivity) if passes(comparison) else needed
        if comparison.mean_abs_logit_difference < best.comparison.mean_abs_logit_difference:
            best = Found(graph, tuple(kept), comparison, sensitivity)
    return best


def _attempts(ranked: list[str], suspects: list[Site]) -> list[list[str]]:
    """What to keep, in this order: a few of the most sensitive, all convolutions, more and more of the ranked."""
    counts = [count for count in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if count <= max(1, len(ranked) // 2)]
    convolutions = [site.node for site in suspects if site.op_type == "Conv"]
    attempts = [ranked[:count] for count in counts]
    # A stem of many convolutions adds up its errors: as a whole in float32 it costs less than many products do.
    few = sum(count < max(8, len(convolutions)) for count in counts)
    return attempts[:few] + ([convolutions] if convolutions else []) + attempts[few:]
