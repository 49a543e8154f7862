"""What the figures are measured on, and with."""
