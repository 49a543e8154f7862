"""What users read about the commands: help, man pages, docs/commands.md, shell completion. All of it from the parsers."""
