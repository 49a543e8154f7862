"""What a TensorRT plan is built from, and how: a graph of a bundle, the sizes that it takes, and the user's choices."""

from __future__ import annotations

import functools
import shlex
from dataclasses import dataclass
from pathlib import Path

from mma_edge.bundle import ENGINES, Bundle
from mma_edge.clip import NUM_FRAMES, input_shapes
from mma_edge.engines.base import INPUTS, OUTPUT
from mma_edge.engines.tensorrt.onnx_file import read_graph
from mma_edge.errors import BundleError, UsageError

TUNED_BATCHES = (1, 4, 16)
"""Numbers of clips that a plan has kernels of their own for, beside its largest."""
NEW_FRAMES = 2
"""Of a face in an update: at the default hop of 0.5 s, of a window's 16 frames in 4 s. A plan is tuned for so many."""
Shape = tuple[int | str, ...]
Profile = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Input -> its smallest, most likely and largest shape."""


@dataclass(frozen=True)
class BuildOptions:
    """The user's choices for a build."""

    max_batch: int = 4  # clips that run at once; a larger batch runs in parts
    workspace_mib: int | None = None  # scratch memory of a kernel; None: at most 512 MiB on a Jetson, 4 GiB elsewhere
    optimization_level: int | None = None  # 0 (short build) to 5 (long, may run faster); None: TensorRT's own default
    unfused: bool = False  # attention by kernels of its own for each product and the Softmax: slower, and more memory

    def __post_init__(self) -> None:
        if not 1 <= self.max_batch <= 256:
            raise UsageError(f"--max-batch {self.max_batch}", "1 to 256")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UsageError(f"--workspace {self.workspace_mib}", "at least 1 MiB")
        if self.optimization_level not in (None, *range(6)):
            raise UsageError(f"--optimization-level {self.optimization_level}", "0 to 5")


@dataclass(frozen=True)
class Tensor:
    """An input or output of a graph: its type as numpy calls it, and its shape; a size that is free by its name."""

    kind: str
    shape: Shape

    def sized(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """The shape with these sizes in the place of the names."""
        return tuple(sizes.get(size, size) for size in self.shape)


@dataclass(frozen=True, eq=False)
class Target:
    """A graph of a bundle in a precision: the whole model, or a part for `--streaming`.

    BundleError from all that needs the graph where the bundle does not offer the mode on TensorRT.

    Attributes:
        mode: of `--streaming`; None: the whole model.
        part: one of the mode's `Parts.files`; None: the whole model.
    """

    bundle: Bundle
    precision: str
    mode: str | None = None
    part: str | None = None

    @property
    def name(self) -> str:
        """Of the plan's files in BUNDLE/engines, without their suffix: fp16, fp16.rolling.stem, fp16.rolling.rest."""
        return ".".join(filter(None, (self.precision, self.mode, self.part)))

    @property
    def plan(self) -> Path:
        return self._beside(".plan")

    @property
    def sidecar(self) -> Path:
        return self._beside(".json")

    @property
    def layers(self) -> Path:
        """What TensorRT says of the plan's layers."""
        return self._beside(".layers.json")

    @property
    def command(self) -> str:
        """The command that builds the plan."""
        command = f"mma-edge build {shlex.quote(str(self.bundle.folder))} --precision {self.precision}"
        return f"{command} --streaming {self.mode}" if self.mode else command

    @functools.cached_property
    def graph(self) -> Path:
        if self.mode is None:
            return self.bundle.tensorrt_graph(self.precision)
        return self.bundle.folder / self.bundle.parts("tensorrt", self.precision, self.mode).files[self.part]

    @property
    def sha256(self) -> str:
        """Of the graph with its weights."""
        bundle, graph = self.bundle, self.graph
        return bundle.onnx_sha256(graph) if self.mode is None else bundle.part_sha256(graph.name)

    @property
    def size_bytes(self) -> int:
        """Of the graph with its weights."""
        if self.mode is None:
            return self.bundle.size_bytes(self.graph)
        elsewhere = (constant.elsewhere for constant in read_graph(self.graph).constants.values())
        return self.graph.stat().st_size + sum(place[2] for place in elsewhere if place)

    @functools.cached_property
    def inputs(self) -> dict[str, Tensor]:
        if self.mode is None:  # the contract, whatever the file says
            shapes = input_shapes(self.bundle.image_size)
            return {name: Tensor(INPUTS[name], ("N", *shape)) for name, shape in shapes.items()}
        graph = read_graph(self.graph)
        return {name: _tensor(kind, graph.shapes[name]) for name, kind in graph.inputs.items()}

    @functools.cached_property
    def outputs(self) -> dict[str, Tensor]:
        if self.mode is None:
            return {OUTPUT: Tensor("float32", ("N", len(self.bundle.labels)))}
        graph = read_graph(self.graph)
        return {name: _tensor(graph.types[name], graph.shapes[name]) for name in graph.outputs}

    def sizes(self, clips: int, frames: int) -> dict[str, int]:
        """The graph's free sizes for a number of clips and of single frames."""
        names = {size for tensor in self.inputs.values() for size in tensor.shape if isinstance(size, str)}
        of_clips = {tensor.shape[0] for name, tensor in self.inputs.items() if name in ("mel", "heard")}
        return {name: clips if name in of_clips else frames for name in names}

    def largest(self, max_batch: int) -> dict[str, int]:
        """The free sizes at their largest, in a plan for `max_batch` clips."""
        return self.sizes(max_batch, NUM_FRAMES * max_batch)

    def profiles(self, max_batch: int) -> list[Profile]:
        """Shapes of the inputs for 1 to max_batch clips, tuned for max_batch, then the same for each smaller of
        TUNED_BATCHES.

        The first holds every batch, because Triton uses the first unless told otherwise. A run takes the last that
        holds its batch.
        """
        numbers = sorted({max_batch, *(count for count in TUNED_BATCHES if count < max_batch)}, reverse=True)
        limits = [(self.sizes(1, 1), self.sizes(most, NEW_FRAMES * most), self.largest(most)) for most in numbers]
        return [
            {name: tuple(tensor.sized(sizes) for sizes in three) for name, tensor in self.inputs.items()}
            for three in limits
        ]

    def _beside(self, suffix: str) -> Path:
        return self.bundle.folder / ENGINES / (self.name + suffix)


def targets_of(bundle: Bundle, precision: str, mode: str | None = None) -> tuple[Target, ...]:
    """The whole model, or the parts of a mode: plans that are built and judged together."""
    if mode is None:
        return (Target(bundle, precision),)
    try:
        parts = tuple(bundle.parts("tensorrt", precision, mode).files)
    except BundleError:  # said by whatever needs the graphs
        parts = "stem", "rest"
    return tuple(Target(bundle, precision, mode, part) for part in parts)


def _tensor(kind: str, shape: Shape) -> Tensor:
    return Tensor({"float": "float32"}.get(kind, kind), shape)
