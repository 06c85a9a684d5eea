"""Fakes, and the contracts that real adapters pass too: `harmony_core.testing` is what authors import."""

from __future__ import annotations

from . import rewriting as rewriting  # first: it concerns how the contracts are imported
