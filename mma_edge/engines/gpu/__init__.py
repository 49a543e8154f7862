"""GPU memory, streams, events and CUDA graphs behind one small interface."""
