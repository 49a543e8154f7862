"""The trained part: joint adaptation, temporal transformer and classifier, on features of `tuning.features`."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mma_trainer.data.batch import epoch_generator
from mma_trainer.model import MMADFER
from mma_trainer.training.recipe import Recipe, build_optimizer, build_scheduler, training_loss
from mma_trainer.tuning.features import VIEWS, Features

RECIPE = Recipe(
    epochs=30, batch_size=16, lr=3e-4, weight_decay=1e-2, label_smoothing=0.1, modality_dropout=0.25, schedule="step"
)
MIN_BATCHES = 6
"""Of an epoch: a dozen clips would see too few steps to learn a new class."""
PARTS = ("joint", "temporal", "classifier")


class Head(nn.Module):
    """A copy of what a model does after `encode`, free to be trained."""

    def __init__(self, model: MMADFER) -> None:
        super().__init__()
        self.joint, self.temporal, self.classifier = (copy.deepcopy(getattr(model, part)).cpu() for part in PARTS)
        self.requires_grad_(True)

    def forward(self, features: Tensor) -> Tensor:
        """(N, T, W) -> logits (N, C)."""
        return self.classifier(self.temporal(self.joint(features)))

    def put_into(self, model: MMADFER) -> None:
        """Make the head the model's own."""
        for part in PARTS:
            getattr(model, part).load_state_dict(getattr(self, part).state_dict())


def train_head(start: Head, features: Features, clips: Sequence[int], recipe: Recipe) -> Head:
    """A copy of `start` trained on these clips; a function of its arguments alone.

    All classes that occur are drawn equally often, however many clips they have. A clip loses its face or its sound
    with the recipe's modality dropout each; a silent one keeps its face.
    """
    head, chosen = copy.deepcopy(start).train(), torch.as_tensor(np.asarray(clips))
    size = recipe.batch_size
    num_batches = max(MIN_BATCHES, len(chosen) // size)
    optimizer, labels = build_optimizer(head, recipe), features.labels[chosen]
    scheduler = build_scheduler(optimizer, recipe, num_batches)
    weights = 1 / torch.bincount(labels)[labels].double()
    silent = torch.from_numpy(~features.has_sound)[chosen]
    for epoch in range(recipe.epochs):
        rng = epoch_generator(recipe.seed, epoch)
        for batch in torch.multinomial(weights, num_batches * size, replacement=True, generator=rng).split(size):
            view, draw = torch.randint(VIEWS, (size,), generator=rng), torch.rand(size, generator=rng)
            both, video, audio = (tokens[chosen[batch], view] for tokens in features.views.values())
            faceless = (draw < recipe.modality_dropout) & ~silent[batch]
            inputs = torch.where((draw > 1 - recipe.modality_dropout).view(-1, 1, 1), video, both)
            inputs = torch.where(faceless.view(-1, 1, 1), audio, inputs)
            loss, _ = training_loss(head(inputs), labels[batch], recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
    return head.eval()


@torch.no_grad()
def answers(head: nn.Module, features: Features) -> dict[str, np.ndarray]:
    """Logits float32 (N, C) of the test clips, by what the head got, one of MODALITIES."""
    return {name: head(tokens).numpy() for name, tokens in features.plain.items()}
