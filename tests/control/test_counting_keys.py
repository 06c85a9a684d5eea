"""On whose signatures operators build: the index, classes and gates, by every root document of the epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from nats.aio.client import Client

from harmony_control.bus.connection import Entry
from harmony_control.bus.reports import Seen
from harmony_control.rollout.documents import ClassDocuments, Standing
from harmony_control.rollout.members import read_manifests
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.roots import Believed, read_believed, save_root
from harmony_core.errors import UntrustedSignature
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.class_manifest import CLASS_TYPE, PLACES, ClassManifest, Rollout, Step
from harmony_core.wire.envelope import SigningKey, generate_key, pin_keys, seal
from harmony_core.wire.fleet_index import FLEET_TYPE, FleetIndex
from harmony_core.wire.gate import GATE_TYPE, Gate, GateState
from harmony_core.wire.manifest import Manifest, SerializedScore
from harmony_core.wire.names import FLEET, FLEET_WIDE, INDEX_KEY, ROLLOUT
from harmony_core.wire.root import ROOT_TYPE, Root, Scope
from tests.nats import home_without_server

NOW = datetime.now(UTC)
ROOT, ADA, BOB, EVE = (generate_key() for _ in range(4))
YESTERDAY = NOW - timedelta(days=1)


def scope(name: str, *keys: SigningKey, **limits: Any) -> Scope:
    return Scope(name=name, keys=tuple(each.public.to_text() for each in keys), **limits)


ADMIN = scope("admin", ADA)
FULL = scope("eve", EVE)
ATTIC = scope("eve", EVE, signs=("manifest",), agents=("attic-*",))
KIOSK = scope("eve", EVE, signs=("manifest",), classes=("kiosk",))
FILES = scope("eve", EVE, signs=("manifest",), classes=("kiosk",), kinds=("FileScore",))
TWO = scope("eve", EVE, BOB, signs=("manifest",), classes=("kiosk",), threshold=2)
OVER = scope("eve", EVE, signs=("manifest",), classes=("kiosk",), until=YESTERDAY)
ASKS = scope("eve", EVE, signs=("request",))
Versions = Sequence[Sequence[Scope]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = home_without_server(tmp_path)
    operator_key.trust(home, [ADA.public])
    return home


def believe(home: Home, versions: Versions) -> Believed:
    """Have the home keep a root document for each of *versions*, one after the other."""
    for version, scopes in enumerate(versions, 1):
        root = Root(
            fleet="home",
            version=version,
            issued_at=NOW,
            root_keys=(ROOT.public.to_text(),),
            root_threshold=1,
            scopes=tuple(scopes),
        )
        signers = (ROOT, ADA) if version == 1 else (ROOT,)
        save_root(home, version, seal(root.payload(), *signers, payload_type=ROOT_TYPE))
    return read_believed(home)


def score(kind: str = "ContainerScore") -> SerializedScore:
    return SerializedScore(id="web", kind=kind, version=1, spec={})


class Server:
    """What the buckets hold, whoever has put it there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: dict[tuple[str, str], Entry] = {}
        held = self.held

        class Bucket:
            def __init__(self, _: object, name: str) -> None:
                self._name = name

            async def get(self, key: str) -> Entry | None:
                return held.get((self._name, key))

        monkeypatch.setattr("harmony_control.rollout.documents.Bucket", Bucket)

    def put(self, bucket: str, key: str, envelope: bytes) -> None:
        self.held[bucket, key] = Entry(key=key, value=envelope, revision=1, written_at=NOW)

    def put_index(self, *by: SigningKey) -> None:
        index = FleetIndex(fleet="home", generation=1, issued_at=NOW)
        self.put(FLEET, INDEX_KEY, seal(index.payload(), *by, payload_type=FLEET_TYPE))

    def put_class(
        self,
        generation: int,
        *by: SigningKey,
        kind: str = "ContainerScore",
        upto: str = "100%",
    ) -> str:
        manifest = ClassManifest(
            fleet="home",
            target="class:kiosk",
            generation=generation,
            issued_at=NOW,
            supersedes=generation - 1,
            scores=(score(kind),),
            rollout=Rollout(steps=(Step(upto=upto, places=PLACES),)),
        )
        payload = manifest.payload()
        envelope = seal(payload, *by, payload_type=CLASS_TYPE)
        self.put("desired-class", f"kiosk.{generation}", envelope)
        return hashlib.sha256(payload).hexdigest()

    def put_gate(
        self,
        generation: int,
        sha256: str,
        *by: SigningKey,
        state: GateState = "done",
        stable: tuple[int, str | None] = (0, None),
    ) -> None:
        gate = Gate(
            fleet="home",
            name="kiosk",
            generation=generation,
            sha256=sha256,
            stable_generation=stable[0],
            stable_sha256=stable[1],
            state=state,
            places=PLACES,
            term=1,
            seq=1,
            issued_at=NOW,
        )
        self.put(ROLLOUT, "kiosk", seal(gate.payload(), *by, payload_type=GATE_TYPE))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


