"""mma-train with its subcommands, and mma-eval."""
