"""What a push is built on, and the generation that it gets: nothing is lost, and nothing undone unseen."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from blockbuster import blockbuster_ctx

from harmony_control.device import Device
from harmony_control.enrol import revoke
from harmony_control.fleet import Fleet
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.errors import (
    NotEnrolled,
    StaleGeneration,
    StoreError,
    TooLarge,
    UntrustedSignature,
    UsageError,
    WrongEpoch,
)
from harmony_core.score import AnyScore
from harmony_core.wire.envelope import seal
from harmony_core.wire.manifest import GENERATION_MAX, Manifest, SerializedScore, parse_manifest
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore

from .ground import Ground

BUCKET = "desired-state"


def score(name: str) -> FileScore:
    return FileScore(path=f"/etc/{name}", content=name)


def entry(name: str) -> SerializedScore:
    made: AnyScore = score(name)
    return SerializedScore(
        id=name, kind=made.kind, version=made.version, spec=made.model_dump(mode="json")
    )


def device(plane: Ground) -> Device[PiTopology]:
    return plane.fleet.device("pi-1")


def signed(plane: Ground, generation: int, *names: str, **fields: Any) -> bytes:
    """By the operator's own key, as another of their machines would."""
    manifest = Manifest(
        fleet="home",
        target="agent:pi-1",
        generation=generation,
        issued_at=datetime.now(UTC),
        scores=tuple(map(entry, names)),
        **fields,
    )
    return seal(manifest.payload(), operator_key.load(plane.home))


async def stored(plane: Ground) -> Manifest:
    found = await plane.bus.bucket(BUCKET).get("pi-1")
    assert found is not None
    envelope: Mapping[str, str] = json.loads(found.value)
    return parse_manifest(base64.b64decode(envelope["payload"]))


async def put(plane: Ground, envelope: bytes) -> None:
    await plane.bus.bucket(BUCKET).put("pi-1", envelope)


async def lose_the_bucket(plane: Ground) -> None:
    # Asked for, not just published: the answer says that it is stored.
    await plane.bus.admin.request(f"$KV.{BUCKET}.pi-1", headers={"KV-Operation": "DEL"})
    assert await plane.bus.bucket(BUCKET).get("pi-1") is None


async def test_a_push_adds_to_what_another_machine_has_pushed(plane: Ground) -> None:
    await device(plane).put({"a": score("a")})
    await put(plane, signed(plane, 7, "a", "theirs", labels={"site": "attic"}, epoch=0))
    pushed = await device(plane).put({"b": score("b")})
    assert set(pushed.entries) == {"a", "theirs", "b"}
    assert (await stored(plane)).order == (0, 8)
    assert (await stored(plane)).labels == {"site": "attic"}


@pytest.mark.parametrize("epoch", [1, GENERATION_MAX])
async def test_nothing_is_built_upon_an_epoch_that_no_device_takes_in(
    plane: Ground, epoch: int
) -> None:
    await device(plane).put({"a": score("a")})
    await put(plane, signed(plane, 1, "b", epoch=epoch))
    with pytest.raises(WrongEpoch, match=f"is of epoch {epoch}, and it is 0.*--all --force"):
        await device(plane).put({"c": score("c")})
    pushed = await device(plane).put_again(force=True)
    assert set(pushed.entries) == {"a"}
    assert (await stored(plane)).order == (0, 2)


async def test_the_epoch_that_the_device_has_goes_on(plane: Ground) -> None:
    """As of a fleet that has had a root document."""
    envelope = signed(plane, 4, "b", epoch=3)
    await put(plane, envelope)
    payload = base64.b64decode(json.loads(envelope)["payload"])
    sha256 = hashlib.sha256(payload).hexdigest()
    await plane.pi.report(attrs.evolve(plane.pi.state(4), epoch=3, manifest_sha256=sha256))
    pushed = await device(plane).put({"c": score("c")})
    assert set(pushed.entries) == {"b", "c"}
    assert (await stored(plane)).order == (3, 5)


