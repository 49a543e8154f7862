"""The part of a build that the system may kill: `python -m mma_edge.engines.tensorrt.child REQUEST`.

TensorRT takes gigabytes while it tries kernels, and a Jetson's GPU shares its memory with the processor; when memory
runs out, the system kills the process. So this part runs in its own process, which tells its parent (`build`) in JSON
lines what it is doing, and leaves a plan that has passed the gate, or nothing.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mma_edge.bundle import read_bundle
from mma_edge.child import Tell, serve
from mma_edge.engines.gpu.open import open_device_memory
from mma_edge.engines.machine import available_memory, cuda_devices, is_jetson
from mma_edge.engines.tensorrt.engine import TensorRTEngine, TensorRTPart, require_tensorrt
from mma_edge.engines.tensorrt.gate import check_engine, check_parts
from mma_edge.engines.tensorrt.onnx_file import whole_kernels
from mma_edge.engines.tensorrt.plan import Plan, make_logger, make_sidecar, this_machine, timings_path
from mma_edge.engines.tensorrt.target import BuildOptions, Target, targets_of
from mma_edge.errors import BackendError, BundleError
from mma_edge.files import replaced

if TYPE_CHECKING:
    import tensorrt as trt

MIB = 1 << 20
WORKSPACE_MIB, JETSON_WORKSPACE_MIB = 4096, 512
"""Scratch memory that one kernel may use; on a Jetson it is also the processor's memory."""
SPARE_BYTES = 256 * MIB
MAX_NAMED_ERRORS = 3


