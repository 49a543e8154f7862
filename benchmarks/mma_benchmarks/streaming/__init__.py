"""What `--streaming` saves."""
