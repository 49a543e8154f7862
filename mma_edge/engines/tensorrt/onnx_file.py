"""What an ONNX file says of its graph: operators, names and types; and the file as TensorRT's parser takes it.

Read and written by hand: the package onnx would be 17 MB more on every board for the few fields that matter here. The
numbers of fields and types are those of onnx.proto3, which never change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
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
_FLOAT = 1
_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # fields of the model and of its graph
_STANDARD = ("", "ai.onnx")
_FIXED_BYTES = {1: 8, 5: 4}  # by the kind of a field


@dataclass(frozen=True)
class Constant:
    """An initializer."""

    type: str
    data: memoryview | None = None  # its bytes; None where they are in another file, or stored in another way
    elsewhere: tuple[str, int, int] | None = None  # file beside this one, offset and length of the bytes

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
    shapes: dict[str, tuple[int | str, ...]]  # of inputs and outputs; a size that is free by its name
    types: dict[str, str]  # the same

    def half_kernels(self) -> dict[str, str]:
        """Weights and biases of convolutions that are stored in float16, behind a Cast -> the Cast's result."""
        wanted = {name for node in self.nodes if node.op_type == "Conv" for name in node.inputs[1:]}
        casts = (node for node in self.nodes if node.op_type == "Cast" and node.outputs[0] in wanted)
        stored = self.constants
        return {
            c.inputs[0]: c.outputs[0] for c in casts if c.inputs[0] in stored and stored[c.inputs[0]].type == "float16"
        }

    def with_whole_kernels(self) -> Graph:
        """The graph of `whole_kernels`."""
        made = self.half_kernels()
        constants = {
            made.get(name, name): Constant("float") if name in made else c for name, c in self.constants.items()
        }
        nodes = tuple(node for node in self.nodes if node.outputs[:1] not in [(name,) for name in made.values()])
        return replace(self, constants=constants, nodes=nodes)


def whole_kernels(path: Path) -> bytes | None:
    """The content of an ONNX file in which weights of convolutions that it stores in float16 are constants in float32.

    A Cast of a constant is none to TensorRT's parser, which takes such a convolution for one whose weights change. None
    where there is nothing to change. Errors as of `read_graph`.
    """
    data, made = _mapped(path), read_graph(path).half_kernels()
    if not made:
        return None
    content = bytearray()
    for number, value, raw in _entries(data):
        if number != _GRAPH:
            content += raw
            continue
        graph = bytearray()
        for part, inner, same in _entries(value):
            if part == _INITIALIZER and (name := _text(dict(_fields(inner))[8])) in made:
                graph += _field(_INITIALIZER, _widened(inner, made[name], path))
            elif part != _NODE or _node(inner).outputs[0] not in made.values():
                graph += same
        content += _field(_GRAPH, graph)
    return bytes(content)


def read_graph(path: Path) -> Graph:
    """The graph of an ONNX file; ValueError where it is none. OSError: the file cannot be read."""
    return graph_in(_mapped(path), str(path))


def graph_in(data: memoryview, name: str) -> Graph:
    """The graph in the content of an ONNX file; `name` is the file's in the ValueError where it is none."""
    try:
        opset, graph = 0, None
        for number, value in _fields(data):
            if number == _GRAPH:
                graph = value
            elif number == 8:
                entry = dict(_fields(value))
                opset = entry.get(2, 0) if _text(entry.get(1, b"")) in _STANDARD else opset
        return _graph(graph, opset)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name} is not an ONNX graph") from error


def _mapped(path: Path) -> memoryview:
    """The file, mapped, not read: nine tenths of it are weights."""
    return memoryview(np.memmap(path, np.uint8, "r")) if path.stat().st_size else memoryview(b"")


def _graph(data: memoryview, opset: int) -> Graph:
    nodes, constants, types, shapes, outputs = [], {}, {}, {}, []
    for number, value in _fields(data):
        if number == _NODE:
            nodes.append(_node(value))
        elif number == _INITIALIZER:
            name, constants[name] = _constant(value)
        elif number in (11, 12):  # an input or an output
            entry = dict(_fields(value))
            tensor, name = dict(_fields(dict(_fields(entry[2]))[1])), _text(entry[1])
            types[name], shapes[name] = TYPES[tensor[1]], _shape(tensor.get(2, b""))
            outputs += [name] if number == 12 else []
    inputs = {name: kind for name, kind in types.items() if name not in {*constants, *outputs}}
    return Graph(opset, inputs, tuple(outputs), constants, tuple(nodes), shapes, types)


def _shape(data: memoryview | bytes) -> tuple[int | str, ...]:
    sizes = (dict(_fields(size)) for _, size in _fields(data))
    return tuple(size[1] if 1 in size else _text(size.get(2, b"")) for size in sizes)


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
    pairs = [dict(_fields(value)) for number, value in _fields(data) if number == 13]
    place = {_text(pair[1]): _text(pair[2]) for pair in pairs}
    elsewhere = (place["location"], int(place.get("offset", 0)), int(place["length"])) if "length" in place else None
    # As raw bytes, or small integers one by one, of which a zero is a zero byte.
    return _text(entry[8]), Constant(TYPES[entry[2]], entry.get(9, entry.get(5)), elsewhere)


def _widened(tensor: memoryview, name: str, path: Path) -> bytes:
    """A float16 initializer of the file `path` as one in float32, of another name."""
    _, constant = _constant(tensor)
    if constant.elsewhere:
        file, offset, length = constant.elsewhere
        data = _mapped(path.parent / file)[offset : offset + length]
    else:
        data = constant.data
    values = np.frombuffer(data, "<f2").astype("<f4")
    shape = b"".join(raw for number, _, raw in _entries(tensor) if number == 1)
    return shape + bytes((2 << 3, _FLOAT)) + _field(8, name.encode()) + _field(9, values.tobytes())


def _field(number: int, content: bytes | bytearray) -> bytes:
    """A field of a protobuf message that holds bytes."""
    size, length = len(content), bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    return bytes((number << 3 | 2, *length, size)) + bytes(content)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and content of each field of a protobuf message: an integer, or bytes."""
    for number, value, _ in _entries(data):
        yield number, value


def _entries(data: memoryview) -> Iterator[tuple[int, int | memoryview, memoryview]]:
    """Number, content and all bytes of each field."""
    at = 0
    while at < len(data):
        start = at
        key, at = _integer(data, at)
        if key & 7 == 0:
            value, at = _integer(data, at)
        else:
            size, at = _integer(data, at) if key & 7 == 2 else (_FIXED_BYTES[key & 7], at)
            value, at = data[at : at + size], at + size
            if at > len(data):
                raise IndexError("the file ends inside a field")
        yield key >> 3, value, data[start:at]


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
