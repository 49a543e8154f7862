"""Files of one pre-trained encoder: ours, and the layouts in which MAE-Face and AudioMAE are published.

MAE-Face (`mae_face_pretrain_vit_base.pth`) and AudioMAE (`pretrained.pth`) are torch files {"model": state,
...} written by MAE's training script, whose other entries (optimizer, epoch, scaler, and an
argparse.Namespace in "args") are not read. The state has timm's names; mapped here, by `rename`:

    cls_token, pos_embed, patch_embed.proj.{w,b}, norm.{w,b}                       as they are
    blocks.N.{norm1,attn.qkv,attn.proj,norm2}.{w,b}                                as they are
    blocks.N.mlp.fc1.{w,b}, blocks.N.mlp.fc2.{w,b}                                 -> mlp.0, mlp.2
    decoder_*, mask_token, head.*, head_dist.*                                     not read
    fc_norm.{w,b} (fine-tuned with average pooling, instead of norm)               -> norm, noted in the provenance

A prefix of all of them ("module.", "encoder." ...) is found where cls_token is. Any other tensor, or a missing one, is
an error that names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mma_edge.audio.logmel import NUM_MEL_BINS
from mma_edge.errors import CheckpointError
from mma_trainer.model import MMADFERConfig, differences
from mma_trainer.weights.checkpoint import FORMAT, load_safely, parse_ours, some, state_of

_BOTH = ("width", "depth", "num_heads", "mlp_ratio", "stem_norm")
ENCODER_FIELDS = {
    "image": (*_BOTH, "image_patch", "image_stem", "image_stem_blocks", "image_norm", "color"),
    "audio": (*_BOTH, "audio_patch", "audio_stem", "audio_stem_blocks", "audio_norm"),
}
"""Fields of the config that an encoder's weights depend on; the others may differ from those of its pre-training."""

CHANNELS = {"image": 3, "audio": 1}  # of the input

_NOT_READ = re.compile(r"decoder_.*|mask_token|head\..*|head_dist\..*")
_KNOWN = re.compile(
    r"cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|norm\.(weight|bias)"
    r"|blocks\.\d+\.(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)"
)


class _InertNamespace:
    """Takes the place of the `argparse.Namespace` in MAE's files: holds its values and does nothing."""


@dataclass(frozen=True)
class EncoderWeights:
    """A pre-trained encoder under our names."""

    state: dict[str, Tensor]  # float32 tensors of one `Encoder` without prompts
    grid: tuple[int, int]  # patches down and across of its position embedding
    head: dict[str, Tensor] = field(default_factory=dict)  # "weight" and "bias" of the one that it was trained with
    provenance: dict = field(default_factory=dict)  # where it comes from, plain values


def read_encoder(path: str | os.PathLike, modality: str, config: MMADFERConfig) -> EncoderWeights:
    """The "image" or "audio" encoder in a file, ours or published, checked against what `config` needs.

    Raises:
        CheckpointError: no such file, code inside it, another architecture (what differs, in words), or
            tensors unknown or missing (by name).
    """
    content = load_safely(Path(path), [(_InertNamespace, "argparse.Namespace")])
    if isinstance(content, dict) and content.get("format") == FORMAT:
        return _read_ours(content, path, modality, config)
    published = state_of(content, "model", "state_dict")
    if not published:
        expected = "an encoder pre-trained with mma-train, or MAE-Face's or AudioMAE's file"
        raise CheckpointError(f"{path} holds no state dict of tensors", expected, "check the path")
    state, unknown, notes = rename(published)
    problems = [f"unknown tensors {some(unknown)}"] if unknown else []
    if problems := problems + _differences(_read_architecture(state, path), modality, config):
        what = f"{path} is not the {modality} encoder that is wanted: {'; '.join(problems)}"
        expected = "a plain ViT as MAE-Face and AudioMAE publish it, of the architecture given here"
        raise CheckpointError(what, expected, "check which file it is and --model")
    layout = {"origin": "published encoder, MAE layout", "file": Path(path).name, **notes}
    return EncoderWeights(state, _grid(state["pos_embed"].shape[1] - 1, modality, config, path), provenance=layout)


def read_mean_encoder(paths: Sequence[str | os.PathLike], modality: str, config: MMADFERConfig) -> EncoderWeights:
    """The encoder in a file, or the mean of the weights, and of the heads, of several (Wortsman et al. 2022).

    The mean says something only of encoders that were trained on from the same weights.

    Raises:
        CheckpointError: as `read_encoder` does, or files that do not hold the same tensors.
    """
    first, *others = (read_encoder(path, modality, config) for path in paths)
    if not others:
        return first
    for path, other in zip(paths[1:], others, strict=True):
        if _shapes(other) != _shapes(first) or other.grid != first.grid:
            expected = "the same tensors, of the same shapes"
            hint = "average encoders that one file was the start of"
            raise CheckpointError(f"{paths[0]} and {path} have no mean", expected, hint)
    states, heads = [one.state for one in (first, *others)], [one.head for one in (first, *others)]
    provenance = {"mean_of": [one.provenance for one in (first, *others)]}
    return EncoderWeights(_mean(states), first.grid, _mean(heads), provenance)


