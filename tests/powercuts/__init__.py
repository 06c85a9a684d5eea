"""Power cuts: what a program has asked of a disk is recorded, and all is tried that a cut may leave of it."""
