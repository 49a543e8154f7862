"""How often the right one of two faces has the voice."""