async def test_a_device_that_has_taken_in_such_an_epoch_is_brought_back_by_force(
    plane: Ground,
) -> None:
    """As by an earlier agent. Its own word is not what is signed: else it would be of no use to reset its
    floor."""
    await device(plane).put({"a": score("a")})
    envelope = signed(plane, 1, "b", epoch=GENERATION_MAX)
    await put(plane, envelope)
    payload = base64.b64decode(json.loads(envelope)["payload"])
    taken_in: dict[str, Any] = {
        "epoch": GENERATION_MAX,
        "manifest_sha256": hashlib.sha256(payload).hexdigest(),
    }
    await plane.pi.report(attrs.evolve(plane.pi.state(1), **taken_in))
    with pytest.raises(WrongEpoch):
        await device(plane).put_again()
    pushed = await device(plane).put_again(force=True)
    assert set(pushed.entries) == {"a"}
    assert (await stored(plane)).order == (0, 2)


async def test_after_the_key_was_deleted_what_was_pushed_is_still_meant(plane: Ground) -> None:
    await device(plane).put({"a": score("a")})
    await lose_the_bucket(plane)
    pushed = await device(plane).put({"b": score("b")})
    assert set(pushed.entries) == {"a", "b"}
    assert pushed.generation == 2


async def test_what_somebody_else_wrote_is_written_over_only_by_force_and_nothing_of_it_kept(
    plane: Ground,
) -> None:
    await device(plane).put({"a": score("a")})
    await put(plane, b"garbage")
    with pytest.raises(UntrustedSignature, match="--all --force"):
        await device(plane).put_again()
    pushed = await device(plane).put_again(force=True)
    assert set(pushed.entries) == {"a"}
    assert (await stored(plane)).generation == 2


async def test_what_lost_against_another_machine_is_not_slipped_in_later(plane: Ground) -> None:
    await device(plane).put({"a": score("a")})
    # Signed here three times over while the bus was away, and never taken by it.
    plane.home.store_pending("pi-1", signed(plane, 4, "a", "never-taken"))
    await put(plane, signed(plane, 2, "a", "theirs"))
    pushed = await device(plane).put({"b": score("b")})
    assert set(pushed.entries) == {"a", "theirs", "b"}
    assert pushed.generation == 5, "no generation is given to two manifests"


async def test_what_the_device_has_taken_in_counts_even_if_the_bus_has_lost_it(
    plane: Ground,
) -> None:
    await device(plane).put({"a": score("a")})
    envelope = signed(plane, 2, "a", "taken-in")
    plane.home.store_pending("pi-1", envelope)
    payload = base64.b64decode(json.loads(envelope)["payload"])
    sha256 = hashlib.sha256(payload).hexdigest()
    await plane.pi.report(attrs.evolve(plane.pi.state(2), manifest_sha256=sha256))
    pushed = await device(plane).put({"b": score("b")})
    assert set(pushed.entries) == {"a", "taken-in", "b"}
    assert pushed.generation == 3


async def test_once_taken_nothing_is_pending(plane: Ground) -> None:
    await device(plane).put({"a": score("a")})
    found = await plane.bus.bucket(BUCKET).get("pi-1")
    assert found is not None
    assert plane.home.read_stored_manifest("pi-1") == found.value
    assert plane.home.pending_manifest("pi-1") is None


async def test_what_the_bus_refuses_was_never_pushed(plane: Ground) -> None:
    await device(plane).put({"a": score("a")})
    before = plane.home.read_stored_manifest("pi-1")
    answer = await plane.bus.admin.request(f"$JS.API.STREAM.INFO.KV_{BUCKET}")
    config = json.loads(answer.data)["config"] | {"max_bytes": 20_000}
    await plane.bus.admin.request(f"$JS.API.STREAM.UPDATE.KV_{BUCKET}", json.dumps(config).encode())
    with pytest.raises(StoreError, match="maximum bytes exceeded"):
        await device(plane).put({"b": FileScore(path="/etc/b", content="b" * 40_000)})
    assert plane.home.read_stored_manifest("pi-1") == before
    assert plane.home.pending_manifest("pi-1") is None
    pushed = await device(plane).put({"c": score("c")})
    assert set(pushed.entries) == {"a", "c"}


