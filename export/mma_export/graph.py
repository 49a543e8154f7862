"""Tracing MMA-DFER into one ONNX graph with the contract's inputs and output."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import onnx
import torch

from mma_edge.bundle import golden_inputs
from mma_edge.errors import ParityError
from mma_export.storage import store_half
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel

OPSET = 18


def export_graph(model: MMADFER, path: Path) -> None:
    """Write `model` to `path` as ONNX opset 18, batch dimension dynamic, and check the file.

    Inputs `frames` uint8 (N, 16, S, S, 3) and `mel` float32 (N, 512, 128); output `logits` (N, C).
    Attention is decomposed into matmuls and Softmax; LayerNormalization stays one operator.

    Raises:
        ParityError: the file does not have that shape.
    """
    contract = ContractModel(model).eval()
    # Two clips, because a batch of one would be taken for a constant.
    frames, mel = (torch.from_numpy(array) for array in golden_inputs(0, model.config.image_size, clips=2))
    batch = torch.export.Dim("N", min=1, max=1024)
    # The exporter logs and warns about its own internals; what matters is checked below.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            contract,
            (frames, mel),
            dynamo=True,
            opset_version=OPSET,
            input_names=["frames", "mel"],
            output_names=["logits"],
            dynamic_shapes={"frames": {0: batch}, "mel": {0: batch}},
            verbose=False,
        )
    proto = program.model_proto
    strip(proto)
    store_half(proto)
    onnx.save(proto, str(path))
    check_graph(path, model)


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
    norms = sum(isinstance(m, torch.nn.LayerNorm) and "unused" not in name for name, m in model.named_modules())
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
