"""A device on a thin line costs at rest what its owner was told."""

from __future__ import annotations

from pathlib import Path

from benchmarks.idle_bytes import measure

MOST_BYTES = 100_000


async def test_a_quiet_device_sends_less_than_100_kb_a_day_where_its_owner_wants_that(
    tmp_path: Path,
) -> None:
    """Of a tenth of a day, which takes a quarter of a minute; `python -m benchmarks.idle_bytes` has more."""
    usual, thin = await measure(tmp_path, (30.0, 600.0), faster=600.0, days=0.1)
    assert 0 < thin.heartbeats <= 170
    assert thin.heartbeat_bytes + thin.keep_alive_bytes <= thin.sent_bytes < MOST_BYTES
    assert usual.sent_bytes > 8 * thin.sent_bytes
