"""How fast a corpus of files is, and how that grows with the workers."""