async def test_nothing_is_pushed_over_what_only_the_device_knows(plane: Ground) -> None:
    await plane.pi.report(plane.pi.state(41))
    with pytest.raises(StaleGeneration, match=r"taken in generation 41, and nothing is known here"):
        await device(plane).put({"a": score("a")})
    await put(plane, signed(plane, 38, "older"))
    with pytest.raises(StaleGeneration, match=r"the newest known here is 38: pushing would undo"):
        await device(plane).put({"a": score("a")})
    assert (await stored(plane)).generation == 38
    pushed = await device(plane).put({"a": score("a")}, force=True)
    assert (pushed.generation, set(pushed.entries)) == (42, {"older", "a"})


async def test_pushing_again_brings_back_what_the_server_lost(plane: Ground) -> None:
    await device(plane).put({"a": score("a")})
    await device(plane).put({"b": score("b")})
    await plane.pi.report(plane.pi.state(2))
    await lose_the_bucket(plane)
    pushed = await device(plane).put_again()
    assert pushed.generation == 3
    assert {each.id for each in (await stored(plane)).scores} == {"a", "b"} == pushed.changed


async def test_pushing_again_what_was_never_pushed_empties_no_device(plane: Ground) -> None:
    with pytest.raises(UsageError, match=r"nothing was ever pushed to pi-1 from"):
        await device(plane).put_again()
    assert await plane.bus.bucket(BUCKET).get("pi-1") is None


async def test_a_generation_beyond_the_last_is_refused(plane: Ground) -> None:
    await put(plane, signed(plane, GENERATION_MAX, "a"))
    with pytest.raises(UsageError, match="no generation is left in this epoch"):
        await device(plane).put({"b": score("b")})


async def test_what_is_too_large_is_refused_before_anything_is_kept(plane: Ground) -> None:
    half = {name: FileScore(path=f"/{name}", content="x" * 140_000) for name in ("a", "b")}
    await device(plane).put({"a": half["a"]})
    with pytest.raises(TooLarge, match=r"all Scores of this device together: .* split it"):
        await device(plane).put({"b": half["b"]})
    assert {each.id for each in (await stored(plane)).scores} == {"a"}
    assert plane.home.pending_manifest("pi-1") is None


@pytest.mark.parametrize("foreign", [b"", b"{}", b"\xff", b'{"payload": "e30="}'], ids=repr)
async def test_on_what_is_no_manifest_of_ours_nothing_is_built(
    foreign: bytes, plane: Ground
) -> None:
    await put(plane, foreign)
    with pytest.raises(UntrustedSignature, match="Find out who writes the bucket"):
        await device(plane).put({"a": score("a")})
    found = await plane.bus.bucket(BUCKET).get("pi-1")
    assert found is not None
    assert found.value == foreign


async def test_another_devices_manifest_is_not_taken_for_its_own(plane: Ground) -> None:
    await plane.fleet.device("pi-2").put({"secret": score("secret")})
    theirs = await plane.bus.bucket(BUCKET).get("pi-2")
    assert theirs is not None
    await put(plane, theirs.value)
    with pytest.raises(UntrustedSignature, match="WrongTarget"):
        await device(plane).put({"a": score("a")})


async def test_a_device_that_is_not_enrolled_is_pushed_to_only_by_force(plane: Ground) -> None:
    with pytest.raises(
        NotEnrolled, match=r"there is no device 'pi-l'; did you mean 'pi-1' or 'pi-2'\?"
    ):
        await plane.fleet.device("pi-l").put({"a": score("a")})
    assert await plane.bus.bucket(BUCKET).get("pi-l") is None
    pushed = await plane.fleet.device("pi-l").put({"a": score("a")}, force=True)
    assert pushed.warnings[0].startswith("pi-l is not enrolled here (pi-1, pi-2 are)")
    pushed = await plane.fleet.device("pi-2").put({"a": score("a")})
    assert "pi-2 was never heard of" in pushed.warnings[0]


