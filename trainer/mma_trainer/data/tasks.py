"""Batches of the public sets, augmented on the fly: faces alone, voices alone, pseudo pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mma_edge.clip import NUM_FRAMES
from mma_trainer.data.augment import augment_mel, augment_stills, loudest_part, place_mel, stills_to_clips, uniform
from mma_trainer.data.batch import WHOLE, Batch, Shard, epoch_generator, share
from mma_trainer.data.public.faces import Faces
from mma_trainer.data.public.voices import Voices, check_pairs
from mma_trainer.data.public.waves import mel_rows, resample
from mma_trainer.model.inputs import prepare_mel

EVAL_BATCH = 64
EVAL_STILLS = 256  # a batch of single pictures
# Rates a voice is heard at: its own, and what cameras and video files have. The features follow
# the file's own rate, so the same voice looks different at each of them.
RATES_HZ = (16_000, 44_100)
# Pitch and tempo together, by pretending another sample rate; 44.1 kHz at 1.09 is also 48 kHz.
SPEEDS = (0.92, 1.0, 1.09)
# Classes are drawn in proportion to their count to this power: between as found (1) and equally (0).
FACE_BALANCE = 0.5
SHORT_FRAMES = 256
VAL_STRIDE = 4  # every n-th pair is looked at after an epoch


def balanced_order(labels: np.ndarray, power: float, count: int, rng: Generator) -> np.ndarray:
    """`count` indices; a class of n clips is drawn in proportion to n ** power (1: as they are, 0: equally)."""
    classes, counts = np.unique(labels, return_counts=True)
    per_clip = dict(zip(classes, counts ** (power - 1.0), strict=True))
    weights = torch.tensor([per_clip[label] for label in labels], dtype=torch.float64)
    return torch.multinomial(weights, count, replacement=True, generator=rng).numpy()


def resize_stills(images: np.ndarray, size: int) -> Tensor:
    """uint8 (B, H, W) grey -> float32 (B, 1, size, size) in [0, 1]."""
    faces = torch.from_numpy(images).unsqueeze(1).float() / 255
    if faces.shape[-1] != size:
        faces = F.interpolate(faces, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return faces


class FaceTask:
    """Stills for pre-training the image encoder: inputs (frames float (B, 3, S, S),)."""

    def __init__(self, train: Faces, val: Faces, image_size: int, batch_size: int, seed: int, balance: float) -> None:
        self.train, self.val = train, val
        self.image_size, self.batch_size, self.seed, self.balance = image_size, batch_size, seed, balance
        self.num_batches = len(train.labels) // batch_size

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        order = balanced_order(self.train.labels, self.balance, self.num_batches * self.batch_size, rng)
        for chosen in order.reshape(self.num_batches, self.batch_size):
            images = augment_stills(resize_stills(self.train.images[chosen], self.image_size), rng)
            yield share(Batch((images.expand(-1, 3, -1, -1),), torch.from_numpy(self.train.labels[chosen])), shard)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        for part in shard.slices(len(self.val.labels), EVAL_STILLS):
            images = resize_stills(self.val.images[part], self.image_size)
            yield Batch((images.expand(-1, 3, -1, -1),), torch.from_numpy(self.val.labels[part]))


class VoiceBank:
    """Log-mel frames of every voice at every rate and speed, computed once and kept in float16."""

    def __init__(
        self, voices: Voices, rates_hz: tuple[int, ...] = RATES_HZ, speeds: tuple[float, ...] = SPEEDS
    ) -> None:
        self.labels = voices.labels
        self._rows: list[list[Tensor]] = []
        for wave in voices.waves:
            versions = []
            for rate in rates_hz:
                resampled = wave if rate == voices.sample_rate_hz else resample(wave, rate / voices.sample_rate_hz)
                versions += [torch.from_numpy(mel_rows(resampled, round(rate * speed))).half() for speed in speeds]
            self._rows.append(versions)

    def clean(self, index: int) -> Tensor:
        """The voice as a file's log-mel (512, 128): first rate and speed, no augmentation."""
        return place_mel(self._version(index, 0), None)

    def random(self, index: int, rng: Generator) -> Tensor:
        """An excerpt of the voice at any rate and speed."""
        return place_mel(self._version(index, int(torch.randint(len(self._rows[index]), (), generator=rng))), rng)

    def spliced(self, index: int, other: int, rng: Generator) -> Tensor:
        """The voice's beginning and the end of another, both at the same rate and speed."""
        version = int(torch.randint(len(self._rows[index]), (), generator=rng))
        first, second = self._version(index, version), self._version(other, version)
        share = float(uniform((), 0.3, 0.7, rng))
        return place_mel(torch.cat([first[: int(len(first) * share)], second[int(len(second) * share) :]]), rng)

    def _version(self, index: int, version: int) -> Tensor:
        return self._rows[index][version].float()


def plain_bank(voices: Voices) -> VoiceBank:
    """Voices as they are, for validation."""
    return VoiceBank(voices, (voices.sample_rate_hz,), (1.0,))