def build(request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Compile, gate; returns what is written beside the plans, which lie at request["partials"]."""
    bundle, precision, mode = read_bundle(request["bundle"]), request["precision"], request["mode"]
    trt, targets = require_tensorrt(), targets_of(bundle, precision, mode)
    asked, plans = BuildOptions(**request["options"]), []
    for target, path in zip(targets, map(Path, request["partials"]), strict=True):
        options = replace(asked, workspace_mib=_workspace(target, asked.workspace_mib))
        path.write_bytes(compile_plan(trt, target, options, tell))
        sidecar = make_sidecar(target, this_machine(trt), path, options, {})
        plans.append(Plan(target, path, path.read_bytes(), options.max_batch, sidecar))

    tell({"phase": "gate", "steps": 0})
    engines: list[TensorRTEngine | TensorRTPart] = []
    try:
        engines += [TensorRTPart(plan) if mode else TensorRTEngine(plan) for plan in plans]
        with np.load(request["clips"]) as inputs:
            arrays = dict(inputs)
        if mode:
            gate = check_parts(targets, engines, arrays, asked, tell)
        else:
            gate = check_engine(targets[0], engines[0], arrays, asked, tell) | {"details": engines[0].details}
        layers = [engine.layer_information() for engine in engines]
    finally:
        for engine in engines:
            engine.close()
    gate["plans"] = [plan.sidecar["plan_sha256"] for plan in plans]
    return {"sidecars": [{**plan.sidecar, "gate": gate} for plan in plans], "layers": layers}


def compile_plan(trt, target: Target, options: BuildOptions, tell: Tell) -> bytes:
    """The serialised engine of one of the bundle's graphs.

    Raises:
        BundleError: TensorRT cannot read the graph; the message names the first nodes that it refuses.
        BackendError: TensorRT cannot build an engine here.
    """
    logger = make_logger(trt)
    builder: trt.Builder = trt.Builder(logger)
    network: trt.INetworkDefinition = _parse(trt, builder, logger, target.graph, tell)
    if options.unfused:
        _keep_softmax_apart(trt, network)
    config: trt.IBuilderConfig = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * MIB)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    # The graph decides the precision: what stays float32 must not be rounded to TF32's 10 bits either.
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # a plan can say what became of its graph
    for shapes in target.profiles(options.max_batch):
        profile: trt.IOptimizationProfile = builder.create_optimization_profile()
        for name, (smallest, likeliest, largest) in shapes.items():
            profile.set_shape(name, smallest, likeliest, largest)
        config.add_optimization_profile(profile)
    cache_path = timings_path(target.bundle, this_machine(trt))
    cache: trt.ITimingCache | None = _attach_timing_cache(config, cache_path)
    monitor = make_monitor(trt, tell)
    config.progress_monitor = monitor
    serialized: trt.IHostMemory | None = builder.build_serialized_network(network, config)
    if serialized is None:
        hint = "give it more room with --workspace MIB, a smaller --max-batch, or another --precision"
        raise BackendError(f"TensorRT {trt.__version__} cannot build {target.name} here{logger.because()}", hint=hint)
    if cache is not None:
        content: trt.IHostMemory = cache.serialize()
        # If the disk is full, the next build is slower; nothing else is lost.
        with contextlib.suppress(OSError):
            cache_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with replaced(cache_path) as aside:
                aside.write_bytes(bytes(content))
    return bytes(serialized)


def _keep_softmax_apart(trt, network: trt.INetworkDefinition) -> None:
    """Keep every Softmax out of a kernel of fused attention.

    What is marked for debugging must exist in memory, so nothing is fused across it ("will not prevent fusion like
    mark_debug() does", say the bindings of the way to mark that does not). Unlike an output it needs no buffer of ours,
    and nobody has to listen at run time.
    """
    for index in range(network.num_layers):
        layer: trt.ILayer = network.get_layer(index)
        if layer.type != trt.LayerType.SOFTMAX:
            continue
        if not all(network.mark_debug(tensor) for tensor in (layer.get_input(0), layer.get_output(0))):
            hint = "build without --unfused, in another --precision"
            raise BackendError(f"TensorRT {trt.__version__} does not keep {layer.name} apart", hint=hint)


def _parse(trt, builder: trt.Builder, logger, graph: Path, tell: Tell) -> trt.INetworkDefinition:
    tell({"phase": "parse", "steps": 0})
    # By name: its number differs between versions.
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: trt.INetworkDefinition = builder.create_network(flags)
    parser: trt.OnnxParser = trt.OnnxParser(network, logger)
    content = whole_kernels(graph)
    # From the file where it can be: weights may lie beside it, and need not be read twice.
    if not (parser.parse(content, str(graph)) if content else parser.parse_from_file(str(graph))):
        named = []
        for index in range(min(parser.num_errors, MAX_NAMED_ERRORS)):
            refusal: trt.ParserError = parser.get_error(index)
            named.append(f"node {refusal.node_name()} ({refusal.node_operator()}): {refusal.desc()}")
        reason = f": {'; '.join(named)}" if named else logger.because()
        hint = "upgrade TensorRT, or export the bundle again with mma-export"
        raise BundleError(f"TensorRT {trt.__version__} cannot read {graph}{reason}", hint=hint)
    return network


def make_monitor(trt, tell: Tell) -> trt.IProgressMonitor:
    """A monitor that tells the parent what the builder is doing; TensorRT calls its methods from its own threads."""

    class TellingMonitor(trt.IProgressMonitor):
        # Defined here because the base class exists only where TensorRT is installed.
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name, parent_phase, num_steps) -> None:
            tell({"phase": phase_name, "parent": parent_phase, "steps": num_steps})

        def step_complete(self, phase_name, step) -> bool:
            tell({"phase": phase_name, "step": step + 1})
            return True

        def phase_finish(self, phase_name) -> None:
            tell({"phase": phase_name, "finished": True})

    return TellingMonitor()


def _attach_timing_cache(config: trt.IBuilderConfig, path: Path) -> trt.ITimingCache | None:
    """Timings of earlier builds on this device, else an empty cache."""
    stored = path.read_bytes() if path.is_file() else b""
    for content in (stored, b"") if stored else (b"",):
        cache: trt.ITimingCache | None = config.create_timing_cache(content)
        # False: refuse timings of another device.
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _workspace(target: Target, asked_mib: int | None) -> int:
    """MiB of scratch memory that a kernel may use: as asked, else the default but at most a quarter of the free memory.

    BackendError where the GPU has too little free memory for the build.
    """
    memory = open_device_memory()
    try:
        with memory.active():
            free, total = memory.free_and_total_bytes()
    finally:
        memory.close()
    integrated = any(gpu.integrated for gpu in cuda_devices()[:1])
    if integrated:
        # What CUDA calls free leaves out the cache of files, which Linux gives back on demand.
        free = min(total, max(free, available_memory() or 0))
    # In a container the GPU is all that tells a Jetson.
    default = JETSON_WORKSPACE_MIB if integrated or is_jetson() else WORKSPACE_MIB
    workspace = min(default, free // 4 // MIB) if asked_mib is None else asked_mib
    # The weights count twice: as read, and in the engine.
    needed = 2 * target.size_bytes + SPARE_BYTES + workspace * MIB
    if needed > free:
        expected = f"{needed / 1e9:.1f} GB for this build"
        hint = "close other programs that use the GPU, or give a smaller --workspace MIB"
        raise BackendError(f"{free / 1e9:.1f} of {total / 1e9:.1f} GB of GPU memory are free", expected, hint)
    return workspace


if __name__ == "__main__":
    sys.exit(serve(build))