async def read_standing(home: Home, believed: Believed) -> Standing:
    # Nothing is written: nobody signs, and no server is asked but the one of this test.
    documents = ClassDocuments(home, cast("Client", None), [], believed)
    gate = await documents.read_gate("kiosk", await documents.read_index())
    return await documents.read_standing("kiosk", gate)


@pytest.mark.parametrize(
    ("versions", "counts"),
    [
        ([[ADMIN, FULL]], {FLEET_WIDE, "class:kiosk", "agent:attic-1"}),
        ([[ADMIN, ATTIC]], {"agent:attic-1"}),
        ([[ADMIN, FULL], [ADMIN, ATTIC]], {"agent:attic-1"}),
        # Who is taken out is believed no more than just before, and no less.
        ([[ADMIN, FULL], [ADMIN]], {FLEET_WIDE, "class:kiosk", "agent:attic-1"}),
        ([[ADMIN, FULL], [ADMIN, ATTIC], [ADMIN]], {"agent:attic-1"}),
        ([[ADMIN, FULL], [ADMIN, KIOSK], [ADMIN], [ADMIN]], {"class:kiosk"}),
        ([[ADMIN, FULL], [ADMIN], [ADMIN, ATTIC], [ADMIN]], {"agent:attic-1"}),
        ([[ADMIN, ATTIC], [ADMIN, FULL], [ADMIN]], {FLEET_WIDE, "class:kiosk", "agent:attic-1"}),
        ([[ADMIN, FULL], [ADMIN, ASKS]], set[str]()),
        ([[ADMIN, FULL], [ADMIN, ASKS], [ADMIN]], set[str]()),
        ([[ADMIN, OVER]], set[str]()),
        ([[ADMIN, FULL], [ADMIN, OVER], [ADMIN]], set[str]()),
    ],
)
def test_a_key_counts_for_what_it_signed_for_by_the_last_document_that_has_it(
    home: Home, versions: Versions, counts: set[str]
) -> None:
    believed = believe(home, versions)
    targets = (FLEET_WIDE, "class:kiosk", "agent:attic-1")
    found = {each for each in targets if EVE.public.id in believed.find_counting(each)}
    assert found == counts
    assert all(ADA.public.id in believed.find_counting(each) for each in targets)


@pytest.mark.parametrize(
    ("versions", "by"),
    [
        ([[ADMIN, FULL], [ADMIN, ATTIC]], [EVE]),
        ([[ADMIN, FULL], [ADMIN, ATTIC], [ADMIN]], [EVE]),
        ([[ADMIN, FULL], [ADMIN, scope("eve", EVE, until=YESTERDAY)]], [EVE]),
        # What is for all kinds concerns more than it may change.
        ([[ADMIN, scope("eve", EVE, kinds=("FileScore",))]], [EVE]),
        ([[scope("all", ADA, EVE, threshold=2)]], [EVE]),
        # One is for the whole fleet, and of some kinds; the other of all kinds, and not for the whole fleet.
        ([[ADMIN, scope("bob", BOB, kinds=("FileScore",)), ATTIC]], [EVE, BOB]),
    ],
)
async def test_no_index_is_built_upon_that_its_signers_may_not_sign(
    home: Home, server: Server, versions: Versions, by: Sequence[SigningKey]
) -> None:
    server.put_index(*by)
    with pytest.raises(UntrustedSignature, match="holds as fleet index"):
        await read_standing(home, believe(home, versions))


@pytest.mark.parametrize(
    ("versions", "by"),
    [
        ([[ADMIN, FULL]], [EVE]),
        ([[ADMIN, FULL], [ADMIN]], [EVE]),
        ([[scope("all", ADA, EVE, threshold=2)]], [EVE, ADA]),
        # One of the two was taken out since.
        (
            [[scope("all", ADA, EVE, threshold=2)], [scope("all", ADA, BOB, threshold=2)]],
            [EVE, ADA],
        ),
    ],
)
async def test_an_index_is_built_upon_whose_signers_might_sign_it(
    home: Home, server: Server, versions: Versions, by: Sequence[SigningKey]
) -> None:
    server.put_index(*by)
    documents = ClassDocuments(home, cast("Client", None), [], believe(home, versions))
    found = await documents.read_index()
    assert found is not None
    assert found.value.generation == 1


