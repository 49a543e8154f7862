"""MAE-Face's and AudioMAE's files as published start the encoders, exactly and safely, or say what is wrong."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY, make_model, one_line
from torch import Tensor

from mma_edge.errors import CheckpointError, UsageError
from mma_trainer.architectures import ARCHITECTURES, Architecture
from mma_trainer.commands import model_options as cli_model
from mma_trainer.model import MMADFERConfig
from mma_trainer.model.encoder import Encoder
from mma_trainer.training.pretrain import EncoderClassifier, initialise_encoder, model_from_encoders, resize_positions
from mma_trainer.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from mma_trainer.weights.encoders import EncoderWeights, read_encoder, read_mean_encoder, rename

SMALL = TINY.replace(image_size=32, image_stem=(), audio_stem=(), image_patch=16, audio_patch=16, mlp_ratio=4)


def published(
    channels: int, patches: int, width: int = 32, depth: int = 2, patch: int = 16, device: str = "cpu"
) -> dict[str, Tensor]:
    """A state dict with the names, order and shapes of MAE's pre-training (encoder and decoder), seeded."""
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + patches, width),
        "mask_token": (1, 1, 512),
        "decoder_pos_embed": (1, 1 + patches, 512),
        "patch_embed.proj.weight": (width, channels, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    for prefix, blocks, w in (("blocks", depth, width), ("decoder_blocks", 1, 512)):
        for n in range(blocks):
            for name, shape in (
                ("norm1", (w,)),
                ("attn.qkv", (3 * w, w)),
                ("attn.proj", (w, w)),
                ("norm2", (w,)),
                ("mlp.fc1", (4 * w, w)),
                ("mlp.fc2", (w, 4 * w)),
            ):
                shapes |= {f"{prefix}.{n}.{name}.weight": shape, f"{prefix}.{n}.{name}.bias": shape[:1]}
    for name, shape in (
        ("norm", (width,)),
        ("decoder_embed", (512, width)),
        ("decoder_norm", (512,)),
        ("decoder_pred", (channels * patch**2, 512)),
    ):
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    generator = None if device == "meta" else torch.Generator().manual_seed(channels)
    return {key: 0.2 * torch.randn(shape, generator=generator, device=device) for key, shape in shapes.items()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Write a state as MAE's training script does, the script's options beside it."""

    def write(state: dict[str, Tensor], name: str = "mae.pth", **others: object) -> Path:
        args = argparse.Namespace(batch_size=64, lr=1e-3, output_dir="out", distributed=True, blr=None)
        content = {"model": state, "optimizer": {"state": {}}, "epoch": 399, "scaler": {"scale": 1.0}, "args": args}
        torch.save({**content, **others}, tmp_path / name)
        return tmp_path / name

    return write


def reference_features(state: dict[str, Tensor], x: Tensor, heads: int) -> Tensor:
    """A ViT written out by the published names: the final norm's [CLS]."""
    width = state["cls_token"].shape[-1]
    x = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), 1, width), x], dim=1) + state["pos_embed"]

    def part(kind: str, name: str, y: Tensor) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.layer_norm(y, (width,), weight, bias, 1e-6) if kind == "norm" else F.linear(y, weight, bias)

    for n in range(2):
        qkv = part("linear", f"blocks.{n}.attn.qkv", part("norm", f"blocks.{n}.norm1", x))
        q, k, v = (y.unflatten(-1, (heads, -1)) for y in qkv.split(width, dim=-1))  # (B, T, H, D)
        weights = (torch.einsum("bqhd,bkhd->bhqk", q, k) / (width / heads) ** 0.5).softmax(dim=-1)
        y = torch.einsum("bhqk,bkhd->bqhd", weights, v).flatten(2)
        x = x + part("linear", f"blocks.{n}.attn.proj", y)
        y = F.gelu(part("linear", f"blocks.{n}.mlp.fc1", part("norm", f"blocks.{n}.norm2", x)))
        x = x + part("linear", f"blocks.{n}.mlp.fc2", y)
    return part("norm", "norm", x)[:, 0]


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_an_encoder_from_a_published_file_computes_the_published_features(save: Callable, modality: str) -> None:
    channels, patches, shape = {"image": (3, 4, (2, 3, 32, 32)), "audio": (1, 256, (2, 1, 512, 128))}[modality]
    state = published(channels, patches)
    weights = read_encoder(save(state), modality, SMALL)
    assert weights.grid == {"image": (2, 2), "audio": (32, 8)}[modality]
    encoder = Encoder(SMALL, modality)
    initialise_encoder(encoder, weights, "the file")
    x = torch.randn(shape)
    with torch.inference_mode():
        features = encoder.eval().encode(encoder.embed(x))
        expected = reference_features(state, x, SMALL.num_heads)
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.05


