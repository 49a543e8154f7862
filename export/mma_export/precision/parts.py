"""How the parts of a model for streaming get the precision of its whole graph: the same formats, grids and weights.

What the search found for the whole graph holds for its parts, because they are the same products on the same tensors.
A part is traced on its own and has other names, so a product of it is recognised by its float32 weights.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from mma_export.precision.grids import Grid, Weight8
from mma_export.precision.int8 import quantize_for_cpu, quantize_static, tensors_for_cpu
from mma_export.precision.sites import Site, find_sites, weights_of
from mma_export.rewrite import Rewrite

Convert = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True)
class PartRecipe:
    """How the parts of one entry of the manifest's `streaming` are made of the float32 ones, and judged.

    Attributes:
        name: of the entry: a precision, or as of `own_entry`.
        precision: whose limits of the gate hold.
        whole: the whole graph's file, with which the parts share their weights.
        convert: a float32 part as traced -> what is written.
        judged: a float32 part -> what onnxruntime's CPU computes for the gate; None: what is written.
        on_openvino: a float32 part -> the same for OpenVINO on a processor with bfloat16; None: not for OpenVINO.
        half_storage: what is exact in float16 is stored so.
    """

    name: str
    precision: str
    whole: Path
    convert: Convert
    judged: Convert | None = None
    on_openvino: Convert | None = None
    half_storage: bool = True


@dataclass(frozen=True, eq=False)
class Whole8:
    """What was found for a whole graph in 8 bits.

    Attributes:
        proto, sites: in float32 as traced, and its sites.
        smoothed, smoothed_sites: the same as `smooth` gives them, in the same order.
        weights: as of `quantize_weights`, of the smoothed graph.
        symmetric, unsigned: grids of its tensors.
        own: those of the smoothed sites that onnxruntime's CPU computes in 8 bits, as of `sites_for_cpu`.
        kept, cpu_kept: names of the nodes that stay float32.
    """

    proto: onnx.ModelProto
    sites: list[Site]
    smoothed: onnx.ModelProto
    smoothed_sites: list[Site]
    weights: Mapping[str, Weight8]
    symmetric: Mapping[str, Grid]
    unsigned: Mapping[str, Grid]
    own: list[Site]
    kept: Collection[str]
    cpu_kept: Collection[str]

    def static(self, part: onnx.ModelProto) -> onnx.ModelProto:
        """A float32 part with QDQ where the whole graph has it."""
        part, pairs = self._smoothed(part)
        pairs = [(site, found) for site, found in pairs if found.node not in self.kept]
        grids = {site.activation: self.symmetric[found.activation] for site, found in pairs}
        return quantize_static(part, [site for site, _ in pairs], grids, self._weights(pairs))

    def for_cpu(self, part: onnx.ModelProto) -> onnx.ModelProto:
        """A float32 part for onnxruntime's CPU, in 8 bits where the whole graph is."""
        part, pairs = self._smoothed(part)
        own = {site.node for site in self.own} - set(self.cpu_kept)
        pairs = [(site, found) for site, found in pairs if found.node in own]
        grids = {}
        for site, found in pairs:
            if site.op_type == "Conv":
                names = (tensors_for_cpu(graph, [one]) for graph, one in ((part, site), (self.smoothed, found)))
                grids |= {name: self.unsigned[known] for name, known in zip(*names, strict=True)}
        return quantize_for_cpu(part, [site for site, _ in pairs], grids, self._weights(pairs))

    def _weights(self, pairs: list[tuple[Site, Site]]) -> dict[str, Weight8]:
        return {site.weight: self.weights[found.weight] for site, found in pairs}

    def _smoothed(self, part: onnx.ModelProto) -> tuple[onnx.ModelProto, list[tuple[Site, Site]]]:
        """A part smoothed as the whole graph was, and its sites with the whole graph's smoothed ones."""
        known, found = weights_of(self.proto, self.sites), find_sites(part)
        rows, values = {_key(site, known): row for row, site in enumerate(self.sites)}, weights_of(part, found)
        rewrite, whole, pairs = Rewrite(part), Rewrite(self.smoothed), []
        nodes, whole_nodes = ({node.name: node for node in graph.nodes} for graph in (rewrite, whole))
        for site in found:
            if (row := rows.get(_key(site, values))) is None:
                continue
            smoothed = self.smoothed_sites[row]
            if smoothed.weight != self.sites[row].weight:
                norms = [
                    graph[one.node].inputs[0].producer() for graph, one in ((nodes, site), (whole_nodes, smoothed))
                ]
                if norms[0].op_type != "LayerNormalization" or len(norms[0].outputs[0].consumers()) != 1:
                    continue  # stays float32
                for index in (1, 2):
                    constant = rewrite.constant(f"{norms[0].name}_smooth_{index}", _values(norms[1].inputs[index]))
                    norms[0].replace_input_with(index, constant)
                weight = rewrite.constant(f"{site.node}_smooth", _values(whole_nodes[smoothed.node].inputs[1]))
                nodes[site.node].replace_input_with(1, weight)
                site = dataclasses.replace(site, weight=weight.name)
            pairs.append((site, smoothed))
        return rewrite.finish(), pairs


def _key(site: Site, weights: Mapping[str, np.ndarray]) -> tuple:
    """By which a site is known."""
    values = np.ascontiguousarray(weights[site.weight])
    return site.op_type, values.shape, hashlib.sha256(values).digest()


def _values(constant: object) -> np.ndarray:
    return constant.const_value.numpy()
