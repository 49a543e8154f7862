"""Pairs of faces and voices teach fusion what a live stream holds: wrong voices, absent faces, silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mma_trainer.data.augment.sound import LOG_FLOOR
from mma_trainer.data.batch import Batch
from mma_trainer.data.public.background import Recordings
from mma_trainer.data.public.faces import Faces, labelled_faces
from mma_trainer.data.public.voices import Voices
from mma_trainer.data.tasks.balance import ABSENT, taught
from mma_trainer.data.tasks.pairs import PseudoPairTask, draw_modalities
from mma_trainer.data.tasks.voices import Surroundings

CLASSES = 3
LEVELS = (0.002, 0.05, 0.9)  # a voice's loudness tells its class


@pytest.fixture(scope="module")
def pairs() -> tuple[Faces, Voices]:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 40 + [1] * 8 + [2] * 8)
    # A face's grey level tells its class, so that a test can read it off a clip.
    images = np.repeat(np.repeat((40 + 80 * labels).astype(np.uint8)[:, None, None], 16, 1), 16, 2)
    voices = np.repeat(np.arange(CLASSES), 4)
    waves = [(LEVELS[c] * rng.normal(size=24_000)).astype(np.float32) for c in voices]
    corpora = np.array(["ravdess"] * len(voices))
    return labelled_faces(images, labels), Voices(waves, voices, corpora, corpora)


def batches(pairs: tuple[Faces, Voices], **options: float) -> list[Batch]:
    settings = {"modality_dropout": 0.0, **options}
    hiss = [0.01 * np.random.default_rng(1).normal(size=16_000).astype(np.float32)]
    sounds = Recordings(["hiss"], np.array(["hiss"]), hiss)
    task = PseudoPairTask(pairs, pairs, Surroundings(sounds, sounds), 16, 16, 1, 320, **settings)
    return list(task.train_batches(0))


def loudness_class(mel: torch.Tensor) -> int:
    """The class whose level is nearest: the augmentation's gain is smaller than the steps between them."""
    spoken = mel[(mel != 0).any(dim=1) & (mel > LOG_FLOOR + 0.01).any(dim=1)]  # neither padding nor the silence around
    # Normal noise of standard deviation s has a log-mel of about 2 log s plus a constant.
    return int(torch.tensor([-8.0, -1.5, 4.3]).sub(spoken.median()).abs().argmin())


def test_a_modality_is_hidden_as_often_as_asked_and_never_both() -> None:
    present = draw_modalities(20_000, 0.25, torch.Generator().manual_seed(0))
    assert present.any(dim=1).all()
    assert torch.allclose(1 - present.float().mean(dim=0), torch.tensor([0.25, 0.25]), atol=0.02)


def test_hidden_faces_are_black_and_hidden_voices_zero(pairs: tuple[Faces, Voices]) -> None:
    for (frames, mel), _, _ in batches(pairs, modality_dropout=0.5):
        black, silent = (t.flatten(1).abs().sum(dim=1) == 0 for t in (frames, mel))
        assert (black ^ silent).all()  # at 0.5 each clip loses exactly one


def test_voices_alone_come_from_all_classes_equally_and_keep_their_own_label(pairs: tuple[Faces, Voices]) -> None:
    dropped = batches(pairs, modality_dropout=0.5)
    targets = torch.cat([targets[(frames == 0).flatten(1).all(dim=1)] for (frames, _), targets, _ in dropped])
    assert set(targets.unique().tolist()) == {0.0, 1.0} and (targets.sum(dim=1) == 1).all()
    shares = targets[:, :CLASSES].mean(dim=0)
    assert shares.min() > 0.22, shares  # the faces have 40, 8 and 8


def test_a_share_of_the_pairs_has_a_voice_of_any_class_and_both_their_labels(
    pairs: tuple[Faces, Voices], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mma_trainer.data.tasks.voices.augment_mel", lambda mels, *rest: mels)

    def disagreement(mismatch: float) -> float:
        wrong = []
        for (_, mels), targets, _ in batches(pairs, mismatch=mismatch):
            for mel, target in zip(mels, targets, strict=True):
                heard = loudness_class(mel)
                wrong.append(float(target[heard] < 1))
                # What is heard is always half of the target, and all of it where the face says the same.
                assert target[heard] in (0.5, 1.0) and target.sum() == 1
        return float(np.mean(wrong))

    assert disagreement(0.0) == 0.0
    # Any class, the right one among them: two thirds of the swapped voices are wrong.
    assert disagreement(0.6) == pytest.approx(0.4, abs=0.1)


class Says:
    """A teacher who always says the same."""

    share = 0.8

    def __init__(self, *rows: list[float]) -> None:
        self.probabilities = torch.tensor(rows)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        self.given = [len(x) for x in inputs]
        return self.probabilities.log().expand(len(inputs[0]), -1)


def test_a_share_of_a_target_is_what_a_teacher_says_of_the_clip(pairs: tuple[Faces, Voices]) -> None:
    teacher = Says([0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.3])
    for told, alone in zip(batches(pairs, teacher=teacher), batches(pairs), strict=True):
        assert teacher.given == [16, 16]
        torch.testing.assert_close(told.labels, 0.2 * alone.labels + 0.8 * teacher.probabilities)
        assert all(torch.equal(*both) for both in zip(told.inputs, alone.inputs, strict=True))


def test_a_teacher_says_nothing_of_classes_that_the_corpus_lacks() -> None:
    labels = torch.tensor([[1.0, 0.0, ABSENT], [0.0, 0.3, 0.0]])
    batch = Batch((torch.zeros(2),), labels)
    told = taught(batch, Says([0.25, 0.25, 0.5], [0.5, 0.25, 0.25])).labels
    expected = [[0.2 + 0.8 * 0.5, 0.8 * 0.5, ABSENT], [0.3 * 0.8 * 0.5, 0.3 * (0.2 + 0.8 * 0.25), 0.3 * 0.8 * 0.25]]
    torch.testing.assert_close(told, torch.tensor(expected))  # a clip keeps its weight
    assert taught(batch, None) is batch
