"""Whose signatures count on a device, over restarts, and when it is let in anew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harmony_agent.config import AgentConfig, TrustTable
from harmony_agent.reset_floor import reset_floor
from harmony_agent.store.database import Database
from harmony_agent.store.desired import Desired
from harmony_core.errors import FloorLost
from harmony_core.wire.envelope import SigningKey, generate_key, seal
from harmony_core.wire.root import ROOT_TYPE, Root, Scope
from tests.authority import NATS, REPORT

from .test_floor import sealed

ROOT, ALICE, BOB = generate_key(), generate_key(), generate_key()


def document(
    version: int, root: SigningKey = ROOT, key: SigningKey = ALICE, **fields: Any
) -> bytes:
    found = Root(
        fleet="home",
        version=version,
        issued_at=datetime.now(UTC),
        root_keys=(root.public.to_text(),),
        root_threshold=1,
        scopes=(Scope(name="alice", keys=(key.public.to_text(),)),),
        **fields,
    )
    return seal(found.payload(), root, payload_type=ROOT_TYPE)


async def offered(
    directory: Path, pinned: bytes, *envelopes: bytes, published: bytes | None = None
) -> int:
    """Start with *pinned* in agent.toml, find *published* as the next root document, be offered these, and
    end: the generation in force."""

    async def fetch(version: int) -> bytes | None:
        return published if version == 2 else None

    config = AgentConfig(
        agent_id="pi-1",
        fleet="home",
        path=directory / "agent.toml",
        state_directory=directory,
        nats=NATS,
        report=REPORT,
        trust=TrustTable(root=pinned.decode()),
    )
    async with await Database.open(directory / "agent.db") as database:
        desired = await Desired.load(config, database)
        await desired.trust.update(fetch)
        for each in envelopes:
            desired.accept(each)
            await database.write(*desired.unstored_statements())
            desired.mark_stored()
        await desired.keep_floor()
        return desired.generation


def lose_memory(directory: Path) -> None:
    for each in ("root.json", "agent.db", "agent.db-wal", "agent.db-shm"):
        (directory / each).unlink(missing_ok=True)


async def test_a_root_document_that_has_counted_is_waited_for_where_it_was_lost(
    tmp_path: Path,
) -> None:
    first, second = document(1), document(2)
    assert await offered(tmp_path, first, sealed(1, ALICE), published=second) == 1
    (tmp_path / "root.json").unlink()
    with pytest.raises(FloorLost, match="root document"):
        await offered(tmp_path, first, sealed(2, ALICE))
    assert await offered(tmp_path, first) == 1, "what is in force stays so"
    assert await offered(tmp_path, first, sealed(2, ALICE), published=second) == 2


@pytest.mark.parametrize("pushed", [[], [sealed(1, ALICE)]])
async def test_none_of_before_counts_where_the_database_was_lost_too(
    tmp_path: Path, pushed: list[bytes]
) -> None:
    """Else a key that was taken out since counts again, for whoever keeps the newer document back."""
    first, second = document(1), document(2, key=BOB)
    await offered(tmp_path, first, *pushed)
    await offered(tmp_path, first, published=second)
    lose_memory(tmp_path)
    for _ in range(2):  # and it is not forgotten by having been waited for
        with pytest.raises(FloorLost, match="root document"):
            await offered(tmp_path, first, sealed(2, ALICE))
    (tmp_path / "floor.json").unlink()
    with pytest.raises(FloorLost, match="root document"):
        await offered(tmp_path, first, sealed(2, ALICE))
    assert await offered(tmp_path, first, sealed(2, BOB), published=second) == 2


async def test_a_floor_that_is_reset_leaves_who_may_sign(tmp_path: Path) -> None:
    first, second = document(1), document(2, key=BOB)
    await offered(tmp_path, first, sealed(5, BOB), published=second)
    config = tmp_path / "agent.toml"
    config.write_text(
        f'agent_id = "pi-1"\nfleet = "home"\nstate_directory = "{tmp_path}"\n'
        f'[nats]\nservers = ["tls://nowhere:4222"]\nseed = "{NATS.seed}"\n'
        f'mailbox = "{NATS.mailbox}"\nca = """{NATS.ca}"""\n'
        f'[report]\nkey = "{generate_key().to_text()}"\n'
        f"[trust]\nroot = '{first.decode()}'\n"
    )
    config.chmod(0o600)
    assert await reset_floor(config, is_confirmed=True) == 0
    lose_memory(tmp_path)
    with pytest.raises(FloorLost, match="root document"):
        await offered(tmp_path, first, sealed(2, ALICE))
    assert await offered(tmp_path, first, sealed(2, BOB), published=second) == 2


async def test_a_device_that_is_let_in_anew_waits_for_none_of_before(tmp_path: Path) -> None:
    assert await offered(tmp_path, document(1), sealed(1, ALICE), published=document(2)) == 1
    other, bob = generate_key(), generate_key()
    assert await offered(tmp_path, document(1, other, bob), sealed(2, bob)) == 2


async def test_a_new_epoch_ends_what_a_stolen_key_has_dated_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a device whose clock no time server sets: else what expires had expired there, for ever."""
    monkeypatch.setattr("harmony_agent.clock._SYNCHRONIZED", tmp_path / "synchronized")
    first, soon = document(1), datetime.now(UTC) + timedelta(days=30)
    ahead = sealed(1, ALICE, issued_at=datetime(9000, 1, 1, tzinfo=UTC))
    assert await offered(tmp_path, first, ahead) == 1
    second = document(2, key=BOB, epoch=1, expires_at=soon)
    new = sealed(2, BOB, epoch=1, expires_at=soon)
    assert await offered(tmp_path, first, new, published=second) == 2
