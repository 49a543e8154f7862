"""Pictures with answers on them: of a file, and beside a run."""
