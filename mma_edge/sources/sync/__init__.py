"""How far sound and picture of a source are apart: measuring it, and putting it right."""
