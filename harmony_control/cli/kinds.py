"""``harmony kinds [KIND]``: what can be pushed, with a JSON Schema of each for editors."""

from __future__ import annotations

import argparse
import inspect
import json
import sys

from harmony_core import plugins
from harmony_core.score import AnyScore

from .exits import CONVERGED, FAILED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print the kinds that are installed here; 1 when a package's kinds are broken."""
    registry = plugins.load()
    scores = [registry.find(options.kind)] if options.kind else list(registry)
    for score in scores:
        if options.json:
            print(json.dumps(_document(score)))
        elif options.kind:
            print(json.dumps(score.model_json_schema(), indent=2))
        else:
            summary = (inspect.getdoc(score) or "").partition("\n")[0]
            print(f"{score.kind:<24} v{score.version}  {summary}")
            print(f"{'':<24}     needs {', '.join(sorted(score.requires))}")
    for broken in registry.errors:
        print(f"harmony: broken: {broken.entry_point}: {broken.reason}", file=sys.stderr)
    return FAILED if registry.errors else CONVERGED


def _document(score: type[AnyScore]) -> dict[str, object]:
    return {
        "kind": score.kind,
        "version": score.version,
        "requires": sorted(score.requires),
        "schema": score.model_json_schema(),
    }
