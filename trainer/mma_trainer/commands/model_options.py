"""Options of mma-train that say which model to train, and the model that they describe."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from torch import nn

from mma_edge.errors import UsageError
from mma_trainer.architectures import ARCHITECTURES, PAPER
from mma_trainer.model import MMADFERConfig, config_of, differences
from mma_trainer.model.inputs import ContractModel
from mma_trainer.training.pretrain import EncoderClassifier, at_image_size, model_from_encoders
from mma_trainer.weights.checkpoint import build_model
from mma_trainer.weights.encoders import read_encoder, read_mean_encoder
from mma_trainer.weights.start import origin_of, parse_init, read_start, with_labels

# The extra class: RAVDESS's calm voices, in training only.
VOICE_TRAINING = {"patch_dropout": 0.4, "extra_classes": 1, "early_head": True}
CHANGEABLE = ("image_size", "color", "drop_path")
"""Fields that may change between training and fine-tuning, besides the labels: only the positions depend on them."""


class _Architecture(argparse.Action):
    """Stores --model and that it was given, because only then it has to agree with --init's file."""

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        namespace.model, namespace.model_given = value, True


def add_model_options(parser: argparse.ArgumentParser) -> None:
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=ARCHITECTURES, default=PAPER, action=_Architecture, help="architecture")
    model.add_argument("--image-size", type=int, metavar="S", help="side of a face crop, e.g. 112, 160, 224")
    model.add_argument("--labels", metavar="A,B,...", help="class names in order (default: DFEW's seven)")
    examples = "fusion=mult, temporal=both, prompts=static, modalities=audio, bottleneck_width=256"
    text = f"any field of the model's config, e.g. {examples}; repeatable"
    model.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = "start from a checkpoint, ours or the authors', or from the default model (default); any --labels"
    model.add_argument("--init", type=parse_init, metavar="FILE", help=text)
    for name, published, dataset in (("image", "MAE-Face", "faces"), ("audio", "AudioMAE", "voices")):
        text = f"{published}'s file, or pre-trained with --dataset {dataset}; several: the mean of their weights"
        model.add_argument(f"--{name}-encoder", type=Path, nargs="+", metavar="FILE", help=text)


def given_fields(args: argparse.Namespace) -> dict[str, object]:
    """The fields of the config that the command line sets, by name.

    Raises:
        UsageError: an unknown field, a value of the wrong kind, or a field set to two values.
    """
    given = [_parse_setting(text) for text in args.set]
    given += [] if args.image_size is None else [("image_size", args.image_size)]
    given += [("labels", _parse_value("tuple[str, ...]", args.labels))] if args.labels else []
    fields: dict[str, object] = {}
    for key, value in given:
        if fields.setdefault(key, value) != value:
            raise UsageError(f"{key} is set to {fields[key]} and to {value}", "one value", "leave one of them out")
    return fields


def _parse_setting(text: str) -> tuple[str, object]:
    key, equals, value = (part.strip() for part in text.partition("="))
    kinds = {field.name: field.type for field in dataclasses.fields(MMADFERConfig)}
    if not equals or key not in kinds:
        raise UsageError(f"--set {text}", f"KEY=VALUE with KEY one of {', '.join(kinds)}")
    try:
        return key, _parse_value(kinds[key], value)
    except ValueError:
        kind = {"int": "a whole number", "float": "a number"}.get(kinds[key], "whole numbers between commas")
        raise UsageError(f"--set {text}", f"{kind} for {key}") from None


def _parse_value(kind: str, text: str) -> object:
    if kind.startswith("tuple"):
        parts = [part.strip() for part in text.split(",")] if text else []
        return tuple(int(part) for part in parts) if "int" in kind else tuple(parts)
    return {"int": int, "float": float, "str": str}[kind](text)


def make_config(args: argparse.Namespace) -> MMADFERConfig:
    """The config that the options describe. With --init the file's decides: see `make_model`."""
    fields, named = given_fields(args), config_of(args.model)
    return named if args.init else named.replace(**fields)


