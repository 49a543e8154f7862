"""How often a bundle is right."""
