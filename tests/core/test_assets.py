"""Assets on the wire: what is sealed as one piece opens as that piece alone."""

from __future__ import annotations

import pytest

from harmony_core.errors import AssetDamaged, InvalidResource
from harmony_core.resources import ASSET_MAX_BYTES, Asset
from harmony_core.wire.assets import (
    CHUNK_BYTES,
    asset_id,
    chunk_count,
    chunk_key,
    find_assets,
    map_assets,
    open_chunk,
    seal_chunk,
)
from harmony_pi_topology.posix.hashing import HASHED_MAX_BYTES

ASSET = Asset(sha256="ab" * 32, size_bytes=CHUNK_BYTES + 1, name="model.bin", key="cd" * 32)
FIRST = b"x" * CHUNK_BYTES


def but(**fields: object) -> Asset:
    return ASSET.model_copy(update=fields)


def test_a_piece_opens_as_what_was_sealed_and_costs_sixteen_bytes() -> None:
    sealed = seal_chunk(ASSET, 0, FIRST)
    assert open_chunk(ASSET, 0, sealed) == FIRST
    assert len(sealed) == len(FIRST) + 16
    assert sealed == seal_chunk(ASSET, 0, FIRST)
    assert chunk_count(ASSET) == 2
    assert chunk_key(ASSET, 1) == f"{asset_id(ASSET)[0]}.{asset_id(ASSET)}.1"


@pytest.mark.parametrize(
    ("asset", "number"),
    [
        (but(key="ce" * 32), 0),
        (but(size_bytes=2 * CHUNK_BYTES + 1), 0),
        (ASSET, 1),
    ],
    ids=["another key", "of another number of pieces", "another piece"],
)
def test_it_opens_as_nothing_else(asset: Asset, number: int) -> None:
    sealed = seal_chunk(ASSET, 0, FIRST)
    with pytest.raises(AssetDamaged, match=f"piece {number} of model.bin.*is not what was pushed"):
        open_chunk(asset, number, sealed)


@pytest.mark.parametrize("damage", [b"", b"x" * 15, bytes(CHUNK_BYTES + 16)])
def test_what_is_no_piece_at_all_is_damaged(damage: bytes) -> None:
    with pytest.raises(AssetDamaged, match=f"harmony assets remove {asset_id(ASSET)}"):
        open_chunk(ASSET, 0, damage)


def test_a_piece_of_another_size_is_damaged_whoever_has_sealed_it() -> None:
    sealed = seal_chunk(ASSET, 1, b"too many")
    with pytest.raises(AssetDamaged, match=r"has 8 bytes instead of 1; .* harmony assets remove"):
        open_chunk(ASSET, 1, sealed)


def test_what_was_never_pushed_has_no_id() -> None:
    with pytest.raises(InvalidResource, match="push its Score with `harmony`"):
        asset_id(but(key=None))


def test_assets_are_found_and_changed_wherever_they_stand() -> None:
    plain = but(key=None).model_dump(mode="json")
    assert "key" not in plain
    spec = {"files": [{"asset": plain}], "asset": None, "env": {"sha256": "x", "name": "y"}}
    assert [*find_assets(spec)] == [but(key=None)]
    keyed = map_assets(spec, lambda asset: asset.model_copy(update={"key": ASSET.key}))
    assert [*find_assets(keyed)] == [ASSET]
    assert [*find_assets(spec)] == [but(key=None)]
    assert keyed["env"] == spec["env"]


def test_a_device_can_look_at_the_largest_and_shows_no_key() -> None:
    assert ASSET_MAX_BYTES <= HASHED_MAX_BYTES
    assert "cdcd" not in repr(ASSET)
