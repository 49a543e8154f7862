"""An encoder that learns from few voices: a good start, an early head, and short excerpts."""

from __future__ import annotations

import pytest
import torch
from conftest import TINY, make_model

from mma_edge.errors import CheckpointError
from mma_trainer.model.inputs import ContractModel, prepare_frames, prepare_mel
from mma_trainer.training import pretrain
from mma_trainer.training.pretrain import EncoderClassifier, OwnTeacher, PairTeachers, Teacher
from mma_trainer.training.recipe import training_loss
from mma_trainer.weights.encoders import EncoderWeights

VOICE = TINY.replace(audio_stem=(8, 8, 8, 8))


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch) -> EncoderClassifier:
    """Its blocks are computed in every step."""
    monkeypatch.setattr(pretrain, "BLOCKS_SHARE", 1.0)
    torch.manual_seed(0)
    return EncoderClassifier(VOICE, "audio", 0.3, extra_classes=1, early_head=True)


def batch(frames: int = 512, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 1, frames, 128, generator=torch.Generator().manual_seed(1)) - 3


def patches(model: EncoderClassifier, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.encoder.patches(x).flatten(0, 1)


def test_training_has_two_heads_and_the_extra_class_and_evaluation_neither(voices: EncoderClassifier) -> None:
    classes = VOICE.num_classes
    assert [tuple(head.shape) for head in voices(batch())] == [(6, classes + 1)] * 2
    assert voices.eval()(batch()).shape == (6, classes)


def test_both_heads_are_taught(voices: EncoderClassifier) -> None:
    loss, logits = training_loss(voices(batch()), torch.arange(6) % VOICE.num_classes, 0.0)
    loss.backward()
    assert logits.shape == (6, VOICE.num_classes + 1)
    for name, parameter in voices.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_the_stem_learns_from_the_early_head_alone(voices: EncoderClassifier) -> None:
    logits, early = voices(batch())
    logits.square().mean().backward(retain_graph=True)
    stem = list(voices.encoder.patch_embed.parameters())
    assert all(parameter.grad is None for parameter in stem) and voices.encoder.cls_token.grad is not None
    early.square().mean().backward()
    assert all(parameter.grad is not None for parameter in stem)


def test_most_steps_compute_the_stem_and_its_head_alone() -> None:
    torch.manual_seed(0)
    model, x = EncoderClassifier(VOICE, "audio", early_head=True), batch(64)
    model(x)
    with_blocks = [isinstance(model(x), tuple) for _ in range(300)]
    assert sum(with_blocks) == pytest.approx(300 * pretrain.BLOCKS_SHARE, abs=25)
    alone = next(outputs for outputs in iter(lambda: model(x), None) if not isinstance(outputs, tuple))
    alone.square().mean().backward()
    assert all(parameter.grad is None for parameter in model.encoder.blocks.parameters())
    assert all(parameter.grad is not None for parameter in model.encoder.patch_embed.parameters())


def test_the_first_head_learns_most_from_what_the_second_one_answers() -> None:
    labels = torch.tensor([0, 1])
    unsure, right, wrong = torch.zeros(2, 3), 9 * torch.eye(3)[[0, 1]], 9 * torch.eye(3)[[2, 2]]
    unsure.requires_grad_()
    loss, _ = training_loss((unsure, wrong), labels, 0.0)
    loss.backward()
    assert (unsure.grad[:, 2] < 0).all() and unsure.grad[0, 0] < unsure.grad[1, 0]  # the labels count, too
    agreed = training_loss((right, right), labels, 0.0)[0]
    assert (
        agreed < training_loss((right, wrong), labels, 0.0)[0]
        and agreed < training_loss((wrong, right), labels, 0.0)[0]
    )
    assert torch.equal(training_loss(right, labels, 0.0)[0], torch.nn.functional.cross_entropy(right, labels))


def test_patches_start_with_zero_mean_and_unit_variance_once(voices: EncoderClassifier) -> None:
    x = batch()
    assert patches(voices, x).std(dim=0).max() < 0.9
    voices(x)
    values = patches(voices.train(), x)
    assert values.mean(dim=0).abs().max() < 0.05 and (values.std(dim=0) - 1).abs().max() < 0.05
    assert voices.state_dict()["standardised"]  # a resumed run does not start again
    weight = voices.encoder.patch_embed.proj.weight.clone()
    voices(3 * x + 1)
    assert torch.equal(weight, voices.encoder.patch_embed.proj.weight)


def test_a_short_excerpt_may_lie_anywhere_on_the_encoders_grid() -> None:
    torch.manual_seed(0)
    model = EncoderClassifier(VOICE.replace(drop_path=0.0), "audio")
    x, answers = batch(256), set()
    for seed in range(12):
        torch.manual_seed(seed)
        answers.add(round(float(model(x)[0, 0].detach()), 6))
    assert len(answers) > 3
    torch.manual_seed(0)
    model.eval()
    assert torch.equal(model(x), model(x))  # only training moves it


def teacher_of(name: str, *nets: EncoderClassifier, classes: int = TINY.num_classes) -> Teacher:
    """Of what the files of pre-trained encoders hold."""
    weights = []
    for state in (net.state_dict() for net in nets):
        head = {key.removeprefix("head."): state[key] for key in state if key.startswith("head.")}
        encoder = {key.removeprefix("encoder."): state[key] for key in state if key.startswith("encoder.")}
        weights.append(EncoderWeights(encoder, getattr(TINY, f"{name}_grid"), head))
    return Teacher(TINY, name, weights, classes)


def with_opinions(name: str, seed: int, **options: int) -> EncoderClassifier:
    torch.manual_seed(seed)
    net = EncoderClassifier(TINY, name, **options).eval()
    with torch.no_grad():
        net.head.weight.normal_()
    return net


def test_several_teachers_say_the_mean_of_their_logarithms() -> None:
    nets = [with_opinions("audio", seed) for seed in range(3)]
    x = batch(count=4)
    with torch.no_grad():
        expected = torch.stack([net(x).log_softmax(dim=1) for net in nets]).mean(dim=0).softmax(dim=1)
    torch.testing.assert_close(teacher_of("audio", *nets)(x).exp(), expected, atol=0.03, rtol=0)  # in bfloat16


def test_two_teachers_multiply_what_they_believe_and_an_absent_modality_says_nothing() -> None:
    face_net, voice_net = with_opinions("image", 0), with_opinions("audio", 1, extra_classes=1)
    # The classes of these clips are others than in the training of each.
    shift, rarer = torch.linspace(-1, 1, TINY.num_classes), torch.linspace(0, -2, TINY.num_classes)
    teachers = PairTeachers(teacher_of("image", face_net), teacher_of("audio", voice_net), TINY.color, shift, rarer)
    frames = torch.randint(0, 256, (1, 1, *(TINY.image_size,) * 2, 3), dtype=torch.uint8).expand(3, 16, -1, -1, -1)
    frames = frames * torch.tensor([1, 1, 0]).byte().view(3, 1, 1, 1, 1)
    mel = (torch.randn(3, 512, 128) - 4) * torch.tensor([1, 0, 1]).view(3, 1, 1)
    with torch.no_grad():
        face = (face_net(prepare_frames(frames[:1, 0], TINY.color)) + shift).softmax(dim=1)
        voice = (voice_net(prepare_mel(mel)) + rarer).softmax(dim=1)
    both = face * voice[:1]
    expected = torch.cat([both / both.sum(), face, voice[2:]])
    torch.testing.assert_close(teachers(frames, mel).exp(), expected, atol=0.03, rtol=0)
    assert expected.max(dim=1).values.min() > 1.5 / TINY.num_classes  # not merely alike because flat


def test_an_encoder_with_too_few_classes_cannot_teach() -> None:
    with pytest.raises(CheckpointError, match=r"the head in the audio encoder's file.*weight"):
        teacher_of("audio", EncoderClassifier(TINY, "audio"), classes=TINY.num_classes + 1)


def test_a_model_teaches_itself_to_trust_a_face_less_and_keeps_what_it_says_of_either_alone() -> None:
    model = make_model(TINY, seed=3).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(40)  # opinions
    temperatures = {"both": 1.5, "video": 2.0, "audio": 1.25}
    teacher = OwnTeacher(model, temperatures)
    rng = torch.Generator().manual_seed(0)
    frames = torch.randint(1, 256, (3, 16, *(TINY.image_size,) * 2, 3), dtype=torch.uint8, generator=rng)
    frames[2] = 0
    mel = torch.randn(3, 512, 128, generator=rng) - 4
    mel[1] = 0
    with torch.no_grad():
        alone = ContractModel(model)
        face = alone(frames, torch.zeros_like(mel)).log_softmax(dim=1)
        voice = alone(torch.zeros_like(frames), mel).log_softmax(dim=1)
    joint = 1.5 * (OwnTeacher.FACE_TRUST * face[0] / 2.0 + voice[0] / 1.25)
    expected = torch.stack([joint.log_softmax(dim=0), face[1], voice[2]])
    torch.testing.assert_close(teacher(frames, mel), expected, atol=1e-4, rtol=0)
    assert (expected.exp().max(dim=1).values > 1.5 / TINY.num_classes).all()  # not merely alike because flat
    torch.testing.assert_close(teacher(frames[1:2], mel[1:2]), expected[1:2], atol=1e-4, rtol=0)  # nobody is heard
