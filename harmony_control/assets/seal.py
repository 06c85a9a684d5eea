"""Keys for assets, as their Scores are pushed: each content has one key of this home.

An asset that is in force already keeps the key that it has there, also where another operator gave it: the
same file, pushed again, is the same wish, and nothing has to be put anywhere twice.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping

from harmony_control.store.home import Home, read_if_there, write_whole
from harmony_core.errors import ConfigError
from harmony_core.resources import Asset
from harmony_core.wire.assets import find_assets, map_assets
from harmony_core.wire.manifest import SerializedScore

__all__ = ["assets_of", "give_keys", "without_keys"]

_SECRET_BYTES = 32


def assets_of(entries: Iterable[SerializedScore]) -> list[Asset]:
    """Return every asset in *entries*, each once."""
    found: dict[Asset, None] = {}
    for each in entries:
        found |= dict.fromkeys(find_assets(each.spec))
    return [*found]


def give_keys(
    home: Home, entries: Mapping[str, SerializedScore], before: Iterable[SerializedScore]
) -> dict[str, SerializedScore]:
    """Return *entries*, with a key for each asset that has none, where *before* is in force."""
    if not any(each.key is None for each in assets_of(entries.values())):
        return dict(entries)
    known = {each.sha256: each.key for each in assets_of(before) if each.key is not None}
    secret = _read_secret(home)

    def give(asset: Asset) -> Asset:
        if asset.key is not None:
            return asset
        key = known.get(asset.sha256) or _derive_key(secret, asset)
        return asset.model_copy(update={"key": key})

    return {name: _with_spec(each, map_assets(each.spec, give)) for name, each in entries.items()}


def without_keys(entry: SerializedScore) -> SerializedScore:
    """Return *entry* as somebody has written it, to compare it with what is written now."""
    if not assets_of([entry]):
        return entry
    spec = map_assets(entry.spec, lambda asset: asset.model_copy(update={"key": None}))
    return _with_spec(entry, spec)


def _with_spec(entry: SerializedScore, spec: dict[str, object]) -> SerializedScore:
    return entry if spec == entry.spec else entry.model_copy(update={"spec": spec})


def _derive_key(secret: bytes, asset: Asset) -> str:
    """Return the key of this content: without *secret*, nobody can tell that it belongs to the content."""
    return hashlib.blake2b(
        bytes.fromhex(asset.sha256), key=secret, digest_size=32, person=b"harmony-asset-k1"
    ).hexdigest()


def _read_secret(home: Home) -> bytes:
    """Return the secret from which this home's keys of assets are made; made when it is first needed."""
    secret = read_if_there(home.asset_key)
    if secret is None:
        secret = secrets.token_bytes(_SECRET_BYTES)
        write_whole(home.asset_key, secret)
    if len(secret) != _SECRET_BYTES:
        raise ConfigError(
            f"{home.asset_key} is not the {_SECRET_BYTES} bytes that were written there; remove it: what is "
            "pushed from then on is put on the server anew"
        )
    return secret
