"""Voices for pre-training the audio encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Generator, Tensor

from mma_edge.audio.logmel import NUM_MEL_FRAMES
from mma_trainer.data.augment.draw import integer, uniform
from mma_trainer.data.augment.sound import augment_mel, mix, place_mel, room_echoes
from mma_trainer.data.batch import WHOLE, Batch, Shard, epoch_generator, share
from mma_trainer.data.public.background import Recordings
from mma_trainer.data.public.voices import Voices
from mma_trainer.data.public.waves import mel_rows
from mma_trainer.data.tasks.balance import Answering, mixed, taught, voice_targets, voice_weights
from mma_trainer.model.inputs import prepare_mel

EVAL_BATCH = 64
CORPUS_BALANCE = 0.5  # a corpus of n voices comes in proportion to its square root
SHORT_FRAMES = 256
MIXED_SHARE = 0.4  # of the batches


class SoundBank:
    """Log-mel rows of sounds, computed once and kept in float16."""

    def __init__(self, waves: Sequence[np.ndarray], sample_rate_hz: int) -> None:
        self._rows = [torch.from_numpy(mel_rows(wave, sample_rate_hz)).half() for wave in waves]

    def __len__(self) -> int:
        return len(self._rows)

    def clean(self, index: int) -> Tensor:
        """The sound as a file's log-mel (512, 128), no augmentation."""
        return place_mel(self._rows[index].float(), NUM_MEL_FRAMES, None)

    def excerpt(self, index: int, frames: int, rng: Generator) -> Tensor:
        """Part of the sound somewhere in (frames, 128), see `place_mel`."""
        return place_mel(self._rows[index].float(), frames, rng)

    def filling(self, count: int, frames: int, rng: Generator) -> Tensor:
        """`count` random sounds from a random moment on, repeated where they are too short: (count, frames, 128)."""
        clips = []
        for index in torch.randint(len(self._rows), (count,), generator=rng).tolist():
            rows = self._rows[index]
            first = integer(0, len(rows) - 1, rng)
            clips.append(rows[(first + torch.arange(frames)) % len(rows)].float())
        return torch.stack(clips)


class Surroundings:
    """Where a voice may be heard: background noise, and rooms."""

    def __init__(self, noise: Recordings, rooms: Recordings) -> None:
        self.noise = SoundBank(noise.waves, noise.sample_rate_hz)
        self.rooms = room_echoes([torch.from_numpy(mel_rows(wave, rooms.sample_rate_hz)) for wave in rooms.waves])

    def disturbed(self, mels: Tensor, rng: Generator, strength: float = 1.0) -> Tensor:
        """Log-mels (B, T, 128) heard elsewhere, see `augment_mel`."""
        return augment_mel(mels, self.noise.filling(*mels.shape[:2], rng), self.rooms, rng, strength)


class VoiceTask:
    """Voices for pre-training the audio encoder: inputs (mel normalised (B, 1, T, 128),), targets (B, 8).

    Args:
        surroundings: what disturbs the voices.
        short_epochs: the first epochs hear SHORT_FRAMES instead of the whole window: half of the work.
        easy_epochs: in the first epoch nothing is disturbed, then ever more, and after these epochs as much as ever.
        teacher: see `taught`.
    """

    def __init__(
        self,
        train: Voices,
        val: Voices,
        surroundings: Surroundings,
        batch_size: int,
        seed: int,
        short_epochs: int = 0,
        easy_epochs: int = 0,
        teacher: Answering | None = None,
    ) -> None:
        self.batch_size, self.seed = batch_size, seed
        self.short_epochs, self.easy_epochs = short_epochs, easy_epochs
        self.num_batches = len(train.labels) // batch_size
        self._targets, self._chances = voice_targets(train), voice_weights(train, CORPUS_BALANCE)
        self._val_labels = torch.from_numpy(val.labels)
        self.train, self.val = (SoundBank(voices.waves, voices.sample_rate_hz) for voices in (train, val))
        self.surroundings, self.teacher = surroundings, teacher

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        frames = SHORT_FRAMES if epoch < self.short_epochs else NUM_MEL_FRAMES
        strength = min(1.0, epoch / self.easy_epochs) if self.easy_epochs else 1.0
        order = torch.multinomial(self._chances, self.num_batches * self.batch_size, replacement=True, generator=rng)
        for chosen in order.reshape(self.num_batches, self.batch_size):
            voices = torch.stack([self.train.excerpt(index, frames, rng) for index in chosen.tolist()])
            mels = self.surroundings.disturbed(voices, rng, strength)
            targets = self._targets[chosen]
            if torch.rand((), generator=rng) < strength * MIXED_SHARE:
                other, part = torch.randperm(len(chosen), generator=rng), float(uniform((), 0.5, 1.0, rng))
                mels, targets = mix(mels, mels[other], part), mixed(targets, targets[other], part)
            yield taught(share(Batch((prepare_mel(mels),), targets), shard), self.teacher)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        for part in shard.slices(len(self._val_labels), EVAL_BATCH):
            mels = torch.stack([self.val.clean(index) for index in range(part.start, part.stop)])
            yield Batch((prepare_mel(mels),), self._val_labels[part])
