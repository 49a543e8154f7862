"""The commands of mma-bench."""
