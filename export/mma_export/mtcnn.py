"""MTCNN face detector: published PyTorch weights -> the three ONNX files the runtime carries.

    PYTHONPATH=export:trainer:. python -m mma_export.mtcnn \
        --wheel facenet_pytorch-2.6.0-py3-none-any.whl --output mma_edge/assets/mtcnn

The architecture is that of Zhang, Zhang, Li and Qiao, "Joint Face Detection and Alignment Using
Multitask Cascaded Convolutional Networks", IEEE Signal Processing Letters 2016
(doi 10.1109/LSP.2016.2603342), in the variant whose weights the `facenet-pytorch` wheel holds.
The wheel is read as a zip file; nothing in it is imported or run.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from mma_edge.bundle import sha256
from mma_edge.commands.support import run_cli, say
from mma_edge.engines.session import open_session
from mma_edge.errors import ParityError, SourceError

OPSET = 18
PARITY_TOLERANCE = 1e-4
"""Largest absolute difference allowed between ONNX Runtime and PyTorch, any output."""
WEIGHTS_FOLDER = "facenet_pytorch/data"
LANDMARK_HEAD = "dense6_3."
"""O-Net's five facial points: the runtime does not use them, so the export leaves them out."""
PROVENANCE = """\
Provenance of the weights
-------------------------
pnet.onnx, rnet.onnx and onet.onnx were made from pnet.pt, rnet.pt and onet.pt of the
facenet-pytorch wheel named in SOURCE.json, under the licence above. facenet-pytorch ported
them from David Sandberg's facenet (https://github.com/davidsandberg/facenet, MIT licence,
copyright (c) 2016 David Sandberg), which in turn ported the networks published by the authors
of MTCNN (Zhang, Zhang, Li and Qiao 2016, doi 10.1109/LSP.2016.2603342). Changed here: file
format (ONNX), PReLU and softmax are made of other operators, and O-Net's landmark output is
left out.
"""


class PReLU(nn.Module):
    """nn.PReLU, but exported as three operators that onnxruntime's CPU provider computes with vector instructions.

    Its PRelu does not, and took half of the time of P- and R-Net.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))  # slope of the negative side

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        slope = self.weight.view(-1, *[1] * (x.dim() - 2))
        return x + (slope - 1) * x.clamp(max=0)


def _probability(logits: Tensor) -> Tensor:
    """(N, 2, ...) no face, face -> (N, ...): the softmax of two is the sigmoid of their difference."""
    return (logits[:, 1] - logits[:, 0]).sigmoid()


class PNet(nn.Module):
    """Proposal network: fully convolutional, one answer per 12 x 12 window at stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)  # no face, face
        self.conv4_2 = nn.Conv2d(32, 4, 1)  # corners' offsets in window widths and heights

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) -> face probability (1, H', W') and offsets (1, 4, H', W')."""
        x = self.pool1(self.prelu1(self.conv1(image)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return _probability(self.conv4_1(x)), self.conv4_2(x)


def _flatten_width_first(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, W*H*C): the order in which the dense weights were trained.

    The first publication ran on column-major images with channels last; its ports keep that order.
    """
    return x.permute(0, 3, 2, 1).flatten(1)


class RNet(nn.Module):
    """Refinement network on 24 x 24 candidates."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(3 * 3 * 64, 128), PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 24, 24) -> face probability (N,) and corner offsets (N, 4)."""
        x = self.pool1(self.prelu1(self.conv1(crops)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_flatten_width_first(x)))
        return _probability(self.dense5_1(x)), self.dense5_2(x)


class ONet(nn.Module):
    """Output network on 48 x 48 candidates, without its landmark head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(3 * 3 * 128, 256), PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, 48, 48) -> face probability (N,) and corner offsets (N, 4)."""
        x = self.pool1(self.prelu1(self.conv1(crops)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_flatten_width_first(x)))
        return _probability(self.dense6_1(x)), self.dense6_2(x)


