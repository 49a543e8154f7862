"""Where the milliseconds of a run go."""
