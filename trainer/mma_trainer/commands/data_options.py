"""Options of mma-train that say what to train on, and the task that they describe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mma_edge.errors import UsageError
from mma_trainer.commands.model_options import VOICE_TRAINING
from mma_trainer.data import check
from mma_trainer.data.batch import Task
from mma_trainer.data.cache import ClipCache
from mma_trainer.data.entries import ClipEntry
from mma_trainer.data.lists import scan_fold
from mma_trainer.data.loader import ListTask
from mma_trainer.data.protocols import NO_AUDIO, PROTOCOLS, Fold, describe, find_fold
from mma_trainer.data.public.background import load_noise, load_rooms
from mma_trainer.data.public.faces import Faces, load_faces
from mma_trainer.data.public.voices import CORPORA, RAVDESS, Voices, load_voices, parse_speakers
from mma_trainer.data.tasks.balance import class_coverage
from mma_trainer.data.tasks.faces import FaceTask
from mma_trainer.data.tasks.pairs import PAIRED_FACE_BALANCE, PseudoPairTask
from mma_trainer.data.tasks.voices import CORPUS_BALANCE, Surroundings, VoiceTask
from mma_trainer.labels import DFEW_LABELS
from mma_trainer.model import MMADFERConfig
from mma_trainer.training.pretrain import OwnTeacher, PairTeachers, Teacher
from mma_trainer.training.processes import Processes
from mma_trainer.training.recipe import Recipe
from mma_trainer.weights.checkpoint import build_model
from mma_trainer.weights.encoders import read_encoder, read_mean_encoder
from mma_trainer.weights.start import read_start, temperatures_of, with_labels

LISTS = ("lists", "dfew", "mafw", "prepared")
"""Data sets of annotated clips; the others are the public unimodal sets."""
_SMALL = Recipe(
    batch_size=64,
    lr=2e-3,
    weight_decay=5e-2,
    warmup_epochs=1,
    clip_grad=1.0,
    precision="bf16",
    schedule="step",
    optimizer="muon",
)
"""An encoder from random weights."""
RECIPES = {
    **dict.fromkeys(LISTS, Recipe()),
    "faces": replace(_SMALL, epochs=15, ema_decay=0.999),
    "voices": replace(_SMALL, epochs=44, ema_decay=0.998, label_smoothing=0.1),
    "pseudo": replace(
        _SMALL,
        epochs=7,
        batch_size=32,
        lr=1e-3,
        weight_decay=1e-2,
        ema_decay=0.98,
        modality_dropout=0.25,
        optimizer="adamw",
    ),
}
"""What each data set is trained with unless told otherwise: annotated clips by the paper's protocol."""
ALL_FOLDS = "all"
# A class of n votes is drawn in proportion to n to this power: nearly as they are, which gives the better features, and
# in the pairs more evenly (Kang et al. 2020).
FACE_BALANCE = 0.5
HELD_OUT = ("javanese/04,05",)
LEAVABLE = tuple(name for name in CORPORA if name != RAVDESS)
VOICE_EASY_SHARE = 0.25  # share of the epochs in which voices are disturbed more and more, from random weights
VOICE_SHORT_SHARE = 0.8  # share of the epochs, the first ones, that hear less than the whole window
PSEUDO_CLIPS_PER_EPOCH = 2048
PSEUDO_MISMATCH = 0.3


def parse_fold(text: str) -> int | str:
    """A fold's number, or "all"."""
    if text != ALL_FOLDS and (not text.isdecimal() or int(text) < 1):
        raise argparse.ArgumentTypeError(f"{text!r} is not a fold: expected its number, 1 and up, or {ALL_FOLDS}")
    return text if text == ALL_FOLDS else int(text)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset",
        choices=RECIPES,
        default="lists",
        help="dfew, mafw: by the authors' annotation lists; prepared: by mma-train prepare; "
        "lists: any in their format; faces, voices, pseudo: the default model's",
    )
    data.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the data set (dfew, mafw: or DFEW_ROOT, MAFW_ROOT, ./data/DFEW ...); "
        "of ferplus_*.npz, ravdess_speech/, voices/, noise/, rooms/ for faces, voices and pseudo",
    )
    data.add_argument("--fold", type=parse_fold, default=1, metavar="N", help="fold of the data set, or all in turn")
    data.add_argument("--train-list", type=Path, metavar="FILE", help="annotation list to train on")
    data.add_argument("--val-list", type=Path, metavar="FILE", help="annotation list to report on")
    data.add_argument("--frames-root", type=Path, metavar="DIR", help="where the lists' frame folders lie")
    data.add_argument("--audio-root", type=Path, metavar="DIR", help="parallel tree of .wav files (none: all silent)")
    data.add_argument("--skip-bad", action="store_true", help="leave bad clips out instead of stopping before training")
    data.add_argument(
        "--leave-out",
        nargs="*",
        default=list(HELD_OUT),
        metavar="CORPUS",
        help="voices, pseudo: corpora of voices/ that are not trained on, or CORPUS/SPEAKER,... for some people of one "
        "(default: %(default)s, two of the five speakers of the audio-visual clips: the model is judged with them; "
        "nothing after the option: none)",
    )
    data.add_argument(
        "--teachers",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="faces, voices: encoders trained before, whose answers become most of the targets",
    )
    data.add_argument("--workers", type=int, default=2, metavar="N", help="loader processes for lists")
    data.add_argument("--cache", type=Path, metavar="DIR", help="keep decoded frames and log-mels there")
    data.add_argument("--cache-gb", type=float, default=50.0, metavar="GB", help="most that --cache may take")


