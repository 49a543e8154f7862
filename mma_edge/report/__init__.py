"""What a session shows afterwards: one page that needs nothing else, and the same ribbon for a paper (SVG, PNG)."""
