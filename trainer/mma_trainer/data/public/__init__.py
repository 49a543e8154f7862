"""The public sets that the default model is made of: faces, voices, background sound, labelled clips. No torch."""
