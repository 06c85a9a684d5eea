"""Whether what a device tells of its past is what was seen of it."""
