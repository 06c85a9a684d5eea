"""What stands in each device's desired state, as far as a view of the whole fleet shows it.

Whose it is, is not asked: what a device refuses, it says itself. But labels choose devices, so they are told
only where the device reports that it has taken in this very manifest, or who signed it is trusted here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import attrs

from harmony_control.store.home import Home
from harmony_core.errors import ConfigError, ManifestRejected
from harmony_core.wire.envelope import open_envelope
from harmony_core.wire.names import target_of

from .connection import Entry

if TYPE_CHECKING:
    from harmony_control.store.roots import Believed

__all__ = ["Desired", "read_desired"]

_NONE: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Desired:
    """What one envelope wants of its device."""

    epoch: int
    generation: int
    manifest_sha256: str
    labels: Mapping[str, str] = _NONE


async def read_desired(
    home: Home, entries: Mapping[str, Entry], taken_in: Mapping[str, str]
) -> dict[str, Desired]:
    """Return, by key, what each of *entries* wants; leave out those that cannot be read.

    *taken_in* is the hash of the manifest that each device reports, of those that are believed.
    """
    found: dict[str, Desired] = {}
    doubted: dict[str, Entry] = {}
    for key, entry in entries.items():
        desired = _read(key, entry.value)
        if desired is None:
            continue
        found[key] = desired
        if desired.labels and desired.manifest_sha256 != taken_in.get(key):
            doubted[key] = entry
    if doubted:
        believed = await asyncio.to_thread(_read_believed, home)
        for key, entry in doubted.items():
            if believed is None or not _is_signed(
                entry.value, believed.find_counting(target_of(key))
            ):
                found[key] = attrs.evolve(found[key], labels=_NONE)
    return found


def _read(agent_id: str, envelope: bytes) -> Desired | None:
    try:
        payload = base64.b64decode(json.loads(envelope)["payload"])
        fields = cast("Mapping[str, Any]", json.loads(payload))
        epoch, generation = fields.get("epoch", 0), fields["generation"]
        is_its_own = fields.get("target") == target_of(agent_id)
        labels = cast("Mapping[str, object]", (fields.get("labels") if is_its_own else None) or {})
        if not (isinstance(generation, int) and isinstance(epoch, int)):
            return None
        return Desired(
            epoch=epoch,
            generation=generation,
            manifest_sha256=hashlib.sha256(payload).hexdigest(),
            labels={name: value for name, value in labels.items() if isinstance(value, str)},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _read_believed(home: Home) -> Believed | None:
    from harmony_control.store.roots import read_believed  # only where somebody's word is needed

    try:
        return read_believed(home)
    except ConfigError:
        return None  # then nobody is: who pushes is told why


def _is_signed(envelope: bytes, trusted: Mapping[str, bytes]) -> bool:
    try:
        open_envelope(envelope, trusted)
    except ManifestRejected:
        return False
    return True