def read_wheel(wheel: Path) -> tuple[dict[str, nn.Module], str]:
    """The three networks with their weights, and the wheel's licence text.

    Raises:
        SourceError: no such wheel, or its weights are not those of the three networks.
    """
    nets: dict[str, nn.Module] = {"pnet": PNet(), "rnet": RNet(), "onet": ONet()}
    hint = "get it with: pip download --no-deps facenet-pytorch"
    try:
        with zipfile.ZipFile(wheel) as archive:
            licence = next(n for n in archive.namelist() if n.split("/")[-1].startswith("LICENSE"))
            text = archive.read(licence).decode()
            for name, net in nets.items():
                data = io.BytesIO(archive.read(f"{WEIGHTS_FOLDER}/{name}.pt"))
                weights = torch.load(data, map_location="cpu", weights_only=True)
                kept = {key: value for key, value in weights.items() if not key.startswith(LANDMARK_HEAD)}
                net.load_state_dict(kept)  # strict: a missing or surplus weight is an error
                net.eval().requires_grad_(False)
    except (OSError, zipfile.BadZipFile, KeyError, StopIteration, RuntimeError, pickle.UnpicklingError) as error:
        what = f"cannot read MTCNN weights from {wheel}: {type(error).__name__} {error}"
        raise SourceError(what, "a facenet-pytorch wheel", hint) from error
    return nets, text


def export_net(net: nn.Module, name: str, path: Path) -> None:
    """Write one network as ONNX: input `image` (P-Net) or `crops`, outputs `probability`, `offsets`."""
    # Imported here: `main` turns a missing package into one line with the command that installs it.
    import onnx

    from mma_export.graph import plain_proto

    if name == "pnet":
        example, input_name = torch.zeros(1, 3, 97, 131), "image"
        dynamic = {2: torch.export.Dim("height", min=12), 3: torch.export.Dim("width", min=12)}
    else:
        side = 24 if name == "rnet" else 48
        example, input_name = torch.zeros(3, 3, side, side), "crops"
        dynamic = {0: torch.export.Dim("n", min=1)}
    program = torch.onnx.export(
        net,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[input_name],
        output_names=["probability", "offsets"],
        dynamic_shapes=(dynamic,),
        verbose=False,
    )
    model = plain_proto(program.model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def check_parity(net: nn.Module, name: str, path: Path) -> float:
    """Largest absolute difference between ONNX Runtime and PyTorch over several shapes, noise input.

    Raises:
        ParityError: it is above `PARITY_TOLERANCE`.
    """
    session, _ = open_session(path)
    rng = np.random.default_rng(0)
    side = {"rnet": 24, "onet": 48}.get(name, 0)
    shapes = [(n, 3, side, side) for n in (1, 2, 7, 64)]
    if name == "pnet":
        shapes = [(1, 3, h, w) for h, w in ((12, 12), (13, 40), (120, 97), (217, 385), (384, 216))]
    worst = 0.0
    for shape in shapes:
        x = rng.uniform(-1, 1, shape).astype(np.float32)
        ours = session.run(["probability", "offsets"], {session.get_inputs()[0].name: x})
        for a, b in zip(ours, net(torch.from_numpy(x)), strict=True):
            if a.shape != tuple(b.shape):
                raise ParityError(f"{name} {shape}: ONNX output {a.shape}", f"{tuple(b.shape)}, as PyTorch")
            worst = max(worst, float(np.abs(a - b.numpy()).max()))
    # Written so that a NaN fails too.
    if not worst <= PARITY_TOLERANCE:
        raise ParityError(f"{name}: ONNX Runtime differs from PyTorch by {worst:.2e}", f"at most {PARITY_TOLERANCE:g}")
    return worst


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m mma_export.mtcnn", description=__doc__.splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="facenet_pytorch-*.whl")
    parser.add_argument("--output", type=Path, default=Path("mma_edge/assets/mtcnn"), help="folder to write to")
    return run_cli(parser, export_detector, argv, extra="export")


def export_detector(args: argparse.Namespace, console: Console) -> int:
    """Export all three networks, check them, and write licence and provenance beside them."""
    nets, licence = read_wheel(args.wheel)
    args.output.mkdir(parents=True, exist_ok=True)
    for name, net in nets.items():
        path = args.output / f"{name}.onnx"
        export_net(net, name, path)
        difference = check_parity(net, name, path)
        say(console, f"{path}  {path.stat().st_size / 1e3:.0f} kB  max difference to PyTorch {difference:.1e}")
    (args.output / "LICENSE").write_text(f"{licence.strip()}\n\n{PROVENANCE}")
    source = {
        "package": "facenet-pytorch",
        "version": args.wheel.name.split("-")[1],
        "wheel": args.wheel.name,
        "wheel_sha256": sha256(args.wheel),
        "licence": "MIT",
        "opset": OPSET,
        "files": {f"{name}.onnx": sha256(args.output / f"{name}.onnx") for name in nets},
    }
    (args.output / "SOURCE.json").write_text(json.dumps(source, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
