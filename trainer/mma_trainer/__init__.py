"""Training of MMA-DFER: model, data, recipe, evaluation, checkpoints. Needs torch."""
