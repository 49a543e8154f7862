"""What users read about the commands, made from the parsers: help, man pages, docs/commands.md, shell completion."""
