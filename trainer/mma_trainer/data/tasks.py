"""Batches of the public sets, augmented on the fly: faces alone, voices alone, pseudo pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from mma_edge.clip import NUM_FRAMES
from mma_trainer.data.augment import augment_mel, augment_stills, place_mel, stills_to_clips
from mma_trainer.data.public import Faces, Voices, check_pairs, mel_rows, resample
from mma_trainer.model.inputs import prepare_mel
from mma_trainer.task import WHOLE, Batch, Shard

EVAL_BATCH = 64
# Rates a voice is heard at: its own, and what cameras and video files have. The features follow
# the file's own rate, so the same voice looks different at each of them.
RATES_HZ = (16_000, 44_100)
# Pitch and tempo together, by pretending another sample rate; 44.1 kHz at 1.09 is also 48 kHz.
SPEEDS = (0.92, 1.0, 1.09)


def epoch_generator(seed: int, epoch: int) -> Generator:
    """Randomness of one epoch, a function of (seed, epoch) alone."""
    return Generator().manual_seed(seed * 1_000_003 + epoch)


def balanced_order(labels: np.ndarray, power: float, count: int, rng: Generator) -> np.ndarray:
    """`count` indices; a class of n clips is drawn in proportion to n ** power (1: as they are, 0: equally)."""
    classes, counts = np.unique(labels, return_counts=True)
    per_clip = dict(zip(classes, counts ** (power - 1.0), strict=True))
    weights = torch.tensor([per_clip[label] for label in labels], dtype=torch.float64)
    return torch.multinomial(weights, count, replacement=True, generator=rng).numpy()


def resize_stills(images: np.ndarray, size: int) -> Tensor:
    """uint8 (B, H, W) grey -> float32 (B, 1, size, size) in [0, 1]."""
    faces = torch.from_numpy(images).unsqueeze(1).float() / 255
    if faces.shape[-1] == size:
        return faces
    return F.interpolate(faces, (size, size), mode="bilinear", antialias=True, align_corners=False)


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
            yield Batch((images.expand(-1, 3, -1, -1),), torch.from_numpy(self.train.labels[chosen]))

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        for start in range(0, len(self.val.labels), 256):
            images = resize_stills(self.val.images[start : start + 256], self.image_size)
            yield Batch((images.expand(-1, 3, -1, -1),), torch.from_numpy(self.val.labels[start : start + 256]))


class VoiceBank:
    """Log-mel frames of every voice at every rate and speed, computed once and kept in float16."""

    def __init__(
        self, voices: Voices, rates_hz: tuple[int, ...] = RATES_HZ, speeds: tuple[float, ...] = SPEEDS
    ) -> None:
        self.labels, self.own_rate_hz = voices.labels, voices.sample_rate_hz
        self._rows: list[list[Tensor]] = []
        for wave in voices.waves:
            versions = []
            for rate in rates_hz:
                resampled = wave if rate == voices.sample_rate_hz else resample(wave, rate / voices.sample_rate_hz)
                versions += [torch.from_numpy(mel_rows(resampled, round(rate * speed))).half() for speed in speeds]
            self._rows.append(versions)

    def clean(self, index: int) -> Tensor:
        """The voice as a file's log-mel (512, 128): first rate and speed, no augmentation."""
        return place_mel(self._rows[index][0].float(), None)

    def random(self, index: int, rng: Generator) -> Tensor:
        versions = self._rows[index]
        return place_mel(versions[int(torch.randint(len(versions), (), generator=rng))].float(), rng)


def plain_bank(voices: Voices) -> VoiceBank:
    """Voices as they are, for validation."""
    return VoiceBank(voices, (voices.sample_rate_hz,), (1.0,))


