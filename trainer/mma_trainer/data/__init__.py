"""Training data: annotation lists in the authors' format, and two public unimodal sets."""
