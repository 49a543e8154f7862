"""From a checkpoint to a bundle: ONNX graph, parity gate, manifest. Needs torch and onnx."""