class VoiceTask:
    """Voices for pre-training the audio encoder: inputs (mel normalised (B, 1, 512, 128),).

    Args:
        splice: share of the voices that begin as one and end as another of the same class: what
            one actor does to a sentence matters less then, and 16 actors make many more.
        short_epochs: the first epochs hear SHORT_FRAMES around the loudest part instead of the whole
            window: half of the work, and less silence to look through.
    """

    def __init__(
        self, train: Voices, val: Voices, batch_size: int, seed: int, splice: float = 0.0, short_epochs: int = 0
    ) -> None:
        self.train, self.val = VoiceBank(train), plain_bank(val)
        self.batch_size, self.seed, self.splice, self.short_epochs = batch_size, seed, splice, short_epochs
        self.num_batches = len(train.labels) // batch_size

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        order = balanced_order(self.train.labels, 0.0, self.num_batches * self.batch_size, rng)
        for chosen in order.reshape(self.num_batches, self.batch_size):
            others = match_labels(self.train.labels[chosen], self.train.labels, rng)
            cut = torch.rand(self.batch_size, generator=rng) < self.splice
            mels = [
                self.train.spliced(index, other, rng) if spliced else self.train.random(index, rng)
                for index, other, spliced in zip(chosen, others, cut.tolist(), strict=True)
            ]
            heard = torch.stack(mels)
            if epoch < self.short_epochs:
                heard = loudest_part(heard, SHORT_FRAMES, rng)
            mel = prepare_mel(augment_mel(heard, rng))
            yield share(Batch((mel,), torch.from_numpy(self.train.labels[chosen])), shard)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        for part in shard.slices(len(self.val.labels), EVAL_BATCH):
            mels = torch.stack([self.val.clean(index) for index in range(part.start, part.stop)])
            yield Batch((prepare_mel(mels),), torch.from_numpy(self.val.labels[part]))


class PseudoPairTask:
    """Face clips with voices of the same label: inputs (frames uint8 (B, 16, S, S, 3), mel (B, 512, 128)).

    The split is made before pairing: a validation face meets only a validation voice. The encoders
    know the training voices far better than any they will meet, so fusion would learn to believe the
    voice too much; in a share of the pairs (`mismatch`) the voice is therefore one of any class.

    Args:
        modality_dropout: probability of losing each modality of a clip, never both.
        mismatch: share of the whole pairs whose voice is drawn from any class; the label stays the face's.
    """

    def __init__(
        self,
        train: tuple[Faces, Voices],
        val: tuple[Faces, Voices],
        image_size: int,
        batch_size: int,
        seed: int,
        clips_per_epoch: int,
        modality_dropout: float,
        mismatch: float = 0.0,
    ) -> None:
        for faces, voices in (train, val):
            check_pairs(faces, voices)
        self.train_faces, self.train_voices = train[0], VoiceBank(train[1])
        self.val_faces, self.val_voices = val[0], plain_bank(val[1])
        self.image_size, self.batch_size, self.seed = image_size, batch_size, seed
        self.modality_dropout, self.mismatch = modality_dropout, mismatch
        self.num_batches = clips_per_epoch // batch_size

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        count = self.num_batches * self.batch_size
        # Faces keep some of their class frequencies. Voices alone come with all classes equally likely: otherwise
        # the model would learn to answer a voice with the frequencies of the faces.
        faces = balanced_order(self.train_faces.labels, FACE_BALANCE, count, rng)
        alone = balanced_order(self.train_voices.labels, 0.0, count, rng)
        for start in range(0, count, self.batch_size):
            rows = slice(start, start + self.batch_size)
            present = draw_modalities(self.batch_size, self.modality_dropout, rng)
            labels = self.train_faces.labels[faces[rows]]
            voices = match_labels(labels, self.train_voices.labels, rng)
            swap = ((torch.rand(self.batch_size, generator=rng) < self.mismatch) & present.all(dim=1)).numpy()
            faceless = ~present[:, 0].numpy()
            voices = np.where(faceless | swap, alone[rows], voices)
            labels = np.where(faceless, self.train_voices.labels[voices], labels)
            stills = augment_stills(resize_stills(self.train_faces.images[faces[rows]], self.image_size), rng)
            frames = to_uint8_rgb(stills_to_clips(stills, NUM_FRAMES, rng))
            mels = augment_mel(torch.stack([self.train_voices.random(index, rng) for index in voices]), rng)
            # A clip without a face is black, one without a voice silent: what the runtime feeds for an absent one.
            face, voice = present.unbind(dim=1)
            inputs = (frames * face.view(-1, 1, 1, 1, 1), mels * voice.view(-1, 1, 1))
            yield share(Batch(inputs, torch.from_numpy(labels)), shard)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        # A quick look during the run; mma-eval takes all pairs, and each modality alone.
        rng = epoch_generator(self.seed, -1)
        chosen = np.arange(0, len(self.val_faces.labels), VAL_STRIDE)
        labels = self.val_faces.labels[chosen]
        voices = match_labels(labels, self.val_voices.labels, rng)
        for part in shard.slices(len(chosen), EVAL_BATCH):
            faces = resize_stills(self.val_faces.images[chosen[part]], self.image_size)
            frames = to_uint8_rgb(faces.unsqueeze(1).expand(-1, NUM_FRAMES, -1, -1, -1))
            mels = torch.stack([self.val_voices.clean(index) for index in voices[part]])
            yield Batch((frames, mels), torch.from_numpy(labels[part]))


def to_uint8_rgb(clips: Tensor) -> Tensor:
    """Grey clips (B, F, 1, S, S) in [0, 1] -> uint8 (B, F, S, S, 3)."""
    return (clips * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).expand(-1, -1, -1, -1, 3)


def match_labels(wanted: np.ndarray, available: np.ndarray, rng: Generator) -> np.ndarray:
    """For each wanted label the index of a random clip that has it."""
    with_label = {label: np.flatnonzero(available == label) for label in np.unique(wanted)}
    pools = [with_label[label] for label in wanted]
    return np.array([pool[int(torch.randint(len(pool), (), generator=rng))] for pool in pools])


def draw_modalities(count: int, probability: float, rng: Generator) -> Tensor:
    """Which of (face, voice) each clip keeps: bool (count, 2); each is lost with `probability`, never both."""
    draw = torch.rand(count, generator=rng)
    return torch.stack([draw >= probability, draw <= 1 - probability], dim=1)
