"""The model in parts is the whole model: exactly with the frames kept, and rolling when nothing changed."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY, make_model, one_line

from mma_edge.bundle import golden_inputs
from mma_edge.errors import CheckpointError
from mma_trainer.model import MMADFER
from mma_trainer.model.inputs import ContractModel
from mma_trainer.model.streaming import FrameStem, Rolling, Seeing, Window, check_streamable, summary_width

VARIANTS = [{}, {"fusion": "add"}, {"fusion": "none"}, {"prompts": "none"}, {"temporal": "mean"}, {"color": "grey"}]
IDS = ["default", "add", "none", "no-prompts", "mean", "grey"]


def inputs(clips: int) -> tuple[torch.Tensor, torch.Tensor]:
    frames, mel = golden_inputs(3, TINY.image_size, clips)
    return torch.from_numpy(frames), torch.from_numpy(mel)


def stem_of(model: MMADFER, frames: torch.Tensor) -> torch.Tensor:
    """(N, 16, T, W)"""
    return FrameStem(model)(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


def roll(
    model: MMADFER, tokens: torch.Tensor, past: torch.Tensor, order: torch.Tensor, mel: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`Rolling` of one clip: past (16, D), order (16,)."""
    owner = torch.zeros(len(tokens), dtype=torch.int64)
    return Rolling(model)(tokens, owner, past[None], order[None], mel)


@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
@torch.inference_mode()
def test_stem_and_window_are_the_whole_model(variant: dict) -> None:
    model = make_model(TINY.replace(**variant))
    frames, mel = inputs(clips=2)
    expected = ContractModel(model)(frames, mel)
    torch.testing.assert_close(Window(model)(stem_of(model, frames), mel), expected, atol=1e-5, rtol=0)
    assert (expected[0] - expected[1]).abs().max() > 0.01


@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
@torch.inference_mode()
def test_summaries_made_with_the_same_sound_stand_in_for_their_frames(variant: dict) -> None:
    model = make_model(TINY.replace(**variant))
    frames, mel = inputs(clips=1)
    expected, tokens = ContractModel(model)(frames, mel), stem_of(model, frames)[0]
    nothing = torch.zeros(16, summary_width(model.config))
    logits, summaries, _ = roll(model, tokens, nothing, torch.arange(16), mel)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    # The older ten of the frames come as summaries, in another order.
    past = nothing.index_copy(0, torch.arange(10), summaries[:10].flip(0))
    order = torch.cat([6 + torch.arange(10).flip(0), torch.arange(6)])
    again, new, _ = roll(model, tokens[10:], past, order, mel)
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(new, summaries[10:], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_rolling_is_an_approximation_because_the_sound_changes_and_exact_without_an_exchange() -> None:
    (frames, mel), (_, other) = inputs(clips=1), inputs(clips=2)
    differences = {}
    for fusion in ("bottleneck", "none"):
        model = make_model(TINY.replace(fusion=fusion))
        tokens = stem_of(model, frames)[0]
        past = roll(model, tokens, torch.zeros(16, summary_width(model.config)), torch.arange(16), mel)[1]
        order = torch.cat([2 + torch.arange(14), torch.arange(2)])
        logits = roll(model, tokens[14:], past, order, other[1:])[0]
        differences[fusion] = float((logits - ContractModel(model)(frames, other[1:])).abs().max())
    assert differences["bottleneck"] > 1e-3
    assert differences["none"] < 1e-5


@torch.inference_mode()
def test_a_frame_may_stand_for_several() -> None:
    model = make_model(TINY)
    frames, mel = inputs(clips=1)
    order = torch.tensor([0] * 5 + [1] * 11)
    expected = ContractModel(model)(frames[:, order], mel)
    tokens = FrameStem(model)(frames[0, :2])
    logits, summaries, _ = roll(model, tokens, torch.zeros(16, summary_width(TINY)), order, mel)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert summaries.shape == (2, 2 * 8 + 32)


@torch.inference_mode()
def test_faces_that_go_in_together_do_not_see_each_other() -> None:
    model = make_model(TINY)
    frames, mel = inputs(clips=2)
    tokens, expected = stem_of(model, frames), ContractModel(model)(frames, mel)
    past = torch.stack(
        [
            roll(model, *one)[1]
            for one in zip(
                tokens, torch.zeros(2, 16, summary_width(TINY)), [torch.arange(16)] * 2, mel[:, None], strict=True
            )
        ]
    )
    # Three new frames of the first face and one of the second.
    new, owner = torch.cat([tokens[0, 13:], tokens[1, 15:]]), torch.tensor([0, 0, 0, 1])
    first = torch.cat([4 + torch.arange(13), torch.arange(3)])
    second = torch.cat([4 + 16 + torch.arange(15), torch.tensor([3])])
    logits, summaries, _ = Rolling(model)(new, owner, past, torch.stack([first, second]), mel)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(summaries[3], past[1, 15], atol=1e-5, rtol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.01


@pytest.mark.parametrize("variant", VARIANTS, ids=IDS)
@torch.inference_mode()
def test_the_summary_of_a_windows_sound_stands_in_for_it(variant: dict) -> None:
    """To the last bit, for several faces and whatever is new; the sound of another window is another answer."""
    model = make_model(TINY.replace(**variant))
    frames, mel = inputs(clips=2)
    new, owner = torch.cat([frames[0, 13:], frames[1, 15:]]), torch.tensor([0, 0, 0, 1])
    past = torch.randn(2, 16, summary_width(model.config), generator=torch.Generator().manual_seed(1))
    order = torch.stack([torch.cat([4 + torch.arange(13), torch.arange(3)]), 3 + torch.arange(16)])
    tokens = FrameStem(model)(new)
    logits, summaries, heard = Rolling(model)(tokens, owner, past, order, mel)
    assert heard.shape == (2, summary_width(model.config))
    again = Seeing(model)(new, owner, past, order, heard)
    torch.testing.assert_close(again, (logits, summaries, tokens), atol=0, rtol=0)
    other = Seeing(model)(new, owner, past, order, heard.flip(0))
    assert (other[0] - logits).abs().max() > 1e-3


def test_the_parts_own_no_weights() -> None:
    model = make_model(TINY)
    for part in (FrameStem(model), Window(model), Rolling(model), Seeing(model)):
        assert {p.data_ptr() for p in part.parameters()} == {p.data_ptr() for p in model.parameters()}


@pytest.mark.parametrize(
    "variant",
    [
        {"fusion": "mult"},
        {"fusion": "mult-concat"},
        {"temporal": "ita"},
        {"temporal": "both"},
        {"modalities": "vision"},
    ],
    ids=lambda variant: "-".join(variant.values()),
)
def test_variants_that_cannot_be_cut_say_so(variant: dict) -> None:
    config = TINY.replace(**variant)
    with pytest.raises(CheckpointError) as caught:
        check_streamable(config)
    assert next(iter(variant.values())) in one_line(caught.value)
    for part in (FrameStem, Window, Rolling, Seeing):
        with pytest.raises(CheckpointError):
            part(MMADFER(config))
