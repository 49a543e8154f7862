"""One process of `mma-bench training`: some steps of one setting."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console

from mma_benchmarks.machine.facts import MIB, peak_memory_mib
from mma_benchmarks.training.measure import PLAIN, Setting
from mma_edge.audio.logmel import NUM_MEL_BINS, NUM_MEL_FRAMES
from mma_edge.child import Tell, serve
from mma_edge.clip import NUM_FRAMES
from mma_trainer.architectures import ARCHITECTURES
from mma_trainer.data.batch import WHOLE, Batch, Shard
from mma_trainer.model import MMADFER, MMADFERConfig, config_of
from mma_trainer.model.inputs import ContractModel
from mma_trainer.training.execution import Execution
from mma_trainer.training.loop import Run
from mma_trainer.training.recipe import Recipe

SEED = 1


class EnoughError(Exception):
    """Raised by the clock: all steps are measured, and there is nothing to validate or to save."""


class TimedClips:
    """The same random batches for every setting; reads the clocks whenever the loop asks for the next one."""

    def __init__(self, config: MMADFERConfig, batch_size: int, steps: int, device: torch.device) -> None:
        self.config, self.batch_size, self.num_batches, self.device = config, batch_size, steps, device
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(SEED)
        for _ in range(self.num_batches):
            frames, mel = random_clips(self.batch_size, self.config.image_size, generator)
            labels = torch.randint(0, self.config.num_classes, (self.batch_size,), generator=generator)
            if self.device.type == "cuda":
                frames, mel = frames.pin_memory(), mel.pin_memory()
            wall, cpu = time.perf_counter(), time.process_time()
            yield Batch((frames, mel), labels)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.wall_s.append(time.perf_counter() - wall)
            self.cpu_s.append(time.process_time() - cpu)
        raise EnoughError

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        raise EnoughError


def random_clips(count: int, image_size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """frames uint8 (N, 16, S, S, 3) and mel float32 (N, 512, 128), of about the mean and spread of log-mels."""
    shape = (count, NUM_FRAMES, image_size, image_size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return frames, torch.randn(count, NUM_MEL_FRAMES, NUM_MEL_BINS, generator=generator) * 4 - 4


def train_plainly(model: ContractModel, clips: TimedClips, device: torch.device) -> None:
    """The reference: the shortest loop."""
    model.to(device).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=1e-2)
    torch.manual_seed(SEED)
    for inputs, labels, _ in clips.train_batches(0):
        logits = model(*(tensor.to(device) for tensor in inputs))
        loss = F.cross_entropy(logits, labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def train_ours(model: ContractModel, clips: TimedClips, device: torch.device, setting: Setting) -> None:
    """`mma-train`'s loop."""
    recipe = Recipe(epochs=1, batch_size=clips.batch_size, precision=setting.precision)
    execution = Execution(setting.micro_batch, setting.checkpoint, save_every_minutes=0)
    with tempfile.TemporaryDirectory() as folder:
        config = model.model.config
        Run(model, config, recipe, clips, Path(folder), {}, Console(quiet=True), device, execution).fit(resume=False)


def measure(asked: dict, tell: Tell) -> dict:
    """Train some steps of one setting: their durations, the memory, and the loss afterwards."""
    setting, options, device = Setting(**asked["setting"]), asked["options"], torch.device(asked["device"])
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    config = config_of(options["model"])
    if image_size := options["image_size"] or ARCHITECTURES[options["model"]].training_image_size:
        config = config.replace(image_size=image_size)
    torch.manual_seed(SEED)
    model = ContractModel(MMADFER(config))
    clips = TimedClips(config, options["batch_size"], options["warmup"] + options["steps"], device)
    is_cuda = device.type == "cuda"
    with contextlib.suppress(EnoughError):
        if setting.name == PLAIN:
            train_plainly(model, clips, device)
        else:
            train_ours(model, clips, device, setting)
    return {
        "step_s": clips.wall_s[options["warmup"] :],
        "cpu_s": clips.cpu_s[options["warmup"] :],
        "peak_memory_mib": torch.cuda.max_memory_allocated(device) / MIB if is_cuda else peak_memory_mib(),
        "image_size": config.image_size,
        "labels": list(config.labels),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if is_cuda else "cpu",
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "torch": torch.__version__,
        "loss": evaluate(model, config, device),
    }


@torch.no_grad()
def evaluate(model: ContractModel, config: MMADFERConfig, device: torch.device) -> float:
    """Loss of the trained model on one more clip: settings that learn the same agree on it."""
    model.to(device).eval()
    generator = torch.Generator().manual_seed(SEED + 1)
    frames, mel = random_clips(1, config.image_size, generator)
    logits = model(frames.to(device), mel.to(device))
    return F.cross_entropy(logits, torch.zeros(1, dtype=torch.int64, device=device)).item()


if __name__ == "__main__":
    sys.exit(serve(measure))
