"""Fine-tuning on a few clips of one's own: only what follows the encoders is trained, on features computed once."""
