"""Stills for pre-training the image encoder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mma_trainer.data.augment.draw import uniform
from mma_trainer.data.augment.faces import augment_stills
from mma_trainer.data.batch import WHOLE, Batch, Shard, epoch_generator, share
from mma_trainer.data.public.faces import Faces
from mma_trainer.data.tasks.balance import Answering, mixed, taught, vote_weights

EVAL_STILLS = 256  # a batch of single pictures
MIXED_SHARE = 0.2  # of the batches


def resize_stills(images: np.ndarray, size: int) -> Tensor:
    """uint8 (B, H, W) grey -> float32 (B, 1, size, size) in [0, 1]."""
    faces = torch.from_numpy(images).unsqueeze(1).float() / 255
    if faces.shape[-1] != size:
        faces = F.interpolate(faces, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return faces


class FaceTask:
    """Stills for pre-training the image encoder: inputs (frames float (B, 3, S, S),), targets (B, 7) from the votes.

    Args:
        balance: pictures are drawn so that a class with n votes comes in proportion to n ** balance.
        teacher: see `taught`.
    """

    def __init__(
        self,
        train: Faces,
        val: Faces,
        image_size: int,
        batch_size: int,
        seed: int,
        balance: float,
        teacher: Answering | None = None,
    ) -> None:
        self.train, self.val, self.teacher = train, val, teacher
        self.image_size, self.batch_size, self.seed = image_size, batch_size, seed
        self.num_batches = len(train.labels) // batch_size
        self._chances = vote_weights(train.targets, balance)
        # A picture on which people do not agree what it is at all counts less.
        self._targets = torch.from_numpy(train.targets * train.weights[:, None])

    def train_batches(self, epoch: int, shard: Shard = WHOLE) -> Iterator[Batch]:
        rng = epoch_generator(self.seed, epoch)
        count = self.num_batches * self.batch_size
        order = torch.multinomial(self._chances, count, replacement=True, generator=rng).numpy()
        for chosen in order.reshape(self.num_batches, self.batch_size):
            images, targets = resize_stills(self.train.images[chosen], self.image_size), self._targets[chosen]
            images = augment_stills(images, rng)
            if torch.rand((), generator=rng) < MIXED_SHARE:
                other, part = torch.randperm(len(chosen), generator=rng), float(uniform((), 0.5, 1.0, rng))
                images, targets = torch.lerp(images[other], images, part), mixed(targets, targets[other], part)
            yield taught(share(Batch((images.expand(-1, 3, -1, -1),), targets), shard), self.teacher)

    def val_batches(self, shard: Shard = WHOLE) -> Iterator[Batch]:
        for part in shard.slices(len(self.val.labels), EVAL_STILLS):
            images = resize_stills(self.val.images[part], self.image_size)
            yield Batch((images.expand(-1, 3, -1, -1),), torch.from_numpy(self.val.labels[part]))
