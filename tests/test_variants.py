"""Every row of the paper's tables is a config: it runs, trains what it should, counts as the paper does, exports."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from conftest import TINY, make_model
from torch import Tensor

from mma_edge.bundle import golden_inputs
from mma_edge.engines.cpu import OnnxCpuEngine
from mma_edge.errors import CheckpointError
from mma_export.graph import export_graph
from mma_export.parity import check_parity
from mma_trainer.model import MMADFER, MMADFERConfig, differences
from mma_trainer.model.fusion import AddFusion, ConcatFusion, CrossAttentionFusion, FusionBottleneck
from mma_trainer.model.inputs import ContractModel
from mma_trainer.model.temporal import FrameMean, TemporalAdaptor
from mma_trainer.training.sweeps.variants import TABLES, count_trainable, plan
from mma_trainer.weights.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

# Twelve layers as the paper's, for its prompt schedules; the rest as small as it goes.
DEEP = TINY.replace(width=8, depth=12, image_stem=(), audio_stem=(), audio_patch=128, drop_path=0.0)
ROWS = [
    pytest.param(name, row, id=f"{name}-{row.name}".replace(" ", "-").replace(",", ""))
    for name, table in TABLES.items()
    for row in table.rows
    if name != "resolution"
]
ROWS += [pytest.param("resolution", row, id=f"resolution-{row.name}") for row in TABLES["resolution"].rows[:1]]


def inputs(config: MMADFERConfig, clips: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(clips, 16, 3, config.image_size, config.image_size, generator=generator)
    return frames, torch.randn(clips, 1, 512, 128, generator=generator)


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_every_row_gives_logits_and_gradients_where_it_should_and_nowhere_else(table: str, row) -> None:
    changes = dict(row.changes)
    if table == "resolution":
        changes["image_size"] //= 7  # in the proportion of the tiny model's 16
    config = DEEP.replace(**changes)
    model = make_model(config).train()
    logits = model(*inputs(config))
    assert logits.shape == (2, 3) and torch.isfinite(logits).all()
    logits.square().sum().backward()
    dead = {name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    expected = {name for name, p in model.named_parameters() if "unused_norm" in name and p.requires_grad}
    if config.prompts == "progressive" and config.num_updates == config.depth:
        # The twelfth step follows the twelfth layer, after which only [CLS] is read.
        expected |= {"image_prompts.updates.11", "audio_prompts.updates.11"}
    assert dead == expected
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith(("image_encoder.", "audio_encoder.")) for name in frozen)
    if config.trained == "classifier":
        assert set(frozen) == {name for name, _ in model.named_parameters()} - {"classifier.weight", "classifier.bias"}
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_the_default_is_the_papers_best_in_every_table() -> None:
    base = MMADFERConfig()
    best = {row.variant.name for table in TABLES.values() for row in plan(table, base, Path()) if row.config == base}
    assert best == {"progressive, 2 updates", "bottleneck 128", "MTT", "MMA-DFER", "224", "all"}


@pytest.mark.parametrize(("width", "paper_m"), [(128, 7.5), (256, 12.3), (512, 21.7)])
def test_the_bottlenecks_have_the_papers_parameters(width: int, paper_m: float) -> None:
    # At 160 pixels: 7.559, 12.286 and 21.742 M. The paper's 7.5 is cut, not rounded; at 224 all are 0.07 M more.
    trainable = count_trainable(MMADFERConfig(image_size=160, bottleneck_width=width))[0]
    assert trainable / 1e6 == pytest.approx(paper_m, abs=0.06)
    assert trainable == 7_558_687 + 36_936 * (width - 128)  # 12 layers of 4 projections of 768, and their norms


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        # The paper prints 2.2 M; its published checkpoint, whose tensors these are, has 2.11 M.
        ({"temporal": "mtt"}, 2_112_512),
        # The paper prints 1.3, 0.8 and 4.3 M. The 0.8 are 12 (4 d^2 + biases), in the bottleneck's own space.
        ({"temporal": "ita", "ita_width": 64}, 1_390_860),
        ({"temporal": "ita", "ita_width": 128}, 12 * (4 * 128**2 + 4 * 128 + 1)),
        ({"temporal": "ita", "ita_width": 256}, 3_955_212),
        # The paper prints 2.9 M.
        ({"temporal": "both", "ita_width": 128}, 2_112_512 + 792_588),
        ({"temporal": "mean"}, 0),
        # Without a bottleneck to work in, the same width needs projections of its own.
        ({"temporal": "ita", "fusion": "add"}, 3_165_708),
        ({"temporal": "ita", "modalities": "vision"}, 3_165_708),
    ],
)
def test_the_temporal_parts_have_these_parameters(changes: dict, count: int) -> None:
    assert count_trainable(MMADFERConfig(**changes), TABLES["temporal"].part)[1] == count
    d, W = changes.get("ita_width", 128), 768
    if changes["temporal"] == "ita":  # attention and gate; down, norm and up from and to W, or from and to the 128
        inside = d >= 128 and "fusion" not in changes and "modalities" not in changes
        outer = 128 if inside else W
        own = 0 if inside and d == 128 else (outer * d + d) + 2 * d + (d * outer + outer)
        assert count == 12 * (4 * d * d + 4 * d + 1 + own)


def test_prompts_and_modalities_cost_what_they_add() -> None:
    def count(**changes: object) -> int:
        return count_trainable(MMADFERConfig(**changes))[0]

    none, static, two, twelve = (
        count(**c)
        for c in ({"prompts": "none"}, {"prompts": "static"}, {}, {"num_prompts": 36, "prompts_per_update": 3})
    )
    assert static - none == 2 * 2 * 6 * 768  # tokens and their positions, two modalities
    assert two - static == 2 * 6 * 768  # the rows added with depth
    assert twelve - two == 2 * 3 * 30 * 768
    joint_and_after = 768 * 512 + 512 + 512 * 7 + 7
    temporal = 2_112_512
    assert count(modalities="vision") == (197 + 6 + 12) * 768 + joint_and_after + temporal
    assert count(modalities="audio") == (257 + 6 + 12) * 768 + joint_and_after + temporal - 15 * 512


def test_one_modality_alone_does_not_know_of_the_other() -> None:
    for modalities, other in (("vision", 1), ("audio", 0)):
        model = make_model(TINY.replace(modalities=modalities))
        first, changed = list(inputs(TINY)), list(inputs(TINY))
        changed[other] = inputs(TINY, seed=1)[other]
        own = list(inputs(TINY))
        own[1 - other] = inputs(TINY, seed=1)[1 - other]
        with torch.inference_mode():
            logits = [model(*x) for x in (first, changed, own)]
        assert torch.equal(logits[0], logits[1]) and (logits[0] - logits[2]).abs().max() > 1e-3
        absent = {"vision": "audio_", "audio": "image_"}[modalities]
        assert not any(name.startswith((absent, "fusion.")) for name in model.state_dict())


@pytest.mark.parametrize("fusion", ["add", "mult", "mult-concat", "bottleneck"])
def test_every_fusion_starts_as_none_and_lets_the_modalities_meet(fusion: str) -> None:
    torch.manual_seed(0)
    model = MMADFER(TINY.replace(fusion=fusion)).eval()
    image, audio = torch.randn(2 * 16, 5, 32), torch.randn(2, 7, 32)
    for before, after in zip((image, audio), model.fusion[0](image, audio, 16), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=0)
    for exchange in model.fusion:
        exchange.image_gate.data.fill_(0.5)
        exchange.audio_gate.data.fill_(0.5)
    one, two = (model.fusion[0](image, sound, 16) for sound in (audio, audio + torch.randn(2, 7, 32)))
    assert one[0].shape == image.shape and one[1].shape == audio.shape
    assert (one[0] - two[0]).abs().max() > 1e-3
    # Clips do not mix: the second clip's sound leaves the first clip's frames alone.
    other = torch.cat([audio[:1], audio[1:] + 1])
    torch.testing.assert_close(model.fusion[0](image, other, 16)[0][:16], one[0][:16])


def test_mult_adds_what_each_branch_finds_in_the_other() -> None:
    torch.manual_seed(0)
    N, T, d, W = 2, 3, 4, 8
    fusion = CrossAttentionFusion(W, d, 2)
    fusion.image_gate.data.fill_(0.3)
    fusion.audio_gate.data.fill_(-0.8)
    assert fusion.image_attn.to_q.weight.shape == (d, W) and fusion.image_attn.to_out.weight.shape == (W, d)
    image, audio = torch.randn(N * T, 5, W), torch.randn(N, 7, W)
    got_image, got_audio = fusion(image, audio, T)

    def look(attn, x: Tensor, y: Tensor) -> Tensor:
        q, (k, v) = attn.to_q(x), attn.to_kv(y).chunk(2, dim=-1)
        heads = [
            torch.softmax(q[:, part] @ k[:, part].T / 2**0.5, dim=-1) @ v[:, part]
            for part in (slice(0, 2), slice(2, 4))
        ]
        return attn.to_out(torch.cat(heads, dim=-1))

    gate_v, gate_a = torch.tanh(torch.tensor([0.3, -0.8]))
    for n in range(N):
        frames, sound = image[n * T : (n + 1) * T].reshape(-1, W), audio[n]
        v, a = fusion.image_norm(frames), fusion.audio_norm(sound)
        wanted = frames + gate_v * look(fusion.image_attn, v, a)
        torch.testing.assert_close(got_image[n * T : (n + 1) * T].reshape(-1, W), wanted)
        torch.testing.assert_close(got_audio[n], sound + gate_a * look(fusion.audio_attn, a, v))


def test_mult_concat_adds_the_mean_of_one_transformer_over_both_to_each() -> None:
    torch.manual_seed(0)
    N, T, W = 2, 3, 8
    fusion = ConcatFusion(W, 4, 2, 2).eval()
    fusion.image_gate.data.fill_(0.3)
    fusion.audio_gate.data.fill_(-0.8)
    image, audio = torch.randn(N * T, 5, W), torch.randn(N, 7, W)
    got_image, got_audio = fusion(image, audio, T)
    gate_v, gate_a = torch.tanh(torch.tensor([0.3, -0.8]))
    for n in range(N):
        v = fusion.image_norm(fusion.image_down(image[n * T : (n + 1) * T])).reshape(-1, 4)
        a = fusion.audio_norm(fusion.audio_down(audio[n]))
        sequence = torch.cat([v, a])
        assert sequence.shape == (T * 5 + 7, 4)
        added = fusion.up(fusion.block(sequence[None])[0].mean(dim=0))  # (W,), for every token of both
        torch.testing.assert_close(got_image[n * T : (n + 1) * T], image[n * T : (n + 1) * T] + gate_v * added)
        torch.testing.assert_close(got_audio[n], audio[n] + gate_a * added)


def test_add_is_the_other_modalitys_mean_token() -> None:
    fusion = AddFusion()
    fusion.image_gate.data.fill_(0.3)
    fusion.audio_gate.data.fill_(-0.8)
    image, audio = torch.randn(2 * 3, 5, 8), torch.randn(2, 7, 8)
    v, a = fusion(image, audio, 3)
    torch.testing.assert_close(v[4], image[4] + torch.tanh(torch.tensor(0.3)) * audio[1].mean(dim=0))
    torch.testing.assert_close(a[1], audio[1] + torch.tanh(torch.tensor(-0.8)) * image[3:].mean(dim=(0, 1)))


@pytest.mark.parametrize(("inner", "bottleneck"), [(4, None), (4, 8), (8, 8), (16, 8)])
def test_a_temporal_adaptor_lets_frames_of_one_clip_see_each_other(inner: int, bottleneck: int | None) -> None:
    torch.manual_seed(0)
    adaptor, fusion = TemporalAdaptor(12, inner, 2, bottleneck), FusionBottleneck(12, 8)
    image = torch.randn(2 * 16, 5, 12)
    torch.testing.assert_close(adaptor(image, 16, fusion), image, rtol=0, atol=0)  # its gate is closed
    adaptor.gate.data.fill_(0.7)
    before, changed = adaptor(image, 16, fusion), image.clone()
    changed[3, 0] += torch.randn(12)  # [CLS] of the first clip's fourth frame
    moved = (adaptor(changed, 16, fusion) - before).abs().amax(dim=2) > 1e-6
    assert moved[:16].all() and not moved[16:].any()
    changed = image.clone()
    changed[:, 1:] += 1  # all tokens but [CLS] are only added to
    torch.testing.assert_close(adaptor(changed, 16, fusion)[:, :1], before[:, :1], rtol=0, atol=0)
    assert torch.equal(FrameMean()(image[:, :, :2]), image[:, :, :2].mean(dim=1))


def test_an_adaptor_as_wide_as_the_bottleneck_works_in_its_space_after_the_fusion() -> None:
    torch.manual_seed(0)
    model = make_model(TINY.replace(temporal="ita", ita_width=8))
    adaptor, fusion = model.adaptors[0], model.fusion[0]
    assert {name.partition(".")[0] for name, _ in adaptor.named_parameters()} == {"attn", "gate"}
    image = torch.randn(16, 5, 32)
    c = fusion.image_norm(fusion.image_down(image[:, 0]))
    added = torch.nn.functional.gelu(fusion.image_up(adaptor.attn(c[None])[0]))
    wanted = image + torch.tanh(torch.tensor(0.7)) * added[:, None]
    torch.testing.assert_close(adaptor(image, 16, fusion), wanted)
    # The layer: blocks, fusion, adaptor, prompts.
    audio = torch.randn(1, 30, 32)
    image = torch.randn(16, 1 + 4 + 6, 32)
    fused = fusion(model.image_encoder.blocks[0](image), model.audio_encoder.blocks[0](audio), 16)
    wanted = model.renew_prompts(0, adaptor(fused[0], 16, fusion), fused[1])
    for got, expected in zip(model.layer(0, image, audio), wanted, strict=True):
        torch.testing.assert_close(got, expected)


def test_the_order_of_frames_is_known_to_the_transformer_alone() -> None:
    # The adaptors have no positions: the paper's text names none, and its counts leave no room for them.
    for temporal, same in (("mean", True), ("mtt", False), ("ita", True), ("both", False)):
        model = make_model(TINY.replace(temporal=temporal, ita_width=8))
        frames, mel = inputs(TINY)
        with torch.inference_mode():
            difference = (model(frames, mel) - model(frames.flip(1), mel)).abs().max()
        assert (difference < 1e-5) == same, (temporal, difference)


# Each value of every variant once, in as few tracings as that takes.
EXPORTED = [
    {"prompts": "none", "fusion": "add", "temporal": "ita", "ita_width": 8},
    {"prompts": "static", "fusion": "mult", "temporal": "both", "ita_width": 8},
    {"fusion": "mult-concat", "temporal": "mean", "num_prompts": 3},
    {"fusion": "none", "num_prompts": 3},
    {"modalities": "audio", "num_prompts": 3},
    {"modalities": "vision", "num_prompts": 3},
    {"modalities": "vision", "prompts": "none", "temporal": "mean", "trained": "classifier"},
    {"temporal": "ita", "ita_width": 8},  # in the bottleneck's space, which the last layer computes for [CLS] alone
    {"temporal": "ita", "ita_width": 16},
]


@pytest.mark.parametrize("changes", EXPORTED, ids=lambda changes: "-".join(str(v) for v in changes.values()))
def test_every_variant_exports_to_the_contract_and_runs_with_a_modality_missing(tmp_path: Path, changes: dict) -> None:
    config = TINY.replace(depth=1, image_stem=(), audio_stem=(), **{"num_prompts": 3, **changes})
    model, path = make_model(config), tmp_path / "model.onnx"
    export_graph(model, path)  # checks names, types and shapes of both inputs, needed or not
    assert [value.name for value in onnx.load(str(path)).graph.input] == ["frames", "mel"]
    assert max(check_parity(model, path).values()) <= 1e-4
    engine, (frames, mel) = OnnxCpuEngine(path, "fp32"), golden_inputs(7, 16, 2)
    contract = ContractModel(model).eval()
    for one, other in ((frames, 0 * mel), (0 * frames, mel)):  # as the runtime feeds what is missing
        with torch.inference_mode():
            expected = contract(torch.from_numpy(one), torch.from_numpy(other)).numpy()
        assert abs(engine(one, other) - expected).max() <= 1e-4


@pytest.mark.parametrize("changes", EXPORTED[:3] + EXPORTED[4:5])
def test_a_variant_makes_the_round_trip_through_its_file(tmp_path: Path, changes: dict) -> None:
    model = make_model(TINY.replace(**changes))
    save_checkpoint(tmp_path / "model.pt", Checkpoint(model.config, model.state_dict()))
    loaded = load_checkpoint(tmp_path / "model.pt")
    assert loaded.config == model.config
    with torch.inference_mode():
        torch.testing.assert_close(loaded(*inputs(TINY)), model(*inputs(TINY)), rtol=0, atol=0)


@pytest.mark.parametrize(
    "changes",
    [{"temporal": "ita"}, {"temporal": "both"}, {"fusion": "mult"}, {"fusion": "mult-concat"}, {"fusion": "add"}, {}],
)
def test_a_file_of_a_variant_that_was_made_otherwise_is_refused_and_others_are_not(
    tmp_path: Path, changes: dict
) -> None:
    path, model = tmp_path / "model.pt", make_model(TINY.replace(ita_width=8, **changes))
    save_checkpoint(path, Checkpoint(model.config, model.state_dict()))
    content = torch.load(path, weights_only=True)
    revised = changes and changes != {"fusion": "add"}
    assert content.pop("variants", None) == (2 if revised else None)
    del content["config"]["trained"]  # as files from before have it
    torch.save(content, path)
    if not revised:
        assert load_checkpoint(path).config == model.config
        return
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    ((key, value),) = changes.items()
    assert f"holds {key} {value} as another version of mma-edge made it" in str(error.value)
    assert error.value.exit_code == 8 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompts": "deep", "fusion": "sum"}, ["prompts 'deep' is none of none, static", "fusion 'sum'"]),
        ({"fusion": "mult", "adaptor_heads": 3}, ["bottleneck_width 128", "adaptor_heads 3"]),
        ({"temporal": "ita", "ita_width": 65}, ["ita_width 65"]),
        ({"temporal": "both", "modalities": "audio"}, ["which modalities audio has not"]),
        ({"num_prompts": 15}, ["the 5 prompt updates"]),
        ({"trained": "classifier", "modalities": "audio"}, ["trained classifier needs one modality, prompts none"]),
    ],
)
def test_an_impossible_variant_is_refused_with_all_that_is_wrong(changes: dict, said: list[str]) -> None:
    with pytest.raises(CheckpointError) as error:
        MMADFERConfig(**changes)
    assert all(text in str(error.value) for text in said)


def test_recomputing_layers_changes_memory_and_not_the_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        model = make_model(TINY.replace(drop_path=0.5)).train()
        model.recompute_layers = recompute
        torch.manual_seed(3)  # the dropped branches must be the same on the way back
        model(*inputs(TINY)).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0)


def test_what_differs_between_two_configs_is_said_in_words() -> None:
    file = MMADFERConfig(image_size=160, fusion="add", labels=("a", "b"), drop_path=0.2)
    here = MMADFERConfig(image_size=112, labels=("a", "c"), drop_path=0.2)
    text = "; ".join(differences(file.to_dict(), here.to_dict()))
    assert text == "image_size is 160 in the file, 112 here; labels is a,b in the file, a,c here; " + (
        "fusion is add in the file, bottleneck here"
    )
    assert differences(file.to_dict(), {"fusion": here.fusion}) == ["fusion is add in the file, bottleneck here"]
    assert differences(file.to_dict(), file.to_dict()) == []


def test_a_file_from_before_the_variants_is_the_papers_best() -> None:
    fields = ("prompts", "fusion", "temporal", "ita_width", "adaptor_heads", "modalities")
    old = {key: value for key, value in TINY.to_dict().items() if key not in fields}
    assert MMADFERConfig.from_dict(old) == TINY
