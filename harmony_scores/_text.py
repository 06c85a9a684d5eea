"""Text that files of ours have in common."""

from __future__ import annotations

__all__ = ["FIRST_LINE"]

FIRST_LINE = "# Written by Harmony, which puts it back where somebody changes it."
"""Of a file that a Score has written by a program, where # begins a comment: by that it is known for ours."""