@pytest.mark.parametrize(
    ("limit", "kind", "by", "counts"),
    [
        (KIOSK, "ContainerScore", [EVE], True),
        (FILES, "FileScore", [EVE], True),
        (FILES, "ContainerScore", [EVE], False),
        (TWO, "ContainerScore", [EVE], False),
        (TWO, "ContainerScore", [EVE, BOB], True),
        (OVER, "ContainerScore", [EVE], False),
        (FILES, "ContainerScore", [EVE, ADA], True),
    ],
)
@pytest.mark.parametrize("is_removed", [False, True])
async def test_a_class_is_built_upon_as_far_as_its_signers_might_sign_it(
    home: Home,
    server: Server,
    limit: Scope,
    kind: str,
    by: Sequence[SigningKey],
    *,
    counts: bool,
    is_removed: bool,
) -> None:
    """Else an operator would sign with the next generation what a key that may not has put there."""
    server.put_index(ADA)
    server.put_gate(1, server.put_class(1, *by, kind=kind), ADA)
    versions = [[ADMIN, limit], [ADMIN]] if is_removed else [[ADMIN, FULL], [ADMIN, limit]]
    believed = believe(home, versions)
    if counts:
        standing = await read_standing(home, believed)
        assert standing.manifest is not None
        assert standing.manifest.scores == (score(kind),)
        return
    with pytest.raises(UntrustedSignature, match="holds as class:kiosk"):
        await read_standing(home, believed)


async def test_without_a_root_document_what_is_signed_here_counts(
    home: Home, server: Server
) -> None:
    server.put_index(ADA)
    server.put_gate(1, server.put_class(1, ADA), ADA)
    keys = pin_keys([ADA.public])
    standing = await read_standing(home, Believed(root=None, keys=keys))
    assert standing.manifest is not None


async def test_an_aborted_generation_that_its_signers_may_not_sign_says_nothing_of_the_next(
    home: Home, server: Server
) -> None:
    """Its waves would have all that comes next reach everybody at once."""
    server.put_index(ADA)
    before = server.put_class(1, ADA, upto="1")
    evil = server.put_class(2, EVE)
    server.put_gate(2, evil, ADA, state="aborted", stable=(1, before))
    standing = await read_standing(home, believe(home, [[ADMIN, FILES]]))
    assert standing.manifest is not None
    assert standing.manifest.generation == 1
    assert [each.upto for each in standing.rollout.steps] == ["1"]
    server.put_class(2, ADA)
    standing = await read_standing(home, read_believed(home))
    assert [each.upto for each in standing.rollout.steps] == ["100%"]


@pytest.mark.parametrize(
    ("versions", "is_told", "is_taken_in", "counts"),
    [
        ([[ADMIN, FULL]], True, False, True),
        ([[ADMIN, FULL], [ADMIN]], True, False, True),
        # Written afterwards, the device refuses it, and it would be told to be as the folder wants it.
        ([[ADMIN, FULL], [ADMIN, KIOSK]], True, False, False),
        ([[ADMIN, FULL], [ADMIN, KIOSK]], False, False, False),
        ([[ADMIN, FULL], [ADMIN, KIOSK], [ADMIN]], True, False, False),
        ([[ADMIN, FULL], [ADMIN, KIOSK]], True, True, True),
        ([[ADMIN]], True, True, False),
    ],
)
async def test_a_plan_goes_by_what_the_device_has_taken_in_or_what_its_signer_may_sign(
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    versions: Versions,
    *,
    is_told: bool,
    is_taken_in: bool,
    counts: bool,
) -> None:
    manifest = Manifest(
        fleet="home", target="agent:attic-1", generation=3, issued_at=NOW, labels={"role": "kiosk"}
    )
    payload = manifest.payload()

    async def newest_of(*_: object) -> list[Entry]:
        return [Entry(key="attic-1", value=seal(payload, EVE), revision=1, written_at=NOW)]

    monkeypatch.setattr("harmony_control.rollout.members.newest_of", newest_of)
    state = ActualState(
        agent_id="attic-1",
        agent_version="",
        boot_id="",
        generation=3,
        observed_generation=3,
        manifest_sha256=hashlib.sha256(payload if is_taken_in else b"another").hexdigest(),
    )
    seen = Seen(agent_id="attic-1", presence="Heard", state=state if is_told else None)
    documents = ClassDocuments(home, cast("Client", None), [], believe(home, versions))
    found = await read_manifests(documents, [seen])
    assert found == ({"attic-1": manifest} if counts else {})
