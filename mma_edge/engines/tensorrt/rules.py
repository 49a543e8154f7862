"""What TensorRT's ONNX parser takes, so that a graph which it refuses is named before a board has to.

Facts from onnx/onnx-tensorrt: docs/operators.md of 10.15 (operators, types, restrictions), ModelImporter.cpp of 10.15
(uint8), the Conv of builtin_op_importers.cpp (weights), docs/Changelog.md up to 10.15 (what is newer than 10.0); and
that only a Cast may read a uint8 input: NVIDIA/TensorRT issue 3985. The newest opset: operators.md of 10.0, which was
still that of 10.8 (NVIDIA/TensorRT issue 4336); the Attention that came with 10.14; operators.md of 10.15; the release
notes of 11.5. Where a version's own limit is not known, that of the version before it counts; types of 10.15 that may
be newer than 10.3 are left out (integers in Pow and in reductions).

Only what our graphs use is here; any other operator is refused by its name. JetPack 6.1 and 6.2 have TensorRT 10.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mma_edge.engines.tensorrt.onnx_file import TYPES, Graph, Node, read_graph
from mma_edge.errors import BundleError

Version = tuple[int, int]

FLOATS = ("float", "float16", "bfloat16")
NUMBERS = (*FLOATS, "int32", "int64")
ANYTHING = (*NUMBERS, "bool")
MIN_OPSET = 9
MAX_OPSET: dict[Version, int] = {(10, 0): 20, (10, 14): 23, (10, 15): 24, (11, 5): 25}
"""TensorRT's version -> the newest opset from that version on."""
MAX_NAMED = 3
"""How many broken rules a message names."""


@dataclass(frozen=True)
class Operator:
    """What TensorRT takes of an operator.

    Attributes:
        types: of its first input.
        constants: numbers of the inputs that must be constants of the file.
        since: the first version that has it.
    """

    types: tuple[str, ...] = FLOATS
    constants: tuple[int, ...] = ()
    since: Version = (10, 0)


OPERATORS = {
    **dict.fromkeys(("Abs", "Add", "Div", "Max", "Min", "Mul", "Neg", "Sub"), Operator(NUMBERS)),
    **dict.fromkeys(("Equal", "Greater", "Less"), Operator(NUMBERS)),
    **dict.fromkeys(("Clip", "Erf", "Exp", "Log", "Pow", "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Tanh"), Operator()),
    **dict.fromkeys(("Gemm", "LayerNormalization", "MatMul", "Softmax"), Operator()),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), Operator(constants=(1,))),
    **dict.fromkeys(("Concat", "Expand", "Flatten", "Gather", "Identity", "Reshape"), Operator(ANYTHING)),
    **dict.fromkeys(("Shape", "Slice", "Split", "Transpose"), Operator(ANYTHING)),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), Operator(ANYTHING, constants=(1,))),
    "Attention": Operator(since=(10, 14)),
    "Cast": Operator((*ANYTHING, "uint8")),
    "Constant": Operator(),
    "Conv": Operator(constants=(1, 2)),
    "DequantizeLinear": Operator(("int8", "float8e4m3fn")),
    "QuantizeLinear": Operator(),
    "Where": Operator(("bool",)),
}


@dataclass(frozen=True)
class BrokenRule:
    """What TensorRT would refuse: where ("" for the whole graph) and why."""

    node: str
    op_type: str
    rule: str

    def __str__(self) -> str:
        return f"node {self.node} ({self.op_type}) {self.rule}" if self.node else self.rule


def require_rules(path: Path, version: Version, hint: str) -> None:
    """BundleError where TensorRT of this version, (major, minor), would refuse an ONNX file; it names nodes and rules.

    The build hands it the weights of convolutions in float32, see `whole_kernels`; so do the rules.

    OSError: the file cannot be read.
    """
    try:
        broken = list(broken_rules(read_graph(path).with_whole_kernels(), version))
    except ValueError as error:
        raise BundleError(str(error), "an ONNX graph", hint) from error
    if broken:
        more = f"; and {len(broken) - MAX_NAMED} more" if len(broken) > MAX_NAMED else ""
        named = "; ".join(map(str, broken[:MAX_NAMED])) + more
        raise BundleError(f"TensorRT {version[0]}.{version[1]} does not take {path}: {named}", hint=hint)


