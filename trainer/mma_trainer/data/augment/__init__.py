"""Augmentation in torch, whole batches at a time; every random number comes from the generator that is given."""
