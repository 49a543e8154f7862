"""Eight bits where they do no harm: what is quantised, on which grid, and what is left in float32."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

from mma_export.precision.clips import RealClips, logits_of
from mma_export.precision.grids import (
    Grid,
    most_suspect,
    quantize_weight,
    quantize_weights,
    smooth,
    symmetric_grid,
    unsigned_grid,
)
from mma_export.precision.int8 import quantize_for_cpu, quantize_static, sites_for_cpu, tensors_for_cpu
from mma_export.precision.search import measure, search
from mma_export.precision.sites import Range, find_sites, inputs_of, observe, weights_of


def operators(graph: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in graph.graph.node)


def symmetric_grids(ranges: dict[str, Range]) -> dict[str, Grid]:
    return {name: symmetric_grid(seen) for name, seen in ranges.items()}


def test_qdq_is_symmetric_and_per_channel(proto: onnx.ModelProto, clips: RealClips) -> None:
    sites = find_sites(proto)
    grids = symmetric_grids(observe(proto, inputs_of(sites), clips.spread(4)))
    graph = quantize_static(proto, sites, grids, quantize_weights(proto, sites), {sites[0].node})
    onnx.checker.check_model(graph, full_check=True)
    constants = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
    weights = 0
    for node in graph.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert constants[node.input[2]].dtype == np.int8 and not constants[node.input[2]].any()
            scalar = node.input[0] not in constants
            # A vector of one scale would be taken for one per channel.
            assert not scalar or constants[node.input[1]].shape == constants[node.input[2]].shape == ()
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            axis = node.attribute[0].i
            assert constants[node.input[1]].shape == (constants[node.input[0]].shape[axis],)
            weights += 1
    assert weights == len({site.weight for site in sites[1:]})
    kept = next(node for node in graph.graph.node if node.name == sites[0].node)
    assert list(kept.input[:2]) == [sites[0].activation, sites[0].weight]


def test_quantised_weights_are_within_half_a_step(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((8, 5)).astype(np.float32) * np.array([1, 10, 100, 1e-3, 0], np.float32)
    found = quantize_weight(weight, 1)
    assert found.values.dtype == np.int8 and found.scales.shape == (5,) and found.axis == 1
    assert (np.abs(found.values * found.scales - weight) <= found.scales / 2 + 1e-9).all()


def test_a_lone_outlier_is_clipped_and_a_full_range_is_not(rng: np.random.Generator) -> None:
    full = rng.uniform(-1, 1, 10_000).astype(np.float32)
    assert symmetric_grid(Range(-1.0, 1.0, np.ones(1), full)).scale * 127 > 0.9
    normal = rng.standard_normal(10_000).astype(np.float32)
    assert symmetric_grid(Range(-5.0, 20.0, np.ones(1), normal)).scale * 127 < 10


def test_smoothing_moves_ranges_and_changes_nothing(proto: onnx.ModelProto, clips: RealClips) -> None:
    graph = onnx.ModelProto()
    graph.CopyFrom(proto)
    # One channel of a norm is large, as in trained transformers.
    norm = next(node for node in graph.graph.node if node.op_type == "LayerNormalization")
    scale = next(t for t in graph.graph.initializer if t.name == norm.input[1])
    values = numpy_helper.to_array(scale).copy()
    values[3] = 40.0
    graph.graph.initializer.append(numpy_helper.from_array(values, "loud"))
    norm.input[1] = "loud"
    exact = logits_of(graph, clips)
    sites = find_sites(graph)
    before = observe(graph, inputs_of(sites), clips.spread(4))
    name = norm.output[0]
    smoothed, moved = smooth(graph, sites, before)
    assert sum(one != other for one, other in zip(sites, moved, strict=True)) > 2
    after = observe(smoothed, inputs_of(moved), clips.spread(4))
    np.testing.assert_allclose(logits_of(smoothed, clips), exact, atol=2e-5)
    peak = [seen[name].per_channel.max() / np.median(seen[name].per_channel) for seen in (before, after)]
    assert peak[1] < 0.6 * peak[0]
    assert all(site.weight in {t.name for t in smoothed.graph.initializer} for site in moved)


def test_an_unsigned_grid_has_zero_on_it_and_covers_what_was_seen(rng: np.random.Generator) -> None:
    positive = np.abs(rng.uniform(0, 1, 10_000)).astype(np.float32)
    grid = unsigned_grid(Range(0.0, 1.0, np.ones(1), positive))
    assert grid.zero == 0 and np.abs(grid.rounded(positive) - positive).max() <= grid.scale
    skewed = rng.uniform(-0.2, 5, 10_000).astype(np.float32)
    grid = unsigned_grid(Range(-0.2, 5.0, np.ones(1), skewed))
    assert 0 < grid.zero < 20 and grid.rounded(np.zeros(1)) == 0
    assert np.abs(grid.rounded(skewed) - skewed).mean() < 5.2 / 255


def for_cpu(proto: onnx.ModelProto, clips: RealClips, kept: set[str] = frozenset()) -> onnx.ModelProto:
    sites = sites_for_cpu(proto, find_sites(proto))
    ranges = observe(proto, tensors_for_cpu(proto, sites), clips)
    grids = {name: unsigned_grid(seen) for name, seen in ranges.items()}
    return quantize_for_cpu(proto, sites, grids, quantize_weights(proto, sites), kept)


def test_the_cpus_graph_is_standard_onnx_and_near(
    proto: onnx.ModelProto, clips: RealClips, reference: np.ndarray
) -> None:
    sites = find_sites(proto)
    graph = for_cpu(proto, clips.spread(4))
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert {entry.domain for entry in graph.opset_import} <= {"", "ai.onnx"}
    assert operators(graph)["MatMulInteger"] == sum(site.op_type == "MatMul" for site in sites)
    assert np.abs(logits_of(graph, clips) - reference).mean() < 0.3
    assert operators(for_cpu(proto, clips.spread(2), {site.node for site in sites})) == operators(proto)


def test_a_convolution_of_one_channel_stays_float_on_the_cpu(proto: onnx.ModelProto) -> None:
    found = find_sites(proto)
    channels = {site.node: weights_of(proto, [site])[site.weight].shape[1] for site in found if site.op_type == "Conv"}
    assert 1 in channels.values()
    assert all(channels.get(site.node) != 1 for site in sites_for_cpu(proto, found))


def test_a_channel_without_weights_keeps_its_bias(proto: onnx.ModelProto, clips: RealClips) -> None:
    dead = onnx.ModelProto()
    dead.CopyFrom(proto)
    constants = {tensor.name: tensor for tensor in dead.graph.initializer}
    site = next(site for site in sites_for_cpu(dead, find_sites(dead)) if site.op_type == "Conv")
    node = next(node for node in dead.graph.node if node.name == site.node)
    for name, value in ((node.input[1], 0.0), (node.input[2], 0.5)):
        values = numpy_helper.to_array(constants[name]).copy()
        values[0] = value
        constants[name].CopyFrom(numpy_helper.from_array(values, name))
    graph = for_cpu(dead, clips.spread(4))
    assert operators(graph)["Conv"] == operators(dead)["Conv"]
    assert any(node.name == site.node and node.input[1] == site.weight for node in graph.graph.node)  # left in float32
    assert np.abs(logits_of(graph, clips) - logits_of(dead, clips)).mean() < 0.3


def test_the_search_keeps_the_product_that_does_not_stand_it(
    proto: onnx.ModelProto, clips: RealClips, reference: np.ndarray
) -> None:
    sites = find_sites(proto)
    ranges = observe(proto, inputs_of(sites), clips.spread(4))
    victim = next(site for site in sites if site.op_type == "MatMul")
    seen = ranges[victim.activation]
    broken = dataclasses.replace(seen, highest=1e4, samples=np.append(seen.samples, np.float32(1e4)))
    ranges[victim.activation] = broken
    grids, weights = symmetric_grids(ranges), quantize_weights(proto, sites)

    def quantize(kept: set[str]) -> onnx.ModelProto:
        return quantize_static(proto, sites, grids, weights, kept)

    suspects = most_suspect(sites, ranges, grids, 5)
    assert suspects[0] == victim and len(suspects) == 5
    few = np.arange(3)
    without = logits_of(quantize(set()), clips.part(few))
    ranked = measure(suspects, quantize, reference[few], without, clips.part(few))
    assert next(iter(ranked)) == victim.node and len(ranked) == 5
    first_two = list(ranked)[:1], list(ranked)[:2]
    alone, more = (np.abs(logits_of(quantize(set(kept)), clips) - reference).mean() for kept in first_two)
    limit = max(alone, more) * 1.01
    found = search(suspects, quantize, reference, clips, few, lambda c: c.mean_abs_logit_difference <= limit)
    # It alone would do: the search goes one step further, for other clips judge.
    assert found.kept == tuple(ranked)[:2] and found.kept[0] == victim.node
    assert found.comparison.mean_abs_logit_difference <= limit
    # A step further that these clips do not pass is not taken.
    strict = search(suspects, quantize, reference, clips, few, lambda c: c.mean_abs_logit_difference <= alone * 1.01)
    assert strict.kept == (tuple(ranked)[:1] if more > alone * 1.01 else tuple(ranked)[:2])
    assert strict.comparison.mean_abs_logit_difference <= alone * 1.01
    assert search(suspects, quantize, reference, clips, few, lambda c: True).kept == ()
    # Where nothing passes it is not the last attempt that is taken, but the nearest one.
    nearest = search(suspects[:3], quantize, reference, clips, few, lambda c: False)
    assert nearest.comparison.mean_abs_logit_difference <= alone * 1.01 and nearest.kept
