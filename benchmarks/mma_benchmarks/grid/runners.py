"""What a cell of the grid runs: an engine of the runtime on a bundle, or the PyTorch model of a checkpoint.

Imported by the child processes alone; torch is imported only for the runners that need it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.bundle import golden_inputs
from mma_edge.engines.machine import instruction_sets
from mma_edge.errors import BackendError, BundleError, DependencyError, UsageError
from mma_edge.precisions import BACKEND_CHOICES, GPU_BACKENDS

EAGER, EAGER_CUDA, COMPILED, COMPILED_CUDA = "eager", "eager-cuda", "compiled", "compiled-cuda"
TORCH_RUNNERS = (EAGER, EAGER_CUDA, COMPILED, COMPILED_CUDA)
RUNNERS = (*BACKEND_CHOICES, *TORCH_RUNNERS)
TORCH_PRECISIONS = ("fp32", "fp16", "bf16")
INPUT_SEED = 1
GOLDEN_TOLERANCE = 1e-2
"""Largest logit difference between a bundle's golden output and its own checkpoint in PyTorch."""

Call = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits (N, C); arrays of the processor."""


@dataclass(frozen=True)
class Opened:
    """A runner ready to be timed.

    Attributes:
        call: see `Call`. device: "cpu" or "cuda". image_size: side of its frames.
        details: one line: library, version, device. runner, precision: what really runs.
        flops_per_clip: of the PyTorch model, None where an engine was opened.
    """

    call: Call
    device: str
    image_size: int
    details: str
    runner: str
    precision: str
    flops_per_clip: int | None = None


def device_of(runner: str) -> str:
    """Where a runner is meant to compute: "cuda" or "cpu"."""
    return "cuda" if runner in (*GPU_BACKENDS, EAGER_CUDA, COMPILED_CUDA) else "cpu"


def open_runner(runner: str, precision: str | None, bundle: str | None, checkpoint: str | None) -> Opened:
    """Load a model for timing.

    Args:
        runner: one of RUNNERS. precision: as the bundle names it; None takes the backend's best.
        bundle: folder, None for the embedded default. checkpoint: file for the torch runners.

    Raises:
        MMAEdgeError: it cannot run here, in one line.
    """
    if runner in TORCH_RUNNERS:
        return _open_torch(runner, precision or "fp32", bundle, checkpoint)
    import mma_edge

    recognizer = mma_edge.load(bundle, runner, precision)
    device = "cuda" if recognizer.backend in GPU_BACKENDS else "cpu"
    details = recognizer.engine.details
    if recognizer.bundle.failed(recognizer.precision, recognizer.backend):
        details += f" ({recognizer.precision} missed its export gate)"
    return Opened(recognizer.engine, device, recognizer.image_size, details, recognizer.backend, recognizer.precision)


def inputs_of(image_size: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The same random clips for every runner: what they hold makes no difference to a transformer's speed."""
    return golden_inputs(INPUT_SEED, image_size, batch)


def _open_torch(runner: str, precision: str, bundle: str | None, checkpoint: str | None) -> Opened:
    try:
        import torch
    except ImportError as error:
        raise DependencyError("torch is not installed", hint='pip install "mma-edge[train]"') from error
    from mma_trainer.weights.checkpoint import load_checkpoint

    if precision not in TORCH_PRECISIONS:
        raise UsageError(f"PyTorch {runner} at {precision}", f"one of {', '.join(TORCH_PRECISIONS)}")
    if checkpoint is None:
        raise UsageError("the bundle's checkpoint is not at hand for PyTorch", hint="give it with --checkpoint FILE")
    device = torch.device(device_of(runner))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"PyTorch {torch.__version__} finds no CUDA device", hint="check mma-edge doctor")
    model = load_checkpoint(checkpoint)
    _check_same_model(model, bundle, checkpoint)
    flops = count_flops(model.config)
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    if device.type == "cpu" and precision != "fp32":
        # oneDNN emulates a format that the processor lacks at a thousandth of its speed, a figure of no use.
        _need_native(torch, precision)
    call = _torch_call(model, device, dtype, compiled=runner in (COMPILED, COMPILED_CUDA))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    details = f"PyTorch {torch.__version__} {runner.removesuffix('-cuda')}, {where}"
    return Opened(call, device.type, model.config.image_size, details, runner, precision, flops)


def _torch_call(model, device, dtype, compiled: bool) -> Call:
    import torch

    from mma_trainer.model.inputs import prepare_frames, prepare_mel

    class Cast(torch.nn.Module):
        """MMA-DFER at one dtype throughout, with the bundle's inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model.to(device, dtype)

        def forward(self, frames, mel):
            frames = prepare_frames(frames, self.model.config.color).to(dtype)
            return self.model(frames, prepare_mel(mel).to(dtype)).float()

    module = Cast().eval()
    if compiled:
        # CUDA graphs take away eager's launch overhead, as an engine does.
        module = torch.compile(module, mode="reduce-overhead" if device.type == "cuda" else "default")

    def call(frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(frames).to(device), torch.from_numpy(mel).to(device)).cpu().numpy()

    return call


def _need_native(torch, precision: str) -> None:
    has = instruction_sets()
    flags = {"bf16": ("amx_bf16", "avx512_bf16", "bf16"), "fp16": ("amx_fp16", "avx512_fp16", "asimdhp")}[precision]
    if has and not any(flag in has for flag in flags):
        raise BackendError(
            f"this processor has no {precision} instructions for PyTorch {torch.__version__}",
            f"one of {', '.join(flags)}",
            "leave this combination out",
        )


def _check_same_model(model, bundle: str | None, checkpoint: str) -> None:
    """Refuse the checkpoint of another model: a ratio to that would mean nothing."""
    import torch

    from mma_edge.bundle import read_bundle
    from mma_trainer.model.inputs import ContractModel

    expected_bundle = read_bundle(bundle)
    frames, mel, expected, _ = expected_bundle.golden
    hint = "give the checkpoint that was exported with --checkpoint"
    name = f"the bundle {expected_bundle.name}"
    if (model.config.image_size, model.config.num_classes) != (expected_bundle.image_size, len(expected_bundle.labels)):
        raise BundleError(f"{Path(checkpoint).name} is not the model of {name}", "its size and classes", hint)
    with torch.inference_mode():
        logits = ContractModel(model)(torch.from_numpy(frames), torch.from_numpy(mel)).numpy()
    difference = float(np.abs(logits - expected).max())
    if not difference <= GOLDEN_TOLERANCE:
        raise BundleError(
            f"{Path(checkpoint).name} is not the model of {name}: golden logits differ by {difference:.1e}",
            f"at most {GOLDEN_TOLERANCE:g}",
            hint,
        )


def count_flops(config) -> int:
    """Floating-point operations of one clip: matrix products and convolutions, a multiply-add counted as two."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from mma_trainer.model import MMADFER
    from mma_trainer.model.inputs import ContractModel

    # On the meta device nothing is computed; only the shapes are followed.
    with torch.device("meta"):
        model = ContractModel(MMADFER(config)).eval()
        size = config.image_size
        frames = torch.empty((1, config.num_frames, size, size, 3), dtype=torch.uint8)
        mel = torch.empty((1, NUM_MEL_FRAMES, NUM_MEL_BINS))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(frames, mel)
    return int(counter.get_total_flops())
