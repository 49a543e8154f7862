"""What a model is evaluated on. No torch, so a benchmark on a device can use it."""
