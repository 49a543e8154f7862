"""Pages of runs and evaluations. No torch."""
