"""The authors' checkpoint layout: its key names, and the architecture that the shapes of its tensors tell.

Source: the state dict published with MMA-DFER. The names are historical ("temporal_pre" is the
image's down-projection of the fusion bottleneck), so one table maps them to ours.
"""

from __future__ import annotations

import re

from torch import Tensor

from mma_edge.errors import CheckpointError
from mma_trainer.model.config import MMADFERConfig, default_labels

HEAD_DIM = 64  # of every attention of the published model; no tensor's shape tells it

# (official pattern, our pattern). {n} is a number, {wb} is weight or bias.
_TABLE = [
    (r"image_encoder.temporal_pre.{n}.{wb}", r"fusion.\1.image_down.\2"),
    (r"image_encoder.temporal_pre_norm.{n}.{wb}", r"fusion.\1.image_norm.\2"),
    (r"image_encoder.audio_proj_pre.{n}.0.{wb}", r"fusion.\1.audio_down.\2"),
    (r"image_encoder.audio_proj_pre.{n}.1.{wb}", r"fusion.\1.audio_norm.\2"),
    (r"image_encoder.temporal_att_post.{n}.0.{wb}", r"fusion.\1.image_up.\2"),
    (r"audio_model.temporal_att_post.{n}.0.{wb}", r"fusion.\1.audio_up.\2"),
    (r"image_encoder.all_gate.{n}", r"fusion.\1.image_gate"),
    (r"audio_model.all_gate.{n}", r"fusion.\1.audio_gate"),
    (r"image_encoder.learnable_prompts_init", r"image_prompts.init"),
    (r"audio_model.learnable_prompts_init", r"audio_prompts.init"),
    (r"image_encoder.learnable_prompts_progr.{n}", r"image_prompts.updates.\1"),
    (r"audio_model.learnable_prompts_progr.{n}", r"audio_prompts.updates.\1"),
    (r"(image_encoder|audio_model).blocks.{n}.mlp.fc1.{wb}", r"\1.blocks.\2.mlp.0.\3"),
    (r"(image_encoder|audio_model).blocks.{n}.mlp.fc2.{wb}", r"\1.blocks.\2.mlp.2.\3"),
    (r"(image_encoder|audio_model).((?:blocks.{n}.|patch_embed.|norm.|cls_token|pos_embed).*)", r"\1.\2"),
    (r"vision_proj.{wb}", r"joint.\1"),
    (r"our_classifier.{wb}", r"classifier.\1"),
    (r"temporal_net.cls_token", r"temporal.cls_token"),
    (r"temporal_net.pos_embedding", r"temporal.pos_embed"),
    (r"temporal_net.temporal_transformer.layers.{n}.0.fn.norm.{wb}", r"temporal.blocks.\1.norm_attn.\2"),
    (r"temporal_net.temporal_transformer.layers.{n}.0.fn.norm2.{wb}", r"temporal.blocks.\1.unused_norm_attn.\2"),
    (r"temporal_net.temporal_transformer.layers.{n}.0.fn.fn.(to_q|to_kv).weight", r"temporal.blocks.\1.attn.\2.weight"),
    (r"temporal_net.temporal_transformer.layers.{n}.0.fn.fn.to_out.0.{wb}", r"temporal.blocks.\1.attn.to_out.\2"),
    (r"temporal_net.temporal_transformer.layers.{n}.1.fn.norm.{wb}", r"temporal.blocks.\1.norm_mlp.\2"),
    (r"temporal_net.temporal_transformer.layers.{n}.1.fn.norm2.{wb}", r"temporal.blocks.\1.unused_norm_mlp.\2"),
    (r"temporal_net.temporal_transformer.layers.{n}.1.fn.fn.net.0.{wb}", r"temporal.blocks.\1.mlp.0.\2"),
    (r"temporal_net.temporal_transformer.layers.{n}.1.fn.fn.net.3.{wb}", r"temporal.blocks.\1.mlp.2.\2"),
]


def _regex(pattern: str) -> re.Pattern[str]:
    escaped = pattern.replace(".", r"\.").replace(r"\.*", ".*")
    return re.compile(escaped.replace("{n}", r"(\d+)").replace("{wb}", "(weight|bias)"))


_PATTERNS = [(_regex(old), new) for old, new in _TABLE]
# Classification heads of the pre-trained encoders: in the file, never used.
_UNUSED = re.compile(r"(image_encoder|audio_model)\.head\.(weight|bias)")


def looks_official(state: dict[str, Tensor]) -> bool:
    """Whether any key is one that only the authors' layout has."""
    return any(key.startswith(("our_classifier.", "temporal_net.", "audio_model.")) for key in state)


def rename(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Official keys -> ours; also the unknown keys."""
    renamed, unknown = {}, []
    for key, tensor in state.items():
        if _UNUSED.fullmatch(key):
            continue
        for pattern, replacement in _PATTERNS:
            if pattern.fullmatch(key):
                renamed[pattern.sub(replacement, key).replace("audio_model.", "audio_encoder.")] = tensor
                break
        else:
            unknown.append(key)
    return renamed, unknown


# (tensor under our names, axis) whose length is a number of the architecture.
_SIZES = {
    "positions": ("image_encoder.pos_embed", 1),
    "width": ("image_encoder.patch_embed.proj.weight", 0),
    "image_patch": ("image_encoder.patch_embed.proj.weight", 2),
    "mlp": ("image_encoder.blocks.0.mlp.0.weight", 0),
    "audio_patch": ("audio_encoder.patch_embed.proj.weight", 2),
    "num_prompts": ("image_prompts.init", 0),
    "prompts_per_update": ("image_prompts.updates.0", 0),
    "bottleneck_width": ("fusion.0.image_down.weight", 0),
    "temporal_width": ("joint.weight", 0),
    "temporal_inner": ("temporal.blocks.0.attn.to_q.weight", 0),
    "temporal_mlp": ("temporal.blocks.0.mlp.0.weight", 0),
    "classes": ("classifier.weight", 0),
}


def read_config(state: dict[str, Tensor]) -> MMADFERConfig:
    """The architecture of a state dict whose keys are already ours."""
    if missing := [key for key in dict.fromkeys(key for key, _ in _SIZES.values()) if key not in state]:
        hint = "check that the download is complete"
        raise CheckpointError(f"checkpoint lacks {', '.join(missing)}", "a whole MMA-DFER state dict", hint)
    sizes = {name: state[key].shape[axis] for name, (key, axis) in _SIZES.items()}
    positions, mlp, inner, classes = map(sizes.pop, ("positions", "mlp", "temporal_inner", "classes"))
    num_patches = positions - 1 - sizes["num_prompts"]
    side = round(max(num_patches, 0) ** 0.5)
    if side * side != num_patches:
        what = f"image_encoder.pos_embed covers {num_patches} patches"
        raise CheckpointError(what, "a square number", "check where the file comes from")

    def count(pattern: str) -> int:
        return 1 + max(int(m.group(1)) for key in state if (m := re.match(pattern, key)))

    return MMADFERConfig(
        image_size=side * sizes["image_patch"],
        labels=default_labels(classes),
        depth=count(r"image_encoder\.blocks\.(\d+)\."),
        num_heads=max(1, sizes["width"] // HEAD_DIM),
        mlp_ratio=mlp // sizes["width"],
        temporal_heads=max(1, inner // HEAD_DIM),
        temporal_head_dim=HEAD_DIM,
        temporal_depth=count(r"temporal\.blocks\.(\d+)\."),
        **sizes,
    )
