"""Jobs: programs that are run to their end, once."""