def set_labels(args: argparse.Namespace) -> None:
    """Fill in `args.labels`, before the model's config is made, where the user gave none and the data set has them."""
    if args.labels is None and args.dataset in PROTOCOLS:
        args.labels = ",".join(PROTOCOLS[args.dataset].labels)
    elif args.labels is None and args.dataset == "prepared" and args.data:
        args.labels = ",".join(describe(args.data)["labels"])


def num_folds(args: argparse.Namespace) -> int:
    """Folds of the data set that was asked for."""
    if args.dataset in PROTOCOLS:
        return PROTOCOLS[args.dataset].folds
    if args.dataset == "prepared":
        if args.data is None:
            raise UsageError("--fold all with --dataset prepared and no --data", "--data DIR", "see mma-train --help")
        return describe(args.data)["folds"]
    what = f"--fold all with --dataset {args.dataset}"
    raise UsageError(what, f"{', '.join(PROTOCOLS)} or prepared", "name one fold")


def open_fold(args: argparse.Namespace, config: MMADFERConfig) -> Fold:
    """Where the lists that were asked for lie."""
    if args.fold == ALL_FOLDS:
        raise UsageError(f"--fold {ALL_FOLDS} where one fold is needed", "a number")
    if args.dataset == "lists":
        if not (args.train_list and args.val_list):
            raise UsageError("no lists", "--train-list and --val-list", "see mma-train --help for the format")
        return Fold(args.train_list, args.val_list, args.frames_root, args.audio_root, config.labels)
    if args.train_list or args.val_list:
        raise UsageError(f"--train-list or --val-list with --dataset {args.dataset}", "--dataset lists")
    fold = find_fold(args.dataset, args.fold, args.data, args.frames_root, args.audio_root)
    if fold.labels != config.labels:
        raise UsageError(
            f"a model of the {len(config.labels)} classes {', '.join(config.labels)} for --dataset {args.dataset}",
            f"{', '.join(fold.labels)}",
            "leave --labels out, or start from a checkpoint with these classes",
        )
    return fold


def open_clips(args: argparse.Namespace, fold: Fold) -> tuple[list[ClipEntry], list[ClipEntry]]:
    """Checked training and test clips; what is bad has been named, and refused unless --skip-bad."""
    train, val, problems = scan_fold(fold.train_list, fold.val_list, fold.frames_root, fold.audio_root, fold.labels)
    is_first = Processes.from_environment().is_writer
    if args.dataset == "prepared":  # a class may be of people on one side only: mma-train prepare has named it
        problems = [problem for problem in problems if problem.kind != check.ABSENT_CLASS]
    notify = check.say_on_stderr if is_first else lambda line: None
    check.settle(problems, args.skip_bad, args.run if is_first else None, notify)
    silent = sum(entry.wav is None for entry in (*train, *val))
    if is_first and silent and fold.audio_root != NO_AUDIO:
        print(f"{silent} of {len(train) + len(val)} clips have no wav and are heard as silence")
    return train, val


def people_on_sides(args: argparse.Namespace, task: Task | ListTask) -> dict[str, int | str]:
    """How many people a prepared data set trains on and is tested on, in words of a report; {} for other data sets."""
    if args.dataset != "prepared":
        return {}
    people = describe(args.data)["people"]
    train, val = ({people.get(entry.name) for entry in entries} for entries in (task.train, task.val))
    if None in train | val:
        return {"people": "not known for all clips: some may be on both sides"}
    sides = {"training": train, "test": val, "both": train & val}
    return {f"people in {name}": len(side) for name, side in sides.items()}


