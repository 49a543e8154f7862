"""The PyTorch model of a checkpoint as a runner of the grid: what every ratio is to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from mma_benchmarks.grid.runners import COMPILED, COMPILED_CUDA, Call, Opened, device_of
from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.bundle import read_bundle
from mma_edge.engines.machine import instruction_sets
from mma_edge.errors import BackendError, BundleError, UsageError
from mma_trainer.model import MMADFER, MMADFERConfig
from mma_trainer.model.inputs import ContractModel, prepare_frames, prepare_mel
from mma_trainer.weights.checkpoint import load_checkpoint

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NATIVE = {"bf16": ("amx_bf16", "avx512_bf16", "bf16"), "fp16": ("amx_fp16", "avx512_fp16", "asimdhp")}
"""Instruction sets of processors that compute in a format themselves; any one of them is enough."""
GOLDEN_TOLERANCE = 1e-2
"""Largest logit difference between a bundle's golden output and its own checkpoint in PyTorch."""


class CastModel(torch.nn.Module):
    """MMA-DFER at one dtype throughout, with the bundle's inputs."""

    def __init__(self, model: MMADFER, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model.to(device, dtype), dtype

    def forward(self, frames: torch.Tensor, mel: torch.Tensor) -> torch.Tensor:
        """frames uint8 (N, 16, S, S, 3), mel float32 (N, 512, 128) -> logits float32 (N, C)."""
        frames = prepare_frames(frames, self.model.config.color).to(self.dtype)
        return self.model(frames, prepare_mel(mel).to(self.dtype)).float()


def open_torch(runner: str, precision: str, bundle: str | None, checkpoint: str | None) -> Opened:
    """As `open_runner`, for one of TORCH_RUNNERS."""
    if precision not in DTYPES:
        raise UsageError(f"PyTorch {runner} at {precision}", f"one of {', '.join(DTYPES)}")
    if checkpoint is None:
        raise UsageError("the bundle's checkpoint is not at hand for PyTorch", hint="give it with --checkpoint FILE")
    device = torch.device(device_of(runner))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BackendError(f"PyTorch {torch.__version__} finds no CUDA device", hint="check mma-edge doctor")
    model = load_checkpoint(checkpoint)
    _check_same_model(model, bundle, checkpoint)
    flops = count_flops(model.config)
    if device.type == "cpu" and precision != "fp32":
        _need_native(precision)
    call = _call(CastModel(model, device, DTYPES[precision]).eval(), device, runner in (COMPILED, COMPILED_CUDA))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    details = f"PyTorch {torch.__version__} {runner.removesuffix('-cuda')}, {where}"
    return Opened(call, device.type, model.config.image_size, details, runner, precision, flops)


def _call(module: torch.nn.Module, device: torch.device, compiled: bool) -> Call:
    if compiled:
        # CUDA graphs take away eager's launch overhead, as an engine does.
        module = torch.compile(module, mode="reduce-overhead" if device.type == "cuda" else "default")

    def call(frames: np.ndarray, mel: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(frames).to(device), torch.from_numpy(mel).to(device)).cpu().numpy()

    return call


def _need_native(precision: str) -> None:
    """oneDNN emulates a format that the processor lacks at a thousandth of its speed: a figure of no use."""
    has, flags = instruction_sets(), NATIVE[precision]
    if has and not set(flags) & set(has):
        what = f"this processor has no {precision} instructions for PyTorch {torch.__version__}"
        raise BackendError(what, f"one of {', '.join(flags)}", "leave this combination out")


def _check_same_model(model: MMADFER, folder: str | None, checkpoint: str) -> None:
    """Refuse the checkpoint of another model: a ratio to that would mean nothing."""
    bundle = read_bundle(folder)
    frames, mel, expected, _ = bundle.golden
    hint = "give the checkpoint that was exported with --checkpoint"
    other = f"{Path(checkpoint).name} is not the model of the bundle {bundle.name}"
    if (model.config.image_size, model.config.num_classes) != (bundle.image_size, len(bundle.labels)):
        raise BundleError(other, "its size and classes", hint)
    with torch.inference_mode():
        logits = ContractModel(model)(torch.from_numpy(frames), torch.from_numpy(mel)).numpy()
    difference = float(np.abs(logits - expected).max())
    if not difference <= GOLDEN_TOLERANCE:
        what = f"{other}: golden logits differ by {difference:.1e}"
        raise BundleError(what, f"at most {GOLDEN_TOLERANCE:g}", hint)


def count_flops(config: MMADFERConfig) -> int:
    """Floating-point operations of one clip: matrix products and convolutions, a multiply-add counted as two."""
    # On the meta device nothing is computed; only the shapes are followed.
    with torch.device("meta"):
        model = ContractModel(MMADFER(config)).eval()
        frames = torch.empty((1, config.num_frames, config.image_size, config.image_size, 3), dtype=torch.uint8)
        mel = torch.empty((1, NUM_MEL_FRAMES, NUM_MEL_BINS))
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(frames, mel)
    return int(counter.get_total_flops())
