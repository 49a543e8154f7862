"""Many runs as one: folds, ablations, corpora left out."""
