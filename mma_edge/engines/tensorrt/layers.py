"""What TensorRT made of a graph: its layers, whether attention was fused, and the trtexec line that builds the same.

In a strongly typed network attention is fused only where its products and its Softmax suit a kernel of TensorRT's;
nothing else says whether they did. Fused, its scores never leave the chip: for a ViT-B at 224 pixels they are 31.6 MB
per layer and clip.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from mma_edge.bundle import Bundle
from mma_edge.engines.tensorrt.onnx_file import read_graph, whole_kernels
from mma_edge.engines.tensorrt.plan import build_command, layers_path, plan_path, profiles_of
from mma_edge.errors import BundleError

FUSED = "mha"
"""Part of the name of each of TensorRT's kernels of fused attention, e.g. `_gemm_mha_v2`."""


@dataclass(frozen=True)
class Layers:
    """Of a plan: its layers, those that are fused attention, and the Softmax nodes of its graph, one per attention."""

    total: int
    fused: int
    attentions: int

    def __str__(self) -> str:
        return f"{self.total} layers, attention fused in {self.fused} of {self.attentions} places"


def layers_of(bundle: Bundle, precision: str) -> Layers:
    """What the file beside a plan says; BundleError where it is missing, damaged or of an older build."""
    path = layers_path(bundle, precision)
    try:
        layers = json.loads(path.read_text(encoding="utf-8"))["Layers"]
        fused = sum(FUSED in json.dumps(layer).lower() for layer in layers)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"build the plan again: {build_command(bundle, precision)} --overwrite"
        raise BundleError(f"{path} does not tell the plan's layers", "what mma-edge build wrote", hint) from error
    nodes = read_graph(bundle.tensorrt_graph(precision)).nodes
    return Layers(len(layers), fused, sum(node.op_type in ("Softmax", "Attention") for node in nodes))


def trtexec_line(bundle: Bundle, precision: str, builder: dict[str, Any]) -> str:
    """The command of NVIDIA's own tool that builds the same, for reports to them; or why it cannot.

    `builder` is of the sidecar: max_batch, workspace_mib, optimization_level. trtexec gets our first profile alone.
    """
    graph = bundle.tensorrt_graph(precision)
    if whole_kernels(graph):
        return f"trtexec does not read {graph.name}: weights of its convolutions are stored in float16 behind a Cast"
    profile = profiles_of(bundle, builder["max_batch"])[0]
    shapes = [
        f"--{name}Shapes=" + ",".join(f"{key}:{'x'.join(map(str, sizes[at]))}" for key, sizes in profile.items())
        for at, name in enumerate(("min", "opt", "max"))
    ]
    level = builder["optimization_level"]
    options = [
        f"--onnx={graph}",
        f"--saveEngine={plan_path(bundle, precision).with_suffix('.trtexec.plan')}",
        "--stronglyTyped",
        "--noTF32",
        *shapes,
        f"--memPoolSize=workspace:{builder['workspace_mib']}",
        *([] if level is None else [f"--builderOptimizationLevel={level}"]),
        "--profilingVerbosity=detailed",
    ]
    return shlex.join(["trtexec", *options])
