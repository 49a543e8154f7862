"""The graphs of `mma-edge run --streaming`, and the gate of the rolling ones."""
