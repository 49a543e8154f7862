"""TensorRT 10.3 or later: building a plan on this device, its gate, and the engine that runs it."""