def make_model(args: argparse.Namespace, config: MMADFERConfig) -> tuple[nn.Module, MMADFERConfig, dict]:
    """The model to train, its config, and where its first weights come from (for the provenance).

    Raises:
        UsageError: options that contradict each other, or the file of --init (what differs, in words).
        CheckpointError: a file that is not a checkpoint, or does not fit.
    """
    if args.dataset in ("faces", "voices"):
        return _encoder(args, config)
    if args.init:
        return _from_checkpoint(args)
    files = {"image": args.image_encoder} if config.uses_image else {}
    files |= {"audio": args.audio_encoder} if config.uses_audio else {}
    if None in files.values():
        raise UsageError(
            "no weights to start from",
            " and ".join(f"--{name}-encoder" for name in files) + ", or --init",
            "MMA-DFER adapts frozen pre-trained encoders: give MAE-Face's and AudioMAE's files, "
            "or pre-train your own with --dataset faces and --dataset voices",
        )
    # The file of a modality that this variant does not use is not read, so one command serves every row of a table.
    weights = {name: read_mean_encoder(paths, name, config) for name, paths in files.items()}
    origin = {f"{name}_encoder": read.provenance for name, read in weights.items()}
    model = model_from_encoders(config, weights.get("image"), weights.get("audio"))
    return ContractModel(model), config, origin


def _encoder(args: argparse.Namespace, config: MMADFERConfig) -> tuple[nn.Module, MMADFERConfig, dict]:
    """An encoder to pre-train, from random weights or from those of a file."""
    name, other = ("image", "audio") if args.dataset == "faces" else ("audio", "image")
    files = getattr(args, f"{name}_encoder")
    if args.init or getattr(args, f"{other}_encoder"):
        raise UsageError(
            f"--dataset {args.dataset} with --init or --{other}-encoder",
            f"nothing, or --{name}-encoder to go on from",
            f"it pre-trains the {name} encoder alone",
        )
    model = EncoderClassifier(config, name, **(VOICE_TRAINING if name == "audio" else {}))
    taught_by = [read_encoder(teacher, name, config).provenance for teacher in args.teachers]
    origin = {"teachers": taught_by} if taught_by else {}
    if files is None:
        return model, config, origin
    weights = read_mean_encoder(files, name, config)
    model.start_from(weights, ", ".join(map(str, files)))
    return model, config, {f"{name}_encoder": weights.provenance, **origin}


def _from_checkpoint(args: argparse.Namespace) -> tuple[nn.Module, MMADFERConfig, dict]:
    """The model of --init with labels and CHANGEABLE fields as given; all other given options must agree with the file.

    Of the classifier, the rows of the names that the file has too are taken over.
    """
    if args.image_encoder or args.audio_encoder:
        raise UsageError("--init together with encoders", "one or the other", "--init brings its own encoders")
    start, given = read_start(args.init), given_fields(args)
    labels = given.pop("labels", start.config.labels)
    named = config_of(args.model).to_dict() if getattr(args, "model_given", False) else {}
    for key in ("labels", "stem_norm"):  # a released model has no batch norms left
        named.pop(key, None)
    fixed = {key: value for key, value in (named | given).items() if key not in CHANGEABLE}
    if changed := differences(start.config.to_dict(), fixed):
        raise UsageError(
            f"--init {args.init} is of another model: {'; '.join(changed)}",
            "the file's own, or another " + ", ".join(("labels", *CHANGEABLE)),
            "leave these options out, or train that model from --image-encoder and --audio-encoder",
        )
    origin, start = origin_of(start, labels), with_labels(start, labels)
    config = start.config.replace(**{key: value for key, value in given.items() if key in CHANGEABLE})
    start = dataclasses.replace(at_image_size(start, config.image_size), config=config)
    return ContractModel(build_model(start, args.init)), config, origin
