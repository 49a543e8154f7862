"""Files of weights: checkpoints, ours and the authors', and pre-trained encoders."""
