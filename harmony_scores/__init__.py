"""Harmony's own Scores, registered through the entry point like anybody else's."""
