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

from mma_edge.engines.tensorrt.onnx_file import read_graph, whole_kernels
from mma_edge.engines.tensorrt.target import Target
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


def layers_of(target: Target) -> Layers:
    """What the file beside a plan says; BundleError where it is missing, damaged or of an older build."""
    path = target.layers
    try:
        layers = json.loads(path.read_text(encoding="utf-8"))["Layers"]
        fused = sum(FUSED in json.dumps(layer).lower() for layer in layers)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"build the plan again: {target.command} --overwrite"
        raise BundleError(f"{path} does not tell the plan's layers", "what mma-edge build wrote", hint) from error
    nodes = read_graph(target.graph).nodes
    return Layers(len(layers), fused, sum(node.op_type in ("Softmax", "Attention") for node in nodes))


def trtexec_line(target: Target, builder: dict[str, Any]) -> str:
    """The command of NVIDIA's own tool that builds the same, for reports to them; or why it cannot.

    `builder` is of the sidecar: the fields of `BuildOptions`. trtexec gets our first profile alone.
    """
    graph = target.graph
    if whole_kernels(graph):
        return f"trtexec does not read {graph.name}: weights of its convolutions are stored in float16 behind a Cast"
    profile = target.profiles(builder["max_batch"])[0]
    shapes = [
        f"--{name}Shapes=" + ",".join(f"{key}:{'x'.join(map(str, sizes[at]))}" for key, sizes in profile.items())
        for at, name in enumerate(("min", "opt", "max"))
    ]
    level = builder["optimization_level"]
    softmax = [node for node in read_graph(graph).nodes if node.op_type == "Softmax"] if builder.get("unfused") else []
    apart = [name for node in softmax for name in (node.inputs[0], node.outputs[0])]
    options = [
        f"--onnx={graph}",
        f"--saveEngine={target.plan.with_suffix('.trtexec.plan')}",
        "--stronglyTyped",
        "--noTF32",
        *shapes,
        f"--memPoolSize=workspace:{builder['workspace_mib']}",
        *([] if level is None else [f"--builderOptimizationLevel={level}"]),
        *([f"--markDebug={','.join(apart)}"] if apart else []),
        "--profilingVerbosity=detailed",
    ]
    return shlex.join(["trtexec", *options])
