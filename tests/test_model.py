"""The model is MMA-DFER: the authors' logits on their weights, the paper's parameter count, the parts as described."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import make_model, save_as_the_authors
from torch import Tensor

from mma_edge.errors import CheckpointError
from mma_trainer.labels import DFEW_LABELS, MAFW_LABELS
from mma_trainer.model import MMADFER, MMADFERConfig, config_of
from mma_trainer.model.encoder import ProgressivePrompts, attend
from mma_trainer.model.fusion import FusionBottleneck
from mma_trainer.model.inputs import ContractModel, prepare_frames
from mma_trainer.weights.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def seeded(reference_dir: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("seeded_weights", reference_dir / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def seeded_state(seeded: ModuleType) -> dict[str, Tensor]:
    """The seeded weights at 112 px and 7 classes; a tensor depends on its key and shape alone."""
    return {key: torch.from_numpy(value) for key, value in seeded.official_state_dict(112, 7).items()}


@pytest.fixture(scope="module", params=[(112, 7), (160, 11)], ids=["s112_c7", "s160_c11"])
def published(
    request: pytest.FixtureRequest, seeded: ModuleType, seeded_state: dict, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, MMADFER]]:
    """A full-size model that came through a file as the authors publish it; the file is removed at once."""
    size, classes = request.param
    state = dict(seeded_state)
    for key, shape in (
        ("image_encoder.pos_embed", [1, 1 + (size // 16) ** 2 + 6, 768]),
        ("our_classifier.weight", [classes, 512]),
        ("our_classifier.bias", [classes]),
    ):
        state[key] = torch.from_numpy(seeded.seeded(key, shape))
    path = save_as_the_authors(tmp_path_factory.mktemp("published") / "model_best.pth", state)
    model = load_checkpoint(path)
    path.unlink()
    yield f"s{size}_c{classes}", model


def test_the_authors_logits_are_reproduced_through_a_file_in_their_layout(
    published: tuple[str, MMADFER], seeded: ModuleType, reference_dir: Path
) -> None:
    name, model = published
    with np.load(reference_dir / "golden_logits.npz") as golden:
        keys = [key for key in golden if key.startswith(name)]
        assert len(keys) == {"s112_c7": 2, "s160_c11": 1}[name]
        for key in keys:
            seed, clips = map(int, re.fullmatch(r".*_seed(\d+)_n(\d+)", key).groups())
            frames, mel = seeded.golden_inputs(model.config.image_size, seed, clips)
            torch.set_num_threads(os.cpu_count())  # a full-size model keeps all of them busy
            with torch.inference_mode():
                logits = model(torch.from_numpy(frames), torch.from_numpy(mel))
            torch.set_num_threads(1)
            np.testing.assert_allclose(logits.numpy(), golden[key], atol=1e-4, err_msg=key)
    labels = {"s112_c7": DFEW_LABELS, "s160_c11": MAFW_LABELS}[name]
    assert model.config.labels == labels


def test_the_papers_model_has_7_558_687_trainable_parameters() -> None:
    with torch.device("meta"):
        model = MMADFER(MMADFERConfig(image_size=160))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 7_558_687


def test_only_the_position_embeddings_of_the_encoders_are_trainable(tiny_model: MMADFER) -> None:
    trainable = {name for name, p in tiny_model.named_parameters() if p.requires_grad}
    frozen = {name for name, p in tiny_model.named_parameters() if not p.requires_grad}
    encoders = ("image_encoder.", "audio_encoder.")
    assert {name for name in trainable if name.startswith(encoders)} == {e + "pos_embed" for e in encoders}
    assert frozen and all(name.startswith(encoders) for name in frozen)


def test_zero_gates_make_the_fusion_do_nothing() -> None:
    torch.manual_seed(0)
    fusion = FusionBottleneck(8, 4)
    image, audio = torch.randn(2 * 3, 5, 8), torch.randn(2, 7, 8)
    for before, after in zip((image, audio), fusion(image, audio, 3), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    fusion.image_gate.data.fill_(0.5)
    after = fusion(image, audio, 3)
    assert not torch.allclose(after[0], image) and torch.equal(after[1], audio)


def test_fusion_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    N, T, d = 2, 3, 4
    fusion = FusionBottleneck(8, d)
    fusion.image_gate.data.fill_(0.3)
    fusion.audio_gate.data.fill_(-0.8)
    image, audio = torch.randn(N * T, 5, 8), torch.randn(N, 7, 8)
    got_image, got_audio = fusion(image, audio, T)
    gelu = torch.nn.functional.gelu
    for n in range(N):
        a = fusion.audio_norm(fusion.audio_down(audio[n]))
        v = [fusion.image_norm(fusion.image_down(image[n * T + t])) for t in range(T)]
        for t in range(T):
            nudge = gelu(fusion.image_up(v[t] + a.mean(dim=0)))
            torch.testing.assert_close(got_image[n * T + t], image[n * T + t] + np.tanh(0.3) * nudge)
        nudge = gelu(fusion.audio_up(a + torch.stack(v).mean(dim=(0, 1))))
        torch.testing.assert_close(got_audio[n], audio[n] + np.tanh(-0.8) * nudge)


def test_a_fresh_model_lets_no_modality_see_the_other_before_the_joint_projection(tiny_config: MMADFERConfig) -> None:
    torch.manual_seed(0)
    model = MMADFER(tiny_config).eval()
    assert not any(gate.any() for f in model.fusion for gate in (f.image_gate, f.audio_gate))
    seen = []
    model.joint.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    frames, mel = torch.rand(1, 16, 3, 16, 16), torch.randn(1, 1, 512, 128)
    with torch.inference_mode():
        for sound in (mel, -mel):
            model(frames, sound)
    # image CLS + audio CLS: what the sound changes is the same for all frames.
    difference = (seen[0] - seen[1])[0]
    assert difference.abs().max() > 1e-3
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("num_prompts", "per_update", "depth"), [(6, 3, 12), (6, 1, 12), (12, 3, 12), (3, 3, 2)])
def test_a_prompt_step_touches_its_own_rows_after_its_own_layer(num_prompts: int, per_update: int, depth: int) -> None:
    prompts = ProgressivePrompts(4, num_prompts, per_update, depth)
    tokens = torch.randn(2, 10 + num_prompts, 4)
    steps = 0
    for layer in range(depth):
        change = prompts.update(tokens, layer) - tokens
        rows = change.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
        if layer % (depth * per_update // num_prompts):
            assert rows == []
            continue
        first = 10 + steps * per_update
        assert rows == list(range(first, first + per_update))
        torch.testing.assert_close(
            change[1, first : first + per_update], prompts.updates[steps].detach(), atol=1e-6, rtol=0
        )
        steps += 1
    assert steps == num_prompts // per_update


def test_the_papers_two_prompt_steps_follow_layers_0_and_6() -> None:
    config = MMADFERConfig()
    prompts = ProgressivePrompts(4, config.num_prompts, config.prompts_per_update, config.depth)
    tokens = torch.zeros(1, 20, 4)
    assert [layer for layer in range(config.depth) if prompts.update(tokens, layer).any()] == [0, 6]


def test_training_mode_leaves_the_stems_batch_statistics_alone(tiny_config: MMADFERConfig) -> None:
    model = make_model(tiny_config).train()
    statistics = {k: v.clone() for k, v in model.state_dict().items() if "running" in k or "num_batches" in k}
    assert len(statistics) == 3 * 3  # one image and two audio convolutions
    model(torch.rand(2, 16, 3, 16, 16), torch.randn(2, 1, 512, 128)).sum().backward()
    assert model.image_encoder.blocks[1].drop_path.training  # stochastic depth is kept
    for key, before in statistics.items():
        assert torch.equal(model.state_dict()[key], before), key
    assert not any(module.training for module in model.eval().modules())


def test_gradients_reach_every_trainable_parameter_that_is_used(tiny_config: MMADFERConfig) -> None:
    model = make_model(tiny_config.replace(drop_path=0.0, depth=4)).train()  # a last step with layers after it
    model(torch.rand(2, 16, 3, 16, 16), torch.randn(2, 1, 512, 128)).square().sum().backward()
    dead = {n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    assert all("unused_norm" in name for name in dead), dead
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_the_exports_decomposed_attention_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, k, v = (3 * torch.randn(2, 4, 9, 8) for _ in range(3))
    eager = attend(q, k, v)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)  # not the same path twice
    torch.testing.assert_close(attend(q, k, v), eager, atol=1e-5, rtol=1e-5)


def test_a_grey_model_sees_a_colour_picture_as_its_luma(tiny_config: MMADFERConfig) -> None:
    grey = ContractModel(make_model(tiny_config.replace(color="grey"))).eval()
    levels = torch.arange(256)
    thousandfold = 299 * levels.view(-1, 1, 1) + 587 * levels.view(1, -1, 1) + 114 * levels
    exact = (thousandfold % 1000 == 0).nonzero()  # colours whose luma is a whole number
    colourful = exact[exact.max(dim=1).values - exact.min(dim=1).values > 100]
    torch.manual_seed(1)
    frames = colourful[torch.randint(len(colourful), (16, 16, 16))].to(torch.uint8).unsqueeze(0)
    luma = (frames.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)).round().to(torch.uint8)
    mel = torch.randn(1, 512, 128)
    with torch.inference_mode():
        logits = grey(frames, mel)
        same = grey(luma.unsqueeze(-1).expand_as(frames), mel)
        colour = ContractModel(make_model(tiny_config)).eval()(frames, mel)
    torch.testing.assert_close(logits, same, atol=1e-5, rtol=0)
    assert (logits - colour).abs().max() > 1e-3  # the same weights, were they to see the colours


@pytest.mark.parametrize("color", ["rgb", "grey"])
def test_frames_are_cast_before_they_are_permuted_and_no_bit_changes(color: str) -> None:
    frames = torch.randint(0, 256, (2, 16, 8, 8, 3), dtype=torch.uint8)
    prepared = prepare_frames(frames, color)
    if color == "rgb":
        assert torch.equal(prepared, frames.permute(0, 1, 4, 2, 3).float() / 255)
    assert prepared.shape == (2, 16, 3, 8, 8) and torch.equal(prepare_frames(frames[1], color), prepared[1])


def test_the_mel_is_normalised_inside_the_contract(tiny_model: MMADFER) -> None:
    frames, mel = torch.randint(0, 256, (1, 16, 16, 16, 3), dtype=torch.uint8), torch.randn(1, 512, 128)
    with torch.inference_mode():
        contract = ContractModel(tiny_model).eval()(frames, mel * 2 * 4.5689974 - 4.2677393)
        paper = tiny_model(frames.permute(0, 1, 4, 2, 3) / 255, mel.unsqueeze(1))
    torch.testing.assert_close(contract, paper, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": 100}, "image_size 100"),
        ({"image_size": 0}, "image_size is 0"),
        ({"width": 100}, "width 100"),
        ({"width": -768}, "width is -768"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"image_patch": 0}, "image_patch is 0"),
        ({"depth": 0}, "depth is 0"),
        ({"depth": 11}, "depth 11"),
        ({"depth": 2.0}, "depth is 2.0"),
        ({"num_prompts": 7}, "num_prompts 7"),
        ({"prompts_per_update": 0}, "prompts_per_update is 0"),
        ({"audio_patch": 24}, "audio_patch 24"),
        ({"image_stem": (8, 8, 8, 8, 8)}, "stem's 5"),
        ({"drop_path": 1.0}, "drop_path 1.0"),
        ({"color": "bgr"}, "'bgr'"),
        ({"labels": ()}, "labels"),
        ({"labels": ("a", "a")}, "labels"),
    ],
)
def test_a_config_of_impossible_numbers_is_refused(change: dict, said: str) -> None:
    with pytest.raises(CheckpointError) as error:
        MMADFERConfig(**change)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "config", [MMADFERConfig(), config_of("nano"), MMADFERConfig(labels=MAFW_LABELS, image_stem=(8,))]
)
def test_a_config_makes_the_round_trip_and_refuses_unknown_keys(config: MMADFERConfig) -> None:
    values = config.to_dict()
    assert MMADFERConfig.from_dict({**values, "labels": list(values["labels"])}) == config  # JSON has lists
    with pytest.raises(CheckpointError, match="fusion_kind"):
        MMADFERConfig.from_dict({**values, "fusion_kind": "mult"})
