"""Pseudo audio-visual pairs, which teach fusion whom to trust."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Generator, Tensor

from mma_edge.audio.logmel import NUM_MEL_FRAMES
from mma_edge.clip import NUM_FRAMES
from mma_trainer.data.augment.draw import chance
from mma_trainer.data.augment.faces import augment_stills, other_mouths, stills_to_clips
from mma_trainer.data.batch import WHOLE, Batch, Shard, epoch_generator, share
from mma_trainer.data.public.faces import Faces
from mma_trainer.data.public.voices import Voices, check_pairs
from mma_trainer.data.tasks.balance import Answering, match_labels, taught, voice_weights, vote_weights
from mma_trainer.data.tasks.faces import resize_stills
from mma_trainer.data.tasks.voices import CORPUS_BALANCE, EVAL_BATCH, SoundBank, Surroundings

PAIRED_FACE_BALANCE = 0.35  # a class of n votes is drawn in proportion to n to this power
VAL_STRIDE = 4  # every n-th pair is looked at after an epoch


class PseudoPairTask:
    """Face clips with voices of the same label: inputs (frames uint8 (B, 16, S, S, 3), mel (B, 512, 128)).

    The split is made before pairing: a validation face meets only a validation voice. The encoders know the training
    faces and voices far better than any they will meet, so fusion would learn to believe both too much. In a share of
    the pairs (`mismatch`) the voice is therefore one of any class, and the target is half the face's and half the
    voice's: where they disagree, neither can be believed. A face alone and a voice alone keep their own.

    Args:
        modality_dropout: probability of losing each modality of a clip, never both.
        mismatch: share of the whole pairs whose voice is drawn from any class.
        teacher: see `taught`; labels tell it nothing of the classes that a voice's corpus lacks.
    """

    def __init__(
        self,
        train: tuple[Faces, Voices],
        val: tuple[Faces, Voices],
        surroundings: Surroundings,
        image_size: int,
        batch_size: int,
        seed: int,
        clips_per_epoch: int,
        modality_dropout: float,
        mismatch: float = 0.0,
        teacher: Answering | None = None,
    ) -> None:
        for faces, voices in (train, val):
            check_pairs(faces, voices)
        self.train_faces, self.train_voices, self.val_faces, self.val_voices = *train, *val
        self.image_size, self.batch_size, self.seed = image_size, batch_size, seed
        self.modality_dropout, self.mismatch = modality_dropout, mismatch
        self.teacher = teacher
        self.num_batches = clips_per_epoch // batch_size
        self._face_chances = vote_weights(self.train_faces.targets, PAIRED_FACE_BALANCE)
        self._voice_chances = voice_weights(self.train_voices, CORPUS_BALANCE)
        self._classes = np.unique(self.train_voices.labels)
        self.surroundings = surroundings
        self._train_bank, self._val_bank = (
            SoundBank(voices.waves, voices.sample_rate_hz) for voices in (self.train_voices, self.val_voices)
        )

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        size, classes = self.batch_size, self.train_faces.targets.shape[1]
        for _ in range(self.num_batches):
            present = draw_modalities(size, self.modality_dropout, rng)
            faces = torch.multinomial(self._face_chances, size, replacement=True, generator=rng).numpy()
            seen = torch.from_numpy(self.train_faces.targets[faces])
            # One of the classes that people saw: half of the faces on which they differ have a voice of either class.
            labels = torch.multinomial(seen, 1, generator=rng).squeeze(1).numpy()
            voices = match_labels(labels, self.train_voices.labels, self._voice_chances, rng)
            # Voices alone come with all classes alike: otherwise the model would answer a voice with the frequencies
            # of the faces.
            any_class = torch.randint(len(self._classes), (size,), generator=rng).numpy()
            alone = match_labels(self._classes[any_class], self.train_voices.labels, self._voice_chances, rng)
            faceless, voiceless = ~present[:, 0], ~present[:, 1]
            swapped = chance((size,), self.mismatch, rng) & present.all(dim=1)
            voices = np.where((faceless | swapped).numpy(), alone, voices)
            heard = torch.eye(classes)[self.train_voices.labels[voices]]
            face_share = torch.full((size,), 0.5).masked_fill(faceless, 0.0).masked_fill(voiceless, 1.0)
            targets = torch.lerp(heard, seen, face_share.unsqueeze(1))
            stills = resize_stills(self.train_faces.images[faces], self.image_size)
            stills = augment_stills(torch.cat([stills, other_mouths(stills, rng)], dim=1), rng)
            frames = to_uint8_rgb(stills_to_clips(stills, NUM_FRAMES, rng))
            excerpts = torch.stack([self._train_bank.excerpt(index, NUM_MEL_FRAMES, rng) for index in voices.tolist()])
            mels = self.surroundings.disturbed(excerpts, rng)
            # A clip without a face is black, one without a voice silent: what the runtime feeds for an absent one.
            face, voice = present.unbind(dim=1)
            inputs = (frames * face.view(-1, 1, 1, 1, 1), mels * voice.view(-1, 1, 1))
            yield taught(share(Batch(inputs, targets), shard), self.teacher)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        # A quick look during the run; mma-eval takes all pairs, and each modality alone.
        rng = epoch_generator(self.seed, -1)
        chosen = np.arange(0, len(self.val_faces.labels), VAL_STRIDE)
        labels = self.val_faces.labels[chosen]
        voices = match_labels(labels, self.val_voices.labels, torch.ones(len(self.val_voices.labels)), rng)
        for part in shard.slices(len(chosen), EVAL_BATCH):
            faces = resize_stills(self.val_faces.images[chosen[part]], self.image_size)
            frames = to_uint8_rgb(faces.unsqueeze(1).expand(-1, NUM_FRAMES, -1, -1, -1))
            mels = torch.stack([self._val_bank.clean(index) for index in voices[part].tolist()])
            yield Batch((frames, mels), torch.from_numpy(labels[part]))


def to_uint8_rgb(clips: Tensor) -> Tensor:
    """Grey clips (B, F, 1, S, S) in [0, 1] -> uint8 (B, F, S, S, 3)."""
    return (clips.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).expand(-1, -1, -1, -1, 3)


def draw_modalities(count: int, probability: float, rng: Generator) -> Tensor:
    """Which of (face, voice) each clip keeps: bool (count, 2); each is lost with `probability`, never both."""
    draw = torch.rand(count, generator=rng)
    return torch.stack([draw >= probability, draw <= 1 - probability], dim=1)