def make_task(args: argparse.Namespace, config: MMADFERConfig, recipe: Recipe) -> Task:
    if args.teachers and args.dataset not in ("faces", "voices"):
        what = f"--teachers with --dataset {args.dataset}"
        raise UsageError(what, "faces or voices", "pairs are taught by the two encoders that they join")
    if args.dataset in LISTS:
        train, val = open_clips(args, open_fold(args, config))
        cache = ClipCache(args.cache, (*train, *val), args.cache_gb) if args.cache else None
        if cache and cache.clips_kept < cache.clips and Processes.from_environment().is_writer:
            print(f"{args.cache} has room for the frames of {cache.clips_kept} of {cache.clips} clips; see --cache-gb")
        sizes = config.image_size, recipe.batch_size, recipe.seed
        return ListTask(train, val, *sizes, recipe.modality_dropout, args.workers, cache, args.device != "cpu")
    if args.data is None:
        raise UsageError(f"--dataset {args.dataset} without --data", "--data DIR", "see mma-train --help")
    if config.labels[: len(DFEW_LABELS)] != DFEW_LABELS:
        what = f"--labels {','.join(config.labels)} with --dataset {args.dataset}"
        raise UsageError(what, f"{','.join(DFEW_LABELS)} first")
    splits = ("train", "val")
    if args.dataset == "faces":
        faces = [load_faces(args.data, split) for split in splits]
        teacher = _teacher(args, config, "image", config.num_classes)
        return FaceTask(*faces, config.image_size, recipe.batch_size, recipe.seed, FACE_BALANCE, teacher)
    (corpora, without), is_alone = trained_corpora(args.leave_out), args.dataset == "voices"
    voices = [load_voices(args.data, split, corpora, is_alone and split == "train", without) for split in splits]
    surroundings = Surroundings(load_noise(args.data, "train"), load_rooms(args.data))
    if is_alone:
        short_epochs = round(VOICE_SHORT_SHARE * recipe.epochs)
        easy_epochs = 0 if args.audio_encoder else round(VOICE_EASY_SHARE * recipe.epochs)
        teacher = _teacher(args, config, "audio", config.num_classes + VOICE_TRAINING["extra_classes"])
        return VoiceTask(*voices, surroundings, recipe.batch_size, recipe.seed, short_epochs, easy_epochs, teacher)
    pairs = [(load_faces(args.data, split), part) for split, part in zip(splits, voices, strict=True)]
    sizes = config.image_size, recipe.batch_size, recipe.seed, PSEUDO_CLIPS_PER_EPOCH
    if args.init:
        start = with_labels(read_start(args.init), config.labels)
        teacher = OwnTeacher(build_model(start, args.init), temperatures_of(start))
    else:
        teacher = _pair_teachers(args, config, *pairs[0])
    return PseudoPairTask(*pairs, surroundings, *sizes, recipe.modality_dropout, PSEUDO_MISMATCH, teacher)


def _teacher(args: argparse.Namespace, config: MMADFERConfig, modality: str, num_classes: int) -> Teacher | None:
    """Those of --teachers, if any."""
    weights = [read_encoder(file, modality, config) for file in args.teachers]
    return Teacher(config, modality, weights, num_classes) if weights else None


def _pair_teachers(
    args: argparse.Namespace, config: MMADFERConfig, faces: Faces, voices: Voices
) -> PairTeachers | None:
    """The two encoders that are joined; None, and said, where they are published ones, which have no classes."""
    files = {"image": args.image_encoder, "audio": args.audio_encoder}
    weights = {name: read_mean_encoder(paths, name, config) for name, paths in files.items() if paths}
    if len(weights) == len(files) and all(read.head for read in weights.values()):
        both = (Teacher(config, name, [read], config.num_classes) for name, read in weights.items())
        votes = torch.from_numpy(faces.targets.sum(axis=0)).clamp(min=1)
        face_shift = (PAIRED_FACE_BALANCE - FACE_BALANCE) * votes.log()
        voice_shift = class_coverage(voices, CORPUS_BALANCE)[: config.num_classes].log()
        return PairTeachers(*both, config.color, face_shift, voice_shift)
    if Processes.from_environment().is_writer:
        print("fusion learns from the labels alone: no two encoders with the heads of their training are given")
    return None


def trained_corpora(left_out: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All corpora of voices but those, and the speakers ("corpus/speaker") who are left out of the others.

    UsageError for an unknown corpus, or RAVDESS, whose actors 17-20 are reported.
    """
    whole, without = set(), []
    for text in left_out:
        corpus, speakers = parse_speakers(text, LEAVABLE, f"corpus {text!r} left out")
        without += [f"{corpus}/{speaker}" for speaker in speakers]
        if not speakers:
            whole.add(corpus)
    return tuple(name for name in CORPORA if name not in whole), tuple(without)
