"""Tracing MMA-DFER into one ONNX graph with the contract's inputs and output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor, nn

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.bundle import golden_inputs
from mma_edge.engines.tensorrt.plan import MIN_TENSORRT
from mma_edge.engines.tensorrt.rules import require_rules
from mma_edge.errors import BundleError, ParityError
from mma_export.rewrite import GELU, shape_behind_cast
from mma_export.weights import store_half
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel

OPSET = 18


def export_graph(model: MMADFER, path: Path) -> onnx.ModelProto:
    """Trace `model`, write the float32 graph to `path` and check the file; returns the graph with float32 weights.

    Raises:
        ParityError: the file does not have the shape that the contract promises.
    """
    proto = trace(model)
    save_graph(proto, path)
    check_graph(path, model)
    return proto


def trace(model: MMADFER) -> onnx.ModelProto:
    """`model` as an ONNX graph, opset 18, batch dimension dynamic, weights in float32.

    Inputs `frames` uint8 (N, 16, S, S, 3) and `mel` float32 (N, 512, 128); output `logits` (N, C).
    Attention is decomposed into matmuls and Softmax; LayerNormalization stays one operator.
    """
    # Two clips, because a batch of one would be taken for a constant.
    inputs = tuple(torch.from_numpy(array) for array in golden_inputs(0, model.config.image_size, clips=2))
    return trace_module(ContractModel(model), inputs, ("frames", "mel"), ("logits",), {"frames": "N", "mel": "N"})


def trace_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic: Mapping[str, str],
) -> onnx.ModelProto:
    """A module as ONNX in memory, weights in float32, without notes and with the GELU that onnxruntime fuses.

    Args:
        inputs: example values, with at least two entries along a dynamic dimension, of other numbers for other sizes.
        input_names: they are also the names of the arguments of its `forward`.
        dynamic: name of an input whose first dimension is dynamic -> name of its size.
    """
    sizes = {size: torch.export.Dim(size, min=1, max=1024) for size in dynamic.values()}
    shapes = {name: {0: sizes[dynamic[name]]} if name in dynamic else None for name in input_names}
    # The exporter logs and warns about its own internals; what matters is checked by `check_graph`.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(input_names),
            output_names=list(output_names),
            dynamic_shapes=shapes,
            verbose=False,
        )
    GELU.apply_to_model(program.model)
    shape_behind_cast(program.model)
    return plain_proto(program.model)


def save_graph(proto: onnx.ModelProto, path: Path, half_storage: bool = True) -> None:
    """Write a graph, by default with the weights that are exact in float16 stored so; `proto` is not changed."""
    stored = proto
    if half_storage:
        stored = onnx.ModelProto()
        stored.CopyFrom(proto)
        store_half(stored)
    onnx.save(stored, str(path))


def plain_proto(model: ir.Model) -> onnx.ModelProto:
    """An exported model without the exporter's notes for its developers: source lines per node, shapes in between.

    They are a tenth of a small model's file, and name paths of the machine that exported it.
    """
    ClearMetadataAndDocStringPass()(model)
    for holder in (model, *model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        holder.metadata_props.clear()
        holder.doc_string = None
    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto


def check_for_tensorrt(path: Path, version: tuple[int, int] = MIN_TENSORRT) -> None:
    """ParityError unless the oldest TensorRT that builds plans, or another one, takes a graph; see the rules there."""
    try:
        require_rules(path, version, "report this with your torch version")
    except BundleError as error:
        raise ParityError(error.what, error.expected, error.hint) from error


def check_graph(path: Path, model: MMADFER) -> None:
    """onnx.checker, that the graph has the promised operators, names, types and shapes, and TensorRT's rules."""
    onnx.checker.check_model(str(path), full_check=True)
    graph = ir.load(path).graph
    opset = graph.opset_imports.get("")
    c = model.config
    # Each LayerNorm of the model runs once; "unused" ones are in a checkpoint only to keep the authors' layout, and a
    # temporal adaptor may run the fusion bottleneck's once more.
    norms = sum(isinstance(m, nn.LayerNorm) and "unused" not in name for name, m in model.named_modules())
    norms += sum(adaptor.is_inside for adaptor in model.adaptors)
    found_norms = sum(node.op_type == "LayerNormalization" for node in graph)
    inputs = [
        ("frames", ir.DataType.UINT8, [None, c.num_frames, c.image_size, c.image_size, 3]),
        ("mel", ir.DataType.FLOAT, [None, NUM_MEL_FRAMES, NUM_MEL_BINS]),
    ]
    outputs = [("logits", ir.DataType.FLOAT, [None, c.num_classes])]
    problems = [
        (opset != OPSET, f"opset {opset}, expected {OPSET}"),
        (any(node.domain not in ("", "ai.onnx") for node in graph), "operators outside the ONNX standard"),
        (found_norms != norms, f"{found_norms} LayerNormalization, expected {norms}"),
        (_signature(graph.inputs) != inputs, "other inputs"),
        (_signature(graph.outputs) != outputs, "other outputs"),
    ]
    if wrong := [text for bad, text in problems if bad]:
        raise ParityError(
            f"the exported graph has {'; '.join(wrong)}", "the bundle's contract", "report this with your torch version"
        )
    check_for_tensorrt(path)


def _signature(values: Sequence[ir.Value]) -> list[tuple[str, ir.DataType, list[int | None]]]:
    """(name, type, shape) per value; None for a dynamic dimension."""
    return [(v.name, v.dtype, [dim if isinstance(dim, int) else None for dim in v.shape]) for v in values]
