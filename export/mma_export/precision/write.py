"""One float32 graph becomes the files of the asked precisions, each behind its gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx

from mma_edge.bundle import golden_inputs
from mma_edge.bundle.streaming import own_entry
from mma_edge.clip import evenly
from mma_edge.engines.tensorrt.plan import MIN_TENSORRT
from mma_edge.engines.tensorrt.rules import OPERATORS
from mma_edge.errors import ParityError
from mma_edge.precisions import MIN_TOP1_AGREEMENT
from mma_export.graph import check_for_tensorrt, save_graph
from mma_export.precision.clips import RealClips, folder_clips, logits_of, made_clips, public_clips
from mma_export.precision.gate import Comparison, compare
from mma_export.precision.grids import (
    float_grid,
    most_suspect,
    quantize_weights,
    smooth,
    symmetric_grid,
    unsigned_grid,
)
from mma_export.precision.half import HalfOptions, as_openvino, half_tensors, options_of, to_half
from mma_export.precision.int8 import quantize_for_cpu, quantize_static, sites_for_cpu, tensors_for_cpu
from mma_export.precision.parts import PartRecipe, Whole8
from mma_export.precision.search import Found, Quantize, search
from mma_export.precision.sites import Site, check_overflow, find_sites, inputs_of, largest_value, observe
from mma_export.rewrite import ATTENTION_OPSET, fuse_attention
from mma_export.weights import share_weights

SMALL_MODEL_BYTES = 64 << 20


@dataclass(frozen=True)
class Effort:
    """How many clips are used for a model of some size, and how many products the search tries one by one."""

    gate_clips: int
    calibration_clips: int
    ranking_clips: int
    products_tried: int


SMALL = Effort(gate_clips=200, calibration_clips=40, ranking_clips=12, products_tried=1000)
LARGE = Effort(gate_clips=24, calibration_clips=8, ranking_clips=2, products_tried=24)
"""A model like ViT-B takes seconds per clip, and seconds to load."""


def effort_of(proto: onnx.ModelProto) -> Effort:
    """For a graph with its weights."""
    return SMALL if proto.ByteSize() < SMALL_MODEL_BYTES else LARGE


TOLERANCE_FACTOR = 4.0
"""The self-test allows so many times the difference seen here: other backends sum in another order, and a wrong kernel
is off by far more."""
SEARCHED_AGREEMENT = 1 - (1 - MIN_TOP1_AGREEMENT["int8"]) / 4
"""The search goes on until no more than a quarter of what the gate allows is lost, by count and by expectation. The
gate has other clips, and the next processor adds in another order: what only just passes here fails there."""


@dataclass(frozen=True)
class GateOptions:
    """What graphs are calibrated and gated with.

    Attributes:
        clips: folder of the user's videos, or None.
        data: folder of FER2013 and RAVDESS, or None; where both are None, clips are made of the sample.
        count: clips to gate with, or None for the number that suits the model's size.
        keep_going: a failed gate is noted in the manifest instead of ending the export.
        softmax_half: Softmax in half precision in the fp16 and bf16 graphs.
        fused_attention: the fp16 graph has ONNX's Attention, see `fuse_attention`.
    """

    clips: Path | None = None
    data: Path | None = None
    count: int | None = None
    keep_going: bool = False
    softmax_half: bool = False
    fused_attention: bool = False


class PrecisionWriter:
    """Writes the graphs of one model into a bundle's folder.

    Attributes:
        recipes: of each precision that was written, how parts of the model get it.

    Args:
        proto: the float32 graph as traced, weights in float32.
        folder: where the bundle is made.
        image_size, labels: of the model.
        golden: the seed of the golden inputs, and PyTorch's logits float32 (1, C) on them.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        folder: Path,
        image_size: int,
        labels: Sequence[str],
        golden: tuple[int, np.ndarray],
        options: GateOptions,
        report: Callable[[str], None],
    ) -> None:
        self.proto, self.folder, self.options, self.report = proto, folder, options, report
        self.recipes: dict[str, list[PartRecipe]] = {}
        report("reading the clips of the gate")
        self.effort = effort_of(proto)
        clips = _open_clips(options, image_size, labels, 2 * (options.count or self.effort.gate_clips))
        self.calibration, self.clips = clips.halves()
        self.report(f"float32's answers on {len(self.clips)} clips")
        self.reference = logits_of(proto, self.clips)
        frames, mel = golden_inputs(golden[0], image_size)
        self.golden_clips = RealClips(frames, mel, None, "golden")
        self.golden_logits = golden[1]

    def write(self, precision: str) -> dict:
        """Write the file or files of "fp16", "bf16", "int8" or "fp8".

        Returns:
            The entry of the manifest; with `failed` where the gate is not passed.

        Raises:
            ParityError: TensorRT would refuse the graph.
        """
        writers = {"int8": self._int8, "fp8": self._fp8}
        entry = writers[precision]() if precision in writers else self._half(precision)
        fused = precision == "fp16" and self.options.fused_attention
        version = OPERATORS["Attention"].since if fused else MIN_TENSORRT
        check_for_tensorrt(self.folder / entry.get("tensorrt_file", entry["file"]), version)
        return entry

    def _half(self, kind: str) -> dict:
        options = options_of(kind, self.options.softmax_half)
        figures, failed = {}, None
        if kind == "fp16":
            self.report("fp16: looking for the largest activation")
            largest = largest_value(self.proto, half_tensors(self.proto, options), self.calibration.spread(24))
            figures = {"largest_activation": largest.value, "largest_activation_tensor": largest.tensor}
            try:
                check_overflow(largest)
            except ParityError as error:
                failed = error.what
        source = self.proto
        if kind == "fp16" and self.options.fused_attention:
            source, figures["opset"] = fuse_attention(source), ATTENTION_OPSET
        graph = to_half(source, options)
        file = f"model.{kind}.onnx"
        save_graph(graph, self.folder / file)
        recipe = PartRecipe(kind, kind, self.folder / file, lambda part: to_half(part, options))
        self.recipes[kind] = [recipe]
        if kind == "fp16":
            return _entry(file, *self._judge(kind, graph), kind, failed, figures)
        # onnxruntime's CPU has no kernels for bfloat16: its rounding is imitated in float32.
        emulated, openvino = dataclasses.replace(options, emulate=True), as_openvino(self.options.softmax_half)
        imitations = {"judged": emulated, "on_openvino": openvino}
        imitations = {name: lambda part, how=how: to_half(part, how) for name, how in imitations.items()}
        self.recipes[kind] = [dataclasses.replace(recipe, **imitations)]
        comparison, tolerance = self._judge(kind, to_half(self.proto, emulated))
        figures["gated_by"] = "rounding to bfloat16 in a float32 graph"
        on_openvino, its_tolerance = self._judge_on_openvino(kind, self.proto)
        return _entry(file, comparison, max(tolerance, its_tolerance), kind, failed, figures, on_openvino=on_openvino)

    def _int8(self) -> dict:
        calibration, found, smoothed, sites = self._smoothed("int8")
        own = sites_for_cpu(smoothed, sites)
        on_grids = tensors_for_cpu(smoothed, own)
        ranges = observe(smoothed, inputs_of(sites) | on_grids, calibration)
        weights = quantize_weights(smoothed, sites)
        answers = logits_of(self.proto, self.calibration)
        symmetric = {name: symmetric_grid(ranges[name]) for name in inputs_of(sites)}
        unsigned = {name: unsigned_grid(ranges[name]) for name in on_grids}
        suspects = most_suspect(sites, ranges, symmetric, self.effort.products_tried)
        static = self._search(
            "int8", suspects, lambda kept: quantize_static(smoothed, sites, symmetric, weights, kept), answers
        )
        cpu = self._search(
            "int8 for the CPU",
            [site for site in suspects if site in own],
            lambda kept: quantize_for_cpu(smoothed, own, unsigned, weights, kept),
            answers,
        )
        files = "model.int8.onnx", "model.int8-cpu.onnx", "model.int8-tensorrt.onnx"
        file, cpu_file, tensorrt_file = (self.folder / name for name in files)
        save_graph(static.graph, file, half_storage=False)
        comparison, tolerance = self._judge("int8", static.graph)
        on_openvino, its_tolerance = self._judge_on_openvino("int8", static.graph)
        cpu_comparison, cpu_tolerance = self._judge("int8 for the CPU", cpu.graph)
        # TensorRT's fused attention takes no float32, so what is around the 8-bit products is half there.
        half = HalfOptions("fp16", self.options.softmax_half)
        tensorrt = to_half(static.graph, half)
        tensorrt_comparison, tensorrt_tolerance = self._judge("int8 for TensorRT", tensorrt)
        for graph, path in ((cpu.graph, cpu_file), (tensorrt, tensorrt_file)):
            share_weights(graph, file)
            save_graph(graph, path, half_storage=False)
        whole = Whole8(
            self.proto, found, smoothed, sites, weights, symmetric, unsigned, own, set(static.kept), set(cpu.kept)
        )
        openvino = as_openvino(self.options.softmax_half)
        self.recipes["int8"] = [
            PartRecipe(
                "int8",
                "int8",
                file,
                whole.static,
                on_openvino=lambda part: to_half(whole.static(part), openvino),
                half_storage=False,
            ),
            PartRecipe(own_entry("int8", "cpu"), "int8", cpu_file, whole.for_cpu, half_storage=False),
            PartRecipe(
                own_entry("int8", "tensorrt"),
                "int8",
                tensorrt_file,
                lambda part: to_half(whole.static(part), half),
                half_storage=False,
            ),
        ]
        figures = {
            "calibration_clips": len(calibration),
            "kept_in_fp32": len(static.kept),
            "products": len(sites),
            "cpu_kept_in_fp32": len(cpu.kept),
            **_prefixed("cpu", cpu_comparison),
            **_prefixed("tensorrt", tensorrt_comparison),
        }
        reached = min(_agreement(found.comparison) for found in (static, cpu))
        if not reached >= SEARCHED_AGREEMENT:
            figures["note"] = (
                f"the search ended at {reached:.1%} agreement, not at the {SEARCHED_AGREEMENT:.1%} that it asks for: "
                f"on another processor or other clips int8 may miss the gate's {MIN_TOP1_AGREEMENT['int8']:.1%}"
            )
        failed = cpu_comparison.problem("int8")
        entry = _entry(
            file.name,
            comparison,
            max(tolerance, its_tolerance, cpu_tolerance, tensorrt_tolerance),
            "int8",
            failed and f"on onnxruntime's CPU: {failed}",
            figures,
            on_openvino,
        )
        if problem := tensorrt_comparison.problem("int8"):
            entry.setdefault("failed_on", {})["tensorrt"] = f"on the fp16 graph: {problem}"
        return {**entry, "cpu_file": cpu_file.name, "tensorrt_file": tensorrt_file.name}

    def _fp8(self) -> dict:
        """E4M3 in the matrix products, as TensorRT computes them, the rest as of fp16; convolutions stay fp16."""
        calibration, found_sites, smoothed, all_sites = self._smoothed("fp8")
        sites = [site for site in all_sites if site.op_type == "MatMul"]
        ranges = observe(smoothed, inputs_of(sites), calibration)
        weights = quantize_weights(smoothed, sites, e4m3=True)
        grids = {name: float_grid(ranges[name]) for name in inputs_of(sites)}
        suspects = most_suspect(sites, ranges, grids, self.effort.products_tried)
        options = HalfOptions("fp16", self.options.softmax_half)
        found = self._search(
            "fp8",
            suspects,
            lambda kept: to_half(quantize_static(smoothed, sites, grids, weights, kept), options),
            logits_of(self.proto, self.calibration),
        )
        file = "model.fp8.onnx"
        save_graph(found.graph, self.folder / file, half_storage=False)
        others = {site.node for site in all_sites} - {site.node for site in sites}
        whole = Whole8(
            self.proto, found_sites, smoothed, all_sites, weights, grids, {}, [], {*found.kept, *others}, set()
        )
        self.recipes["fp8"] = [
            PartRecipe(
                "fp8", "fp8", self.folder / file, lambda part: to_half(whole.static(part), options), half_storage=False
            )
        ]
        kept = {"kept_in_fp16": len(found.kept), "products": len(sites), "calibration_clips": len(calibration)}
        return _entry(file, *self._judge("fp8", found.graph), "fp8", None, kept)

    def _smoothed(self, precision: str) -> tuple[RealClips, list[Site], onnx.ModelProto, list[Site]]:
        """Clips to look at activations with, the sites, and the graph for 8 bits with its own, see `smooth`."""
        self.report(f"{precision}: looking at activations")
        calibration = self.calibration.spread(self.effort.calibration_clips)
        found = find_sites(self.proto)
        return calibration, found, *smooth(self.proto, found, observe(self.proto, inputs_of(found), calibration))

    def _search(self, name: str, suspects: list[Site], quantize: Quantize, answers: np.ndarray) -> Found:
        """Search on the calibration half: the gate's clips must not decide what is kept. `answers` are float32's."""
        clips = self.calibration
        self.report(f"{name}: quantising")
        found = search(
            suspects,
            quantize,
            answers,
            clips,
            evenly(len(clips), self.effort.ranking_clips),
            lambda comparison: _agreement(comparison) >= SEARCHED_AGREEMENT,
            lambda done, total: self.report(f"{name}: how sensitive is product {done + 1} of {total}"),
        )
        self.report(f"{name}: {len(found.kept)} products stay as they are")
        return found

    def _judge_on_openvino(self, precision: str, graph: onnx.ModelProto) -> tuple[Comparison, float]:
        """`_judge` of a float32 or QDQ graph as OpenVINO computes it on a processor with bfloat16."""
        return self._judge(f"{precision} on OpenVINO", to_half(graph, as_openvino(self.options.softmax_half)))

    def _judge(self, name: str, graph: onnx.ModelProto) -> tuple[Comparison, float]:
        """Comparison on the gate's clips, and the tolerance for the load-time self-test."""
        self.report(f"{name}: comparing with float32 on {len(self.clips)} clips")
        comparison = compare(self.reference, logits_of(graph, self.clips), self.clips)
        difference = float(np.abs(logits_of(graph, self.golden_clips) - self.golden_logits).max())
        return comparison, TOLERANCE_FACTOR * difference


