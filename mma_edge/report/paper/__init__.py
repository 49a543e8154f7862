"""The ribbon as a figure for a paper: SVG with text as text, and PNG, in millimetres."""