def test_positions_are_resized_bicubically_and_those_of_prompts_stay_random(save: Callable) -> None:
    """AudioMAE's 64x8 grid to 32x8, MAE-Face's 14x14 to 7x7."""
    config = SMALL.replace(image_size=112, num_prompts=60, prompts_per_update=30)
    for modality, channels, old, new in (("image", 3, (14, 14), (7, 7)), ("audio", 1, (64, 8), (32, 8))):
        state = published(channels, old[0] * old[1])
        weights = read_encoder(save(state), modality, config)
        assert weights.grid == old
        encoder = Encoder(config, modality, config.num_prompts)
        before = encoder.pos_embed.detach().clone()
        initialise_encoder(encoder, weights, "the file")
        after, patches = encoder.pos_embed.detach(), new[0] * new[1]
        theirs = state["pos_embed"]
        assert torch.equal(after[:, 0], theirs[:, 0])
        picture = theirs[:, 1:].transpose(1, 2).reshape(1, 32, *old)
        expected = F.interpolate(picture, new, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)
        torch.testing.assert_close(after[:, 1 : 1 + patches], expected, rtol=0, atol=0)
        assert torch.equal(after[:, 1 + patches :], before[:, 1 + patches :])
        assert 0.9 < after[:, 1 + patches :].std() < 1.1


@pytest.mark.parametrize(("modality", "channels", "patches"), [("image", 3, 196), ("audio", 1, 512)])
def test_the_published_files_names_and_shapes_are_those_of_our_vit_b(
    modality: str, channels: int, patches: int
) -> None:
    """All tensors of ViT-B files, the decoders' passed over; nothing is allocated."""
    state = published(channels, patches, width=768, depth=12, device="meta")
    assert len([key for key in state if not key.startswith(("decoder", "mask"))]) == 4 + 12 * 12 + 2
    renamed, unknown, notes = rename(state)
    assert unknown == [] and notes == {}
    with torch.device("meta"):
        encoder = Encoder(MMADFERConfig(), modality)
    grid = {"image": (14, 14), "audio": (64, 8)}[modality]
    renamed["pos_embed"] = resize_positions(renamed["pos_embed"], grid, encoder.grid)
    assert {key: value.shape for key, value in renamed.items()} == {
        key: value.shape for key, value in encoder.state_dict().items()
    }


@pytest.mark.parametrize("wrap", ["module.{}", "encoder.{}", "module.encoder.{}", "bare", "state_dict"])
def test_prefixes_and_wrappings_are_seen_through(tmp_path: Path, save: Callable, wrap: str) -> None:
    state = published(3, 4)
    wrapped = {wrap.format(key) if "{}" in wrap else key: value for key, value in state.items()}
    path = save(wrapped)
    if wrap in ("bare", "state_dict"):
        torch.save(state if wrap == "bare" else {"state_dict": state, "epoch": 3}, path)
    torch.testing.assert_close(read_encoder(path, "image", SMALL).state["norm.bias"], state["norm.bias"])