def _entry(
    file: str,
    comparison: Comparison,
    tolerance: float,
    precision: str,
    failed: str | None,
    figures: dict,
    on_openvino: Comparison | None = None,
) -> dict:
    entry = {"file": file, "parity": {**asdict(comparison), **figures}, "tolerance": max(tolerance, 1e-3)}
    if failed := (failed or comparison.problem(precision)):
        entry["failed"] = failed
    if on_openvino is not None:
        entry["parity"] |= _prefixed("openvino", on_openvino)
        if problem := on_openvino.problem(precision):
            # Other backends round less, so they may have it.
            entry["failed_on"] = {"openvino": f"where it rounds to bf16: {problem}"}
    return entry


def _prefixed(prefix: str, comparison: Comparison) -> dict:
    return {f"{prefix}_{key}": value for key, value in asdict(comparison).items() if key not in ("clips", "origin")}


def _agreement(comparison: Comparison) -> float:
    """The worse of the count and the expectation; NaN where either is."""
    return min(comparison.top1_agreement, comparison.expected_agreement)


def _open_clips(options: GateOptions, image_size: int, labels: Sequence[str], count: int) -> RealClips:
    if options.data is not None:
        return public_clips(options.data, image_size, labels, count)
    if options.clips is not None:
        return folder_clips(options.clips, image_size, labels, count)
    return made_clips(image_size, count)
