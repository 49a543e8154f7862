"""Batches of the public sets, augmented on the fly: faces alone, voices alone, pseudo pairs."""
