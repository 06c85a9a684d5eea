"""What an envelope says, whoever has signed it: for showing and for typing, never to act upon."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, cast

__all__ = ["read_unverified"]


def read_unverified(envelope: bytes) -> Mapping[str, Any]:
    """Return the fields of the manifest in *envelope*; none where it cannot be read. Raises nothing."""
    try:
        fields = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", fields) if isinstance(fields, dict) else {}
