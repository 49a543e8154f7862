"""How right, how robust and how honest a model is. No torch at import."""