class VoiceTask:
    """Voices for pre-training the audio encoder: inputs (mel normalised (B, 1, 512, 128),)."""

    def __init__(self, train: Voices, val: Voices, batch_size: int, seed: int, repeats: int) -> None:
        self.train, self.val = VoiceBank(train), plain_bank(val)
        self.batch_size, self.seed = batch_size, seed
        self.num_batches = repeats * len(train.labels) // batch_size

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        order = balanced_order(self.train.labels, 0.0, self.num_batches * self.batch_size, rng)
        for chosen in order.reshape(self.num_batches, self.batch_size):
            mels = torch.stack([self.train.random(index, rng) for index in chosen])
            yield Batch((prepare_mel(augment_mel(mels, rng)),), torch.from_numpy(self.train.labels[chosen]))

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        for start in range(0, len(self.val.labels), EVAL_BATCH):
            chosen = range(start, min(start + EVAL_BATCH, len(self.val.labels)))
            mels = torch.stack([self.val.clean(index) for index in chosen])
            yield Batch((prepare_mel(mels),), torch.from_numpy(self.val.labels[list(chosen)]))


class PseudoPairTask:
    """Face clips with voices of the same label: inputs (frames uint8 (B, 16, S, S, 3), mel (B, 512, 128)).

    The split is made before pairing: a validation face meets only a validation voice.
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
    ) -> None:
        for faces, voices in (train, val):
            check_pairs(faces, voices)
        self.train_faces, self.train_voices = train[0], VoiceBank(train[1])
        self.val_faces, self.val_voices = val[0], plain_bank(val[1])
        self.image_size, self.batch_size, self.seed = image_size, batch_size, seed
        self.modality_dropout = modality_dropout
        self.num_batches = clips_per_epoch // batch_size

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        order = balanced_order(self.train_faces.labels, 0.5, self.num_batches * self.batch_size, rng)
        for chosen in order.reshape(self.num_batches, self.batch_size):
            labels = self.train_faces.labels[chosen]
            stills = augment_stills(resize_stills(self.train_faces.images[chosen], self.image_size), rng)
            frames = to_uint8_rgb(stills_to_clips(stills, NUM_FRAMES, rng))
            voices = match_labels(labels, self.train_voices.labels, rng)
            mels = augment_mel(torch.stack([self.train_voices.random(index, rng) for index in voices]), rng)
            yield Batch(drop_modalities(frames, mels, self.modality_dropout, rng), torch.from_numpy(labels))

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, -1)
        voices = match_labels(self.val_faces.labels, self.val_voices.labels, rng)
        for start in range(0, len(voices), EVAL_BATCH):
            part = slice(start, start + EVAL_BATCH)
            frames = still_clips(self.val_faces.images[part], self.image_size)
            mels = torch.stack([self.val_voices.clean(index) for index in voices[part]])
            yield Batch((frames, mels), torch.from_numpy(self.val_faces.labels[part]))


def to_uint8_rgb(clips: Tensor) -> Tensor:
    """Grey clips (B, F, 1, S, S) in [0, 1] -> uint8 (B, F, S, S, 3)."""
    return (clips * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).expand(-1, -1, -1, -1, 3)


def still_clips(images: np.ndarray, size: int) -> Tensor:
    """Stills uint8 (B, H, W) shown for 16 frames: uint8 (B, 16, S, S, 3)."""
    faces = resize_stills(images, size).unsqueeze(1).expand(-1, NUM_FRAMES, -1, -1, -1)
    return to_uint8_rgb(faces)


def match_labels(wanted: np.ndarray, available: np.ndarray, rng: Generator) -> np.ndarray:
    """For each wanted label the index of a random clip that has it."""
    return np.array([pool[int(torch.randint(len(pool), (), generator=rng))] for pool in _pools(wanted, available)])


def _pools(wanted: np.ndarray, available: np.ndarray) -> list[np.ndarray]:
    by_label = {label: np.flatnonzero(available == label) for label in np.unique(wanted)}
    return [by_label[label] for label in wanted]


def drop_modalities(frames: Tensor, mels: Tensor, probability: float, rng: Generator) -> tuple[Tensor, Tensor]:
    """Black out the face or silence the voice of some clips, never both: what the runtime feeds for an absent one."""
    draw = torch.rand(len(frames), generator=rng)
    frames = torch.where((draw < probability).view(-1, 1, 1, 1, 1), torch.zeros_like(frames), frames)
    mels = torch.where((draw > 1 - probability).view(-1, 1, 1), torch.zeros_like(mels), mels)
    return frames, mels
