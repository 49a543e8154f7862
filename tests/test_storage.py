"""Weights that are exact in half are stored in half, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import make_model
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mma_edge.bundle import golden_inputs
from mma_edge.engines.tensorrt.onnx_file import read_graph
from mma_export.graph import save_graph, trace
from mma_export.weights import store_half
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel
from mma_trainer.weights.checkpoint import Checkpoint, build_model
from mma_trainer.weights.folding import fold_stems


def linear(weight: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Add", ["m", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, weight.shape[1]])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.fixture
def weights() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 32)).astype(np.float32), rng.normal(size=32).astype(np.float32)


def test_half_exact_weights_take_half_the_bytes_and_give_the_same_bits(weights: tuple) -> None:
    weight, bias = weights
    model = linear(weight.astype(np.float16).astype(np.float32), bias)
    x = np.random.default_rng(1).normal(size=(5, 64)).astype(np.float32)
    before, size = run(model, x), model.ByteSize()
    saved = store_half(model)
    assert saved == weight.nbytes // 2 and size - saved * 0.9 > model.ByteSize()
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model, x), before)


def test_a_weight_that_half_would_round_or_overflow_stays_whole(weights: tuple) -> None:
    weight, bias = weights
    large = weight.astype(np.float16).astype(np.float32)
    large[3, 4] = 1e6
    for values in (weight, large):
        model = linear(values, bias)
        before = model.SerializeToString()
        assert store_half(model) == 0 and model.SerializeToString() == before


def test_few_numbers_are_not_worth_a_cast(weights: tuple) -> None:
    weight, bias = (array.astype(np.float16).astype(np.float32) for array in weights)
    model = linear(weight, bias)
    store_half(model)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {"w_half": TensorProto.FLOAT16, "b": TensorProto.FLOAT}


def test_a_released_model_without_batch_norms_gives_the_same_logits(tiny_model: MMADFER, tmp_path: Path) -> None:
    stems = {"image_patch": 16, "image_stem": (8, 16), "image_stem_blocks": (1, 0), "audio_stem": (4,)}
    model = make_model(tiny_model.config.replace(**stems))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 2.0)
    released = fold_stems(Checkpoint(model.config, model.state_dict()), "model")
    assert released.config.stem_norm == "none" and not any("running" in key for key in released.state_dict)
    frames, mel = (torch.from_numpy(array) for array in golden_inputs(0, model.config.image_size, clips=2))
    with torch.no_grad():
        expected, found = (ContractModel(m.eval())(frames, mel) for m in (model, build_model(released, "released")))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert fold_stems(released, "released") is released
    # Rounded to float16, its convolutions are stored so.
    save_graph(trace(build_model(released, "released").half().float()), tmp_path / "g.onnx")
    graph = read_graph(tmp_path / "g.onnx")
    assert len(graph.half_kernels()) == sum(node.op_type == "Conv" for node in graph.nodes) - 2  # two are too small


def test_the_shipped_graph_is_stored_in_half() -> None:
    shipped = onnx.load(str(Path(__file__).parents[1] / "mma_edge" / "assets" / "default" / "model.fp32.onnx"))
    halves = [t for t in shipped.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert len(halves) > 50
