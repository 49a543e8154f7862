"""Weights that are exact in half are stored in half, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mma_export.weights import store_half


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


def test_the_shipped_graph_is_stored_in_half() -> None:
    shipped = onnx.load(str(Path(__file__).parents[1] / "mma_edge" / "assets" / "default" / "model.fp32.onnx"))
    halves = [t for t in shipped.graph.initializer if t.data_type == TensorProto.FLOAT16]
    assert len(halves) > 50
