"""What counts as speech."""
