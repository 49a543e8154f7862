"""A stand-in for `tensorrt` that really computes: a plan holds the ONNX graph, an engine runs it on onnxruntime.

Its surface is a subset of the real one (test_tensorrt_contract.py), and its parser refuses the graphs that the real one
refuses (rules.py). FAKE_TRT, a list of words, makes it fail:
parse, build, kill, crash, raise, no-context, refuse-shape, enqueue, no-mark (a tensor cannot be marked), perturb=X,
which adds noise of that size, and fusion=X, which adds it where attention was fused.
Builder and Runtime abort the process where the driver was not asked first, as the real ones do without a GPU.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import signal
import sys
from pathlib import Path

import fake_cudart
import numpy as np
import onnx
import onnxruntime

from mma_edge.engines.tensorrt.onnx_file import graph_in
from mma_edge.engines.tensorrt.plan import version_of
from mma_edge.engines.tensorrt.rules import BrokenRule, broken_rules

__version__ = "10.13.3.9"
MAGIC = b"FAKEPLAN"
BUILT: list[dict] = []
"""Settings of the builds of this process."""


def told(word: str) -> str | None:
    """None when FAKE_TRT has no such word, else what follows its "="."""
    for item in os.environ.get("FAKE_TRT", "").split():
        name, _, value = item.partition("=")
        if name == word:
            return value
    return None


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 3  # neither 10's number nor 11's: only the name is to be relied on


class BuilderFlag(enum.IntEnum):
    TF32 = 6


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY = 0
    DETAILED = 2


class LayerInformationFormat(enum.IntEnum):
    ONELINE = 0
    JSON = 1


class DataType(enum.IntEnum):
    FLOAT = 0
    INT64 = 8
    UINT8 = 9


class LayerType(enum.IntEnum):
    SOFTMAX = 11
    IDENTITY = 22  # of all others


_TYPES = {
    "tensor(float)": (DataType.FLOAT, np.float32),
    "tensor(int64)": (DataType.INT64, np.int64),
    "tensor(uint8)": (DataType.UINT8, np.uint8),
}


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC = 0
    USER_MANAGED = 2


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def __init__(self):
        self._ready = True


class IProgressMonitor:
    def __init__(self):
        self._ready = True


class IHostMemory:
    def __init__(self, data):
        self._data = data

    def __bytes__(self):  # the real one has the buffer protocol, which bytes() takes as well
        return self._data


class ITimingCache:
    def __init__(self, content):
        self._content = content

    def serialize(self):
        return IHostMemory(self._content + b"timed")


class IOptimizationProfile:
    def __init__(self):
        self._shapes = {}

    def set_shape(self, input, min, opt, max):
        self._shapes[input] = [list(min), list(opt), list(max)]


class IBuilderConfig:
    def __init__(self):
        self._settings = {"cleared": [], "profiles": []}
        self.builder_optimization_level = 3
        self.progress_monitor = None
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY

    def set_memory_pool_limit(self, pool, pool_size):
        self._settings[pool.name] = pool_size

    def clear_flag(self, flag):
        self._settings["cleared"].append(flag.name)

    def add_optimization_profile(self, profile):
        self._settings["profiles"].append(profile._shapes)
        return 0

    def create_timing_cache(self, serialized_timing_cache):
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache, ignore_mismatch):
        self._settings["cache"] = cache._content
        return cache._content != b"of another device" or ignore_mismatch


class ITensor:
    def __init__(self, name):
        self.name = name


class ILayer:
    def __init__(self, node):
        self._node, self.name = node, node.name
        self.type = LayerType.SOFTMAX if node.op_type == "Softmax" else LayerType.IDENTITY

    def get_input(self, index):
        return ITensor(self._node.input[index])

    def get_output(self, index):
        return ITensor(self._node.output[index])


class INetworkDefinition:
    def __init__(self, flags):
        self._flags, self._model, self._marked = flags, onnx.ModelProto(), []

    @property
    def num_layers(self):
        return len(self._model.graph.node)

    def get_layer(self, index):
        return ILayer(self._model.graph.node[index])

    def mark_debug(self, tensor):
        self._marked.append(tensor.name)
        return told("no-mark") is None


class ParserError:
    def __init__(self, broken):
        self._broken = broken

    def node_name(self):
        return self._broken.node

    def node_operator(self):
        return self._broken.op_type

    def desc(self):
        return self._broken.rule


class OnnxParser:
    def __init__(self, network, logger):
        assert logger._ready
        self._network = network

    @property
    def num_errors(self):
        return len(self._errors)

    def parse_from_file(self, model):
        return self.parse(Path(model).read_bytes(), model)

    def parse(self, model, path=None):
        self._errors = list(broken_rules(graph_in(memoryview(model), path), version_of(__version__)))
        self._network._model = onnx.load_model_from_string(bytes(model))
        try:
            # Weights in other files lie beside the model's; the network holds them.
            onnx.load_external_data_for_model(self._network._model, str(Path(path).parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            self._errors.append(BrokenRule("", "", f"failed to load weights: {error}"))
        if told("parse") is not None:
            self._errors.append(BrokenRule("node_attention", "Attention", "no importer\nregistered"))
        return not self._errors

    def get_error(self, index):
        return ParserError(self._errors[index])


class Builder:
    def __init__(self, logger):
        _need_a_gpu()
        self._logger = logger

    def create_network(self, flags):
        return INetworkDefinition(flags)

    def create_builder_config(self):
        return IBuilderConfig()

    def create_optimization_profile(self):
        return IOptimizationProfile()

    def build_serialized_network(self, network, config):
        monitor = config.progress_monitor
        monitor.phase_start("Building Engine", None, 2)
        monitor.step_complete("Building Engine", 0)
        for word, number in (("kill", signal.SIGKILL), ("crash", signal.SIGSEGV)):
            if told(word) is not None:
                os.kill(os.getpid(), number)
        if told("raise") is not None:
            raise RuntimeError("an accident")
        if told("build") is not None:
            self._logger.log(ILogger.Severity.ERROR, "could not find\nany implementation")
            return None
        monitor.phase_finish("Building Engine")
        assert network._flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        assert config.profiling_verbosity is ProfilingVerbosity.DETAILED
        BUILT.append({**config._settings, "level": config.builder_optimization_level, "marked": network._marked})
        about = {"profiles": config._settings["profiles"], "marked": network._marked}
        graph = network._model.SerializeToString()
        return IHostMemory(b"\0".join([MAGIC + str(len(graph)).encode(), json.dumps(about).encode(), graph]))


class Runtime:
    def __init__(self, logger):
        _need_a_gpu()
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine):
        head, about, graph = bytes(serialized_engine).split(b"\0", 2)
        if head != MAGIC + str(len(graph)).encode():
            self._logger.log(ILogger.Severity.ERROR, "serialization assertion failed")
            return None
        return ICudaEngine(**json.loads(about), graph=graph)


class ICudaEngine:
    def __init__(self, profiles, marked, graph):
        self._profiles, self._marked = profiles, marked
        self._nodes = graph_in(memoryview(graph), "plan").nodes
        self._session = _open_session(graph)
        self._outputs = [node.name for node in self._session.get_outputs()]
        tensors = [*self._session.get_inputs(), *self._session.get_outputs()]
        self._types = {node.name: _TYPES[node.type] for node in tensors}
        self.num_io_tensors, self.num_optimization_profiles = len(tensors), len(profiles)
        self.device_memory_size_v2 = 4096

    @property
    def _fused(self):
        """The Softmax nodes that became part of a kernel of fused attention."""
        found = [node for node in self._nodes if node.op_type == "Softmax"]
        return [node for node in found if not {node.inputs[0], *node.outputs} & set(self._marked)]

    def get_tensor_name(self, index):
        return list(self._types)[index]

    def get_tensor_dtype(self, name):
        return self._types[name][0]

    def get_tensor_profile_shape(self, name, profile_index):
        return self._profiles[profile_index][name]

    def create_engine_inspector(self):
        return EngineInspector(self)

    def create_execution_context(self, strategy):
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return None if told("no-context") is not None else IExecutionContext(self)


class EngineInspector:
    def __init__(self, engine):
        self._engine = engine

    def get_engine_information(self, format):
        """A layer for each node, and for each Softmax a kernel of fused attention."""
        assert format is LayerInformationFormat.JSON
        fused = self._engine._fused
        layers = [
            {"Name": node.name, "LayerType": "kgen", "TacticName": "_gemm_mha_v2" if node in fused else "gemm"}
            for node in self._engine._nodes
        ]
        return json.dumps({"Layers": layers, "Bindings": list(self._engine._types)})


class IExecutionContext:
    def __init__(self, engine):
        self._engine, self._shapes, self._addresses, self._memory, self._profile = engine, {}, {}, 0, 0

    def set_device_memory(self, memory, size):
        self._memory = memory

    def set_optimization_profile_async(self, profile_index, stream_handle):
        assert fake_cudart.LIVE[stream_handle] == "stream" and not self._shapes  # it would forget the shapes
        self._profile = profile_index
        return 0 <= profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name, shape):
        low, _, high = self._engine._profiles[self._profile][name]
        self._shapes[name] = tuple(shape)
        fits = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        return fits and told("refuse-shape") is None

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return memory in fake_cudart.LIVE

    def execute_async_v3(self, stream_handle):
        assert fake_cudart.LIVE[stream_handle] == "stream" and self._memory in fake_cudart.LIVE
        fake_cudart.submit(stream_handle, self._compute)
        return told("enqueue") is None

    def _compute(self):
        engine = self._engine
        assert set(self._addresses) == set(engine._types)
        feeds = {
            name: _array(self._addresses[name], shape, engine._types[name][1]) for name, shape in self._shapes.items()
        }
        for name, result in zip(engine._outputs, engine._session.run(engine._outputs, feeds), strict=True):
            noise = float(told("perturb") or 0) + float(told("fusion") or 0) * bool(engine._fused)
            if name == "logits" and noise:
                result = result + np.float32(noise) * np.random.default_rng(0).standard_normal(result.shape)
            _array(self._addresses[name], result.shape, engine._types[name][1])[:] = result


def _open_session(graph):
    options = onnxruntime.SessionOptions()
    # The graph as it stands: onnxruntime's own rewriting fails at 8-bit floats.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _array(address, shape, dtype):
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * nbytes).from_address(address), dtype).reshape(shape)


def _need_a_gpu():
    driver = sys.modules["mma_edge.engines.machine"]
    if not driver.cuda_devices():
        os.abort()
