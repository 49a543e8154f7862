"""The commands of `mma-edge`, and what every command of the project shares."""