def test_a_fine_tuned_files_head_is_passed_over_and_its_norm_found(save: Callable) -> None:
    state = published(1, 512)
    state |= {"head.weight": torch.zeros(527, 32), "head.bias": torch.zeros(527)}
    both = {**state, "fc_norm.weight": torch.zeros(32), "fc_norm.bias": torch.zeros(32)}
    read = read_encoder(save(both), "audio", SMALL)
    assert torch.equal(read.state["norm.weight"], state["norm.weight"]) and "final_norm" not in read.provenance
    only = {key.replace("norm.", "fc_norm.") if key.startswith("norm.") else key: v for key, v in state.items()}
    read = read_encoder(save(only), "audio", SMALL)
    assert torch.equal(read.state["norm.weight"], state["norm.weight"])
    assert read.provenance["final_norm"].startswith("fc_norm")  # it is not the same thing, and the run's file says so


def refused(path: Path, modality: str = "image", config: MMADFERConfig = SMALL) -> str:
    with pytest.raises(CheckpointError) as error:
        weights = read_encoder(path, modality, config)
        initialise_encoder(Encoder(config, modality), weights, str(path))
    return one_line(error.value)


def test_what_does_not_fit_is_listed_in_one_line(save: Callable, tmp_path: Path) -> None:
    state = published(3, 4)
    odd = {**state, "blocks.0.ls1.gamma": torch.zeros(32), "dist_token": torch.zeros(1, 1, 32)}
    assert "unknown tensors blocks.0.ls1.gamma, dist_token" in refused(save(odd))
    less = {key: value for key, value in state.items() if key not in ("norm.bias", "blocks.1.attn.qkv.weight")}
    assert "missing blocks.1.attn.qkv.weight, norm.bias" in refused(save(less))
    text = refused(save(published(3, 4, width=48, depth=3)))
    assert "width is 48 in the file, 32 here" in text and "depth is 3 in the file, 2 here" in text
    assert "channels is 1 in the file, 3 here" in refused(save(published(1, 512)))
    assert "image_stem is empty in the file, 4 here" in refused(save(state), config=SMALL.replace(image_stem=(4,)))
    assert "pos_embed covers 5 patches" in refused(save(published(3, 5)))
    assert "1212 patches; expected a multiple of 8" in refused(save(published(1, 1212)), "audio")  # overlapping ones
    assert "no cls_token" in refused(save({"fc.weight": torch.zeros(3, 3)}))
    assert "no state dict" in refused(save({}))
    for key in ("pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"):
        assert "odd shape" in refused(save({**state, key: torch.zeros(3)}))
    whole = make_model(SMALL)
    save_checkpoint(tmp_path / "whole.pt", Checkpoint(SMALL, whole.state_dict()))
    assert "--init" in refused(tmp_path / "whole.pt")


def test_the_scripts_options_are_let_in_and_nothing_else_is(save: Callable, tmp_path: Path) -> None:
    path, proof = save(published(3, 4)), tmp_path / "proof"
    with pytest.raises(Exception, match=r"argparse\.Namespace"):  # torch alone refuses the very file
        torch.load(path, weights_only=True)

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.system, (f"touch '{proof}'",)

    for args in (Bomb(), argparse.Namespace(hook=Bomb())):
        assert "system" in refused(save(published(3, 4), args=args))
    assert not proof.exists()
    assert "argparse.HelpFormatter" in refused(save(published(3, 4), args=argparse.HelpFormatter))
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace.*--image-encoder"):  # no whole model's file has one
        load_checkpoint(save(published(3, 4)))


