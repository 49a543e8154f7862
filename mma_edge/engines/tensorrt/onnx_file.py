"""What an ONNX file says of its graph: operators, names and types, without the weights.

Read by hand: the package onnx would be 17 MB more on every board for the few fields that `rules` asks for. The numbers
of fields and types are those of onnx.proto3, which never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# fmt: off
TYPES = dict(enumerate((
    "undefined", "float", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "double",
    "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2",
    "float8e5m2fnuz", "uint4", "int4", "float4e2m1",
)))
# fmt: on
"""TensorProto.DataType by number."""
_STANDARD = ("", "ai.onnx")
_FIXED_BYTES = {1: 8, 5: 4}  # by the kind of a field


@dataclass(frozen=True)
class Constant:
    """An initializer."""

    type: str
    data: memoryview | None  # its bytes; None where they are in another file, or stored in another way

    @property
    def is_zero(self) -> bool:
        """Whether all its values are known to be zero."""
        return self.data is not None and not np.any(self.data)


@dataclass(frozen=True)
class Node:
    """An operator of the graph; one from outside the ONNX standard is called "domain::Name"."""

    name: str
    op_type: str
    inputs: tuple[str, ...]  # "" for one that is left out
    outputs: tuple[str, ...]
    attributes: dict[str, int]  # an integer's value, the number of a tensor's type; others are 0


@dataclass(frozen=True)
class Graph:
    """A graph by the names of its tensors."""

    opset: int
    inputs: dict[str, str]  # name -> type; constants are not among them
    outputs: tuple[str, ...]
    constants: dict[str, Constant]
    nodes: tuple[Node, ...]  # in the file's order


def read_graph(path: Path) -> Graph:
    """The graph of an ONNX file; ValueError where it is none. OSError: the file cannot be read."""
    # Mapped, not read: nine tenths of it are weights.
    data = memoryview(np.memmap(path, np.uint8, "r")) if path.stat().st_size else memoryview(b"")
    try:
        opset, graph = 0, None
        for number, value in _fields(data):
            if number == 7:
                graph = value
            elif number == 8:
                entry = dict(_fields(value))
                opset = entry.get(2, 0) if _text(entry.get(1, b"")) in _STANDARD else opset
        return _graph(graph, opset)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not an ONNX graph") from error


def _graph(data: memoryview, opset: int) -> Graph:
    nodes, constants, inputs, outputs = [], {}, {}, []
    for number, value in _fields(data):
        if number == 1:
            nodes.append(_node(value))
        elif number == 5:
            name, constants[name] = _constant(value)
        elif number == 11:
            entry = dict(_fields(value))
            tensor = dict(_fields(dict(_fields(entry[2]))[1]))
            inputs[_text(entry[1])] = TYPES[tensor[1]]
        elif number == 12:
            outputs.append(_text(dict(_fields(value))[1]))
    inputs = {name: kind for name, kind in inputs.items() if name not in constants}
    return Graph(opset, inputs, tuple(outputs), constants, tuple(nodes))


def _node(data: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    attributes = {}
    for number, value in _fields(data):
        if number in texts:
            texts[number].append(_text(value))
        elif number == 5:
            entry = dict(_fields(value))
            tensor = dict(_fields(entry[5])) if 5 in entry else {}
            attributes[_text(entry[1])] = entry.get(3, tensor.get(2, 0))
    inputs, outputs = tuple(texts[1]), tuple(texts[2])
    domain, op_type = "".join(texts[7]), "".join(texts[4])
    op_type = op_type if domain in _STANDARD else f"{domain}::{op_type}"
    return Node("".join(texts[3]) or next(iter(outputs), ""), op_type, inputs, outputs, attributes)


def _constant(data: memoryview) -> tuple[str, Constant]:
    """The name of an initializer, and what is kept of it."""
    entry = dict(_fields(data))
    # As raw bytes, or small integers one by one, of which a zero is a zero byte.
    return _text(entry[8]), Constant(TYPES[entry[2]], entry.get(9, entry.get(5)))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and content of each field of a protobuf message: an integer, or bytes."""
    at = 0
    while at < len(data):
        key, at = _integer(data, at)
        if key & 7 == 0:
            value, at = _integer(data, at)
        else:
            size, at = _integer(data, at) if key & 7 == 2 else (_FIXED_BYTES[key & 7], at)
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise IndexError("the file ends inside a field")
        yield key >> 3, value


def _integer(data: memoryview, at: int) -> tuple[int, int]:
    """The integer that starts at a place, seven bits a byte, and the place behind it."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _text(data: memoryview | bytes) -> str:
    return bytes(data).decode()