def _mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of each tensor by name; what is not a real number (a batch norm's count of batches) is the first one's."""
    return {
        key: torch.stack([state[key] for state in states]).mean(dim=0) if first.is_floating_point() else first
        for key, first in states[0].items()
    }


def _shapes(weights: EncoderWeights) -> dict[tuple[str, str], tuple[int, ...]]:
    parts = {"encoder": weights.state, "head": weights.head}
    return {(part, key): tuple(tensor.shape) for part, state in parts.items() for key, tensor in state.items()}


def rename(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str], dict[str, str]]:
    """Published names -> ours; also the unknown names, and notes for the provenance."""
    prefixes = [key.removesuffix("cls_token") for key in state if re.fullmatch(r"(.*\.)?cls_token", key)]
    prefix = prefixes[0] if len(prefixes) == 1 else ""
    renamed, unknown, notes = {}, [], {}
    for key, tensor in state.items():
        name = key.removeprefix(prefix)
        if name.startswith("fc_norm."):
            if f"{prefix}norm.weight" in state:
                continue
            # Trained on the mean of the patches; the encoder's own norm was deleted when fine-tuning began.
            notes["final_norm"] = "fc_norm of a fine-tuned model"
            name = name.removeprefix("fc_")
        elif _NOT_READ.fullmatch(name) or _NOT_READ.fullmatch(key.removeprefix("module.")):
            continue
        if _KNOWN.fullmatch(name) and key.startswith(prefix):
            renamed[name.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.2.")] = tensor
        else:
            unknown.append(key)
    return renamed, unknown, notes


def _read_architecture(state: dict[str, Tensor], path: str | os.PathLike) -> dict[str, int]:
    """Width, depth, MLP ratio, patch and channels, read from the shapes of the tensors."""
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.0.weight")
    if missing := [key for key in needed if key not in state]:
        expected = "a ViT encoder's state dict, as MAE-Face and AudioMAE publish it"
        hint = "check which file it is; a whole MMA-DFER goes to --init"
        raise CheckpointError(f"{path} has no {', '.join(missing)}", expected, hint)
    projection, hidden = state["patch_embed.proj.weight"], state["blocks.0.mlp.0.weight"]
    if projection.ndim != 4 or hidden.ndim != 2 or state["pos_embed"].ndim != 3:
        raise CheckpointError(f"{path} has a patch projection, an MLP or positions of odd shape", "those of a ViT")
    return {
        "channels": projection.shape[1],
        "width": projection.shape[0],
        "depth": 1 + max(int(m.group(1)) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))),
        "mlp_ratio": hidden.shape[0] // projection.shape[0],
        "patch": projection.shape[2],
    }


def _differences(found: dict[str, int], modality: str, config: MMADFERConfig) -> list[str]:
    wanted = {
        "channels": CHANNELS[modality],
        **{key: getattr(config, key) for key in ("width", "depth", "mlp_ratio")},
        "patch": getattr(config, f"{modality}_patch"),
    }
    problems = differences(found, wanted)
    if stem := getattr(config, f"{modality}_stem"):
        problems.append(f"{modality}_stem is empty in the file, {','.join(map(str, stem))} here")
    return problems


def _grid(patches: int, modality: str, config: MMADFERConfig, path: str | os.PathLike) -> tuple[int, int]:
    """Patches down and across: of a square face, or of a log-mel of any length."""
    if modality == "image":
        down = across = round(max(patches, 0) ** 0.5)
        expected = "a square number"
    else:
        across = NUM_MEL_BINS // config.audio_patch
        down, expected = patches // across, f"a multiple of {across} (patches that do not overlap)"
    if patches < 1 or down * across != patches:
        raise CheckpointError(f"{path}: pos_embed covers {patches} patches", expected, "check which file it is")
    return down, across


def _read_ours(content: dict, path: str | os.PathLike, modality: str, config: MMADFERConfig) -> EncoderWeights:
    checkpoint = parse_ours(content, path)
    state = {k.removeprefix("encoder."): v for k, v in checkpoint.state_dict.items() if k.startswith("encoder.")}
    if not state:
        expected = f"the last.pt of --dataset {'faces' if modality == 'image' else 'voices'}"
        raise CheckpointError(f"{path} is not a single encoder", expected, "a whole MMA-DFER goes to --init")
    found = checkpoint.config
    here = config.to_dict()
    problems = differences(found.to_dict(), {key: here[key] for key in ENCODER_FIELDS[modality]})
    first = state.get("patch_embed.stem.0.weight", state.get("patch_embed.proj.weight"))
    channels, wanted = first.shape[1] if first is not None else 0, CHANNELS[modality]
    if not problems and channels != wanted:
        problems.append(f"its input has {channels} channels, not the {wanted} of {modality}")
    if problems:
        what = f"{path} was trained with another architecture: {'; '.join(problems)}"
        hint = "give the options that it was pre-trained with, or another file"
        raise CheckpointError(what, "an encoder of this model", hint)
    head = {k.removeprefix("head."): v for k, v in checkpoint.state_dict.items() if k.startswith("head.")}
    return EncoderWeights(state, getattr(found, f"{modality}_grid"), head, checkpoint.provenance)