def test_our_own_encoders_fit_models_of_other_variants_and_sizes_and_no_other_architecture(tmp_path: Path) -> None:
    for modality in ("image", "audio"):
        encoder = EncoderClassifier(TINY, modality)
        save_checkpoint(tmp_path / f"{modality}.pt", Checkpoint(TINY, encoder.state_dict(), {"dataset": modality}))
    config = TINY.replace(image_size=32, labels=("a", "b"), fusion="mult", prompts="none", drop_path=0.3)
    image, audio = (read_encoder(tmp_path / f"{m}.pt", m, config) for m in ("image", "audio"))
    assert image.grid == (2, 2) and image.provenance == {"dataset": "image"}
    model = model_from_encoders(config, image, audio)
    assert torch.equal(model.audio_encoder.norm.weight, audio.state["norm.weight"])
    assert model.image_encoder.pos_embed.shape[1] == 17
    assert model_from_encoders(config.replace(modalities="audio"), None, audio).image_encoder is None
    for change, said in (
        ({"width": 64}, "width is 32 in the file, 64 here"),
        ({"image_stem": (8,), "color": "grey"}, "image_stem is 4 in the file, 8 here; color is rgb in the file, grey"),
    ):
        assert said in refused(tmp_path / "image.pt", config=TINY.replace(**change))
    assert "1 channels, not the 3" in refused(tmp_path / "audio.pt", config=TINY.replace(image_stem=(4,)))


def test_several_files_of_an_encoder_are_the_mean_of_their_weights(tmp_path: Path) -> None:
    config, paths = TINY.replace(stem_norm="batch"), [tmp_path / "a.pt", tmp_path / "b.pt"]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        encoder = EncoderClassifier(config, "audio")
        save_checkpoint(path, Checkpoint(config, encoder.state_dict(), {"seed": seed}))
    one, other = (read_encoder(path, "audio", config) for path in paths)
    both = read_mean_encoder(paths, "audio", config)
    assert both.provenance == {"mean_of": [{"seed": 0}, {"seed": 1}]} and both.grid == one.grid
    for mean, a, b in ((both.state, one.state, other.state), (both.head, one.head, other.head)):
        assert set(mean) == set(a)
        for key in mean:
            torch.testing.assert_close(mean[key].double(), (a[key].double() + b[key].double()) / 2)
    alone = read_mean_encoder(paths[1:], "audio", config)
    assert alone.provenance == {"seed": 1} and torch.equal(alone.head["weight"], other.head["weight"])
    wider = EncoderClassifier(config, "audio", extra_classes=1)
    save_checkpoint(tmp_path / "c.pt", Checkpoint(config, wider.state_dict(), {}))
    with pytest.raises(CheckpointError, match=r"a\.pt and .*c\.pt have no mean; expected the same tensors"):
        read_mean_encoder([*paths, tmp_path / "c.pt"], "audio", config)


def options(*argv: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="lists")
    cli_model.add_model_options(parser)
    return parser.parse_args([str(word) for word in argv])


def test_two_published_files_are_all_that_a_model_needs(save: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "vit-b", Architecture("vit-b", vars(SMALL)))
    face, sound = save(published(3, 196), "mae_face.pth"), save(published(1, 512), "audiomae.pth")
    args = options("--image-encoder", face, "--audio-encoder", sound)
    model, config, origin = cli_model.make_model(args, cli_model.make_config(args))
    assert config == SMALL and origin["audio_encoder"]["file"] == "audiomae.pth"
    assert torch.isfinite(model(torch.zeros(1, 16, 32, 32, 3, dtype=torch.uint8), torch.zeros(1, 512, 128))).all()
    args = options("--image-encoder", face, "--set", "modalities=vision")
    model, _, origin = cli_model.make_model(args, cli_model.make_config(args))
    assert model.model.audio_encoder is None and list(origin) == ["image_encoder"]
    args = options("--image-encoder", face)
    with pytest.raises(UsageError, match="--image-encoder and --audio-encoder"):
        cli_model.make_model(args, cli_model.make_config(args))


def test_weights_that_lack_positions_are_missing_them_by_name() -> None:
    encoder = Encoder(SMALL, "image")
    state = {key: value for key, value in encoder.state_dict().items() if key != "pos_embed"}
    with pytest.raises(CheckpointError, match="missing pos_embed"):
        initialise_encoder(encoder, EncoderWeights(state, (2, 2)), "a file")
