"""Options of mma-train that say which model to train, and the model they make."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from mma_edge.errors import UsageError
from mma_trainer.checkpoint import build_model, read_checkpoint
from mma_trainer.model import NANO, MMADFERConfig
from mma_trainer.model.inputs import ContractModel
from mma_trainer.pretrain import EncoderClassifier, model_from_encoders

MODELS = {"vit-b": MMADFERConfig(), "nano": NANO}
VOICE_PATCH_DROPOUT = 0.5


def add_model_options(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=MODELS, default="vit-b", help="architecture")
    model.add_argument("--image-size", type=int, metavar="S", help="side of a face crop, e.g. 112, 160, 224")
    model.add_argument("--labels", metavar="A,B,...", help="class names in order (default: DFEW's seven)")
    model.add_argument("--init", type=Path, metavar="FILE", help="start from a checkpoint, ours or the authors'")
    model.add_argument("--image-encoder", type=Path, metavar="FILE", help="pre-trained with --dataset faces")
    model.add_argument("--audio-encoder", type=Path, metavar="FILE", help="pre-trained with --dataset voices")


def make_config(args: argparse.Namespace) -> MMADFERConfig:
    config = MODELS[args.model]
    if args.image_size:
        config = config.replace(image_size=args.image_size)
    if args.labels:
        config = config.replace(labels=tuple(name.strip() for name in args.labels.split(",")))
    return config


def make_model(args: argparse.Namespace, config: MMADFERConfig) -> tuple[nn.Module, MMADFERConfig, dict]:
    """The model to train, its config, and where its first weights come from (for the provenance)."""
    if args.dataset in ("faces", "voices"):
        is_face = args.dataset == "faces"
        dropout = 0.0 if is_face else VOICE_PATCH_DROPOUT
        return EncoderClassifier(config, "image" if is_face else "audio", dropout), config, {}
    if args.init:
        start = read_checkpoint(args.init)
        return ContractModel(build_model(start, args.init)), start.config, {"init": start.provenance}
    if not (args.image_encoder and args.audio_encoder):
        raise UsageError(
            "no weights to start from",
            "--image-encoder and --audio-encoder, or --init",
            "MMA-DFER adapts two frozen pre-trained encoders; pre-train them with --dataset faces and --dataset voices",
        )
    encoders = [read_checkpoint(path) for path in (args.image_encoder, args.audio_encoder)]
    for path, encoder in zip((args.image_encoder, args.audio_encoder), encoders, strict=True):
        if encoder.config.replace(image_size=config.image_size, labels=config.labels) != config:
            raise UsageError(f"{path} was trained with another architecture", f"--model {args.model} as here")
    origin = {"image_encoder": encoders[0].provenance, "audio_encoder": encoders[1].provenance}
    return ContractModel(model_from_encoders(config, *encoders)), config, origin
