"""Symbolic links."""
