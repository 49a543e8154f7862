"""mma-train with its subcommands, and mma-eval."""

COMMANDS = {
    name: f"mma_trainer.commands.{name.replace('-', '_')}" for name in ("tune", "prepare", "ablate", "leave-out")
}
"""Subcommands of mma-train and their modules; without a subcommand it trains."""