async def test_a_device_whose_key_is_revoked_is_pushed_to_only_by_force(plane: Ground) -> None:
    await plane.fleet.device("pi-2").put({"a": score("a")})
    await asyncio.to_thread(revoke, plane.home, "pi-2")
    with pytest.raises(NotEnrolled, match=r"the key of pi-2 is revoked.*root@pi-2 --replace"):
        await plane.fleet.device("pi-2").put({"b": score("b")})
    pushed = await plane.fleet.device("pi-2").put({"b": score("b")}, force=True)
    assert pushed.generation == 2
    # Let in again, it is a device as any.
    await plane.bus.enrol("pi-2")
    assert (await plane.fleet.device("pi-2").put({"c": score("c")})).generation == 3


DAMAGE = [b"", b"{", b"\xff", b'{"payload": "e30="}']


@pytest.mark.parametrize("damaged", DAMAGE, ids=repr)
@pytest.mark.parametrize("suffix", [".json", ".pending"])
async def test_our_own_file_when_damaged_is_named_and_left_out_by_force(
    suffix: str, damaged: bytes, plane: Ground
) -> None:
    await device(plane).put({"a": score("a")})
    file = plane.home.manifest_json("pi-1", suffix)
    file.write_bytes(damaged)
    with pytest.raises(UntrustedSignature, match=f"{file}: it is damaged.* use --force"):
        await device(plane).put({"b": score("b")})
    pushed = await device(plane).put({"b": score("b")}, force=True)
    assert (pushed.generation, set(pushed.entries)) == (2, {"a", "b"}), "the bucket has it still"
    assert (await device(plane).put({"c": score("c")})).generation == 3


async def test_pushed_again_by_force_what_cannot_be_read_empties_no_device(plane: Ground) -> None:
    await device(plane).put({"a": score("a")})
    plane.home.manifest_json("pi-1").write_bytes(b"damaged")
    await put(plane, b"garbage")
    with pytest.raises(UsageError, match="there is no Score to push to pi-1 again"):
        await device(plane).put_again(force=True)
    found = await plane.bus.bucket(BUCKET).get("pi-1")
    assert found is not None
    assert found.value == b"garbage"
    pushed = await device(plane).put({"b": score("b")}, force=True)
    assert set(pushed.entries) == {"b"}


async def test_with_a_new_signing_key_it_goes_on_where_the_earlier_one_is_trusted(
    plane: Ground,
) -> None:
    await device(plane).put({"a": score("a")})
    earlier = plane.home.operator_pub.read_text()
    plane.home.operator_key.unlink()
    operator_key.create(plane.home)
    with pytest.raises(UntrustedSignature, match=r"put their operator\.pub into"):
        await device(plane).put({"b": score("b")})
    plane.home.operators.mkdir()
    (plane.home.operators / "earlier.pub").write_text(earlier)
    pushed = await device(plane).put({"b": score("b")})
    assert (pushed.generation, set(pushed.entries)) == (2, {"a", "b"})


async def test_a_push_reads_and_writes_no_file_in_the_loop(plane: Ground) -> None:
    with blockbuster_ctx("harmony_control"):
        await device(plane).put({"a": score("a")})
        await device(plane).put_again()
        await device(plane).history()
        await plane.fleet.agents()


class HeldHome(Home):
    """A directory on a disk that takes its time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.writes, self.go = threading.Event(), threading.Event()

    def store_pending(self, agent_id: str, envelope: bytes) -> None:
        self.writes.set()
        self.go.wait()
        super().store_pending(agent_id, envelope)


async def test_cancelled_a_push_lets_nobody_in_before_its_file_is_written(plane: Ground) -> None:
    home = HeldHome(plane.home.root)
    pushing = asyncio.create_task(
        Fleet(home, plane.bus.admin).device("pi-1").put({"a": score("a")})
    )
    await asyncio.to_thread(home.writes.wait)
    pushing.cancel()
    await asyncio.sleep(0)
    with home.pushing("pi-1") as was_free:
        home.go.set()
    assert not was_free
    with pytest.raises(asyncio.CancelledError):
        await pushing
    with home.pushing("pi-1") as is_free:
        assert is_free
    assert home.pending_manifest("pi-1") is not None