def require_softmax(path: Path) -> None:
    """BundleError where attention is one operator of an ONNX file, so that TensorRT cannot be kept from fusing it."""
    if any(node.op_type == "Attention" for node in read_graph(path).nodes):
        what = f"{path} has ONNX's Attention, which is fused whatever --unfused says"
        raise BundleError(what, "a graph with Softmax", "export it again without --fused-attention")


def broken_rules(graph: Graph, version: Version) -> Iterator[BrokenRule]:
    """Everything in a graph that TensorRT of a version would refuse, in the graph's order."""
    newest = [opset for since, opset in MAX_OPSET.items() if since <= version][-1]
    if not MIN_OPSET <= graph.opset <= newest:
        yield BrokenRule("", "", f"it has opset {graph.opset}, and opsets {MIN_OPSET} to {newest} are taken")
    types = {**graph.inputs, **{name: constant.type for name, constant in graph.constants.items()}}
    made_by: dict[str, str] = dict.fromkeys(graph.constants, "Constant")
    for node in graph.nodes:
        result = _type_of_result(node, types)
        types |= dict.fromkeys(node.outputs, result)
        made_by |= dict.fromkeys(node.outputs, node.op_type)
        for rule in _broken_by(node, version, graph, types, made_by):
            yield BrokenRule(node.name, node.op_type, rule)


def _broken_by(
    node: Node, version: Version, graph: Graph, types: dict[str, str | None], made_by: dict[str, str]
) -> Iterator[str]:
    """The rules that a node breaks, in words; `types` and `made_by` know its inputs and outputs."""
    operator = OPERATORS.get(node.op_type)
    if operator is None or operator.since > version:
        since = f" before TensorRT {operator.since[0]}.{operator.since[1]}" if operator else ""
        yield f"is an operator that is not known to be supported{since}"
        return
    first = types.get(node.inputs[0]) if node.inputs else None
    bytes_ = [name for name in node.inputs if types.get(name) == "uint8" and node.op_type != "Cast"]
    if bytes_:
        yield f"reads {bytes_[0]}, which is uint8: that may go into a Cast and nowhere else"
    elif first is not None and first not in operator.types:
        yield f"reads {node.inputs[0]} of type {first}: {', '.join(operator.types)} are taken"
    for name in node.outputs:
        if types[name] == "uint8" and name not in graph.outputs:
            yield f"makes {name}, which is uint8: only inputs and outputs of the graph may be"
        elif node.op_type == "Cast" and types[name] not in operator.types:
            yield f"casts to {types[name]}: {', '.join(operator.types)} are taken"
    for index in operator.constants:
        name = node.inputs[index] if index < len(node.inputs) else ""
        source = made_by.get(name, "an input") if name else "Constant"
        # Quantised weights are constants too, behind their scales.
        if source != "Constant" and (node.op_type, index, source) != ("Conv", 1, "DequantizeLinear"):
            yield f"reads {name}, which {source} makes: it must be a constant of the file"
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.inputs) > 2:
        zero_point = graph.constants.get(node.inputs[2])
        if zero_point is None or not zero_point.is_zero:
            yield f"has the zero point {node.inputs[2]}: it must be the constant 0"
    if node.op_type == "LayerNormalization" and len(node.outputs) > 1:
        yield "has more than one output: only the first is supported"


def _type_of_result(node: Node, types: dict[str, str | None]) -> str | None:
    """The type of what a node makes; None where it cannot be told."""
    if fixed := {"Shape": "int64", "Equal": "bool", "Greater": "bool", "Less": "bool"}.get(node.op_type):
        return fixed
    if node.op_type in ("Cast", "Constant"):
        return TYPES.get(node.attributes.get("to" if node.op_type == "Cast" else "value", 0))
    if node.op_type == "QuantizeLinear":
        # ONNX: without a zero point the result is uint8.
        return types.get(node.inputs[2]) if len(node.inputs) > 2 else "uint8"
    place = 1 if node.op_type in ("DequantizeLinear", "Where") else 0
    return types.get(node.inputs[place]) if place < len(node.inputs) else None
