"""Tracing MMA-DFER into one ONNX graph with the contract's inputs and output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from mma_edge.bundle import golden_inputs
from mma_edge.errors import ParityError
from mma_export.rewrite import rewrite_gelu
from mma_export.weights import store_half
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel

OPSET = 18


def export_graph(model: MMADFER, path: Path) -> onnx.ModelProto:
    """Trace `model`, write the float32 graph to `path` and check the file; returns the graph, weights in float32.

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
    return trace_module(ContractModel(model), inputs, ("frames", "mel"), ("logits",), {"frames": 0, "mel": 0})


def trace_module(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: Sequence[str],
    output_names: Sequence[str],
    dynamic: dict[str, int],
) -> onnx.ModelProto:
    """A module as ONNX in memory, weights in float32, stripped and rewritten as every graph of a bundle.

    Args:
        inputs: example values, at least two long where they are dynamic.
        input_names: also of the arguments of its `forward`.
        dynamic: name of an input -> its dimension of any size; all these have the same size.
    """
    size = torch.export.Dim("N", min=1, max=1024)
    shapes = {name: {dynamic[name]: size} if name in dynamic else None for name in input_names}
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
    proto = program.model_proto
    strip(proto)
    rewrite_gelu(proto)
    return proto


def save_graph(proto: onnx.ModelProto, path: Path, half_storage: bool = True) -> None:
    """Write a graph; weights that are exact in float16 are stored so, unless told not to. `proto` is left alone."""
    stored = proto
    if half_storage:
        stored = onnx.ModelProto()
        stored.CopyFrom(proto)
        store_half(stored)
    onnx.save(stored, str(path))


def strip(proto: onnx.ModelProto) -> None:
    """Drop what the exporter notes for its developers (source lines per node): a tenth of a small model's file."""
    del proto.graph.value_info[:]
    for part in (
        proto,
        proto.graph,
        *proto.graph.node,
        *proto.graph.initializer,
        *proto.graph.input,
        *proto.graph.output,
    ):
        part.doc_string = ""
        del part.metadata_props[:]


def check_graph(path: Path, model: MMADFER) -> None:
    """onnx.checker, and that the graph has the promised operators, names, types and shapes."""
    onnx.checker.check_model(str(path), full_check=True)
    proto = onnx.load(str(path))
    domains = {entry.domain: entry.version for entry in proto.opset_import}
    operators = [node.op_type for node in proto.graph.node]
    c = model.config
    # Each of the model's runs once; "unused" ones are in the file for the authors' layout alone.
    norms = sum(isinstance(m, nn.LayerNorm) and "unused" not in name for name, m in model.named_modules())
    size = c.image_size
    problems = [
        (domains.get("") != OPSET, f"opset {domains.get('')}, expected {OPSET}"),
        (any(node.domain not in ("", "ai.onnx") for node in proto.graph.node), "operators outside the ONNX standard"),
        (
            operators.count("LayerNormalization") != norms,
            f"{operators.count('LayerNormalization')} LayerNormalization, expected {norms}",
        ),
        (
            _signature(proto.graph.input)
            != [
                ("frames", onnx.TensorProto.UINT8, [None, c.num_frames, size, size, 3]),
                ("mel", onnx.TensorProto.FLOAT, [None, 512, 128]),
            ],
            "other inputs",
        ),
        (
            _signature(proto.graph.output) != [("logits", onnx.TensorProto.FLOAT, [None, c.num_classes])],
            "other outputs",
        ),
    ]
    if wrong := [text for bad, text in problems if bad]:
        raise ParityError(
            f"the exported graph has {'; '.join(wrong)}", "the bundle's contract", "report this with your torch version"
        )


def _signature(values: list) -> list[tuple[str, int, list[int | None]]]:
    """(name, type, shape) per value; None for a dynamic dimension."""
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim],
        )
        for value in values
    ]
