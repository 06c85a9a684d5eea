"""The fleet's secrets at rest, and as they are sealed for a device: what is older, or whose, counts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harmony_control.push.seal import Sealer, without_current_secrets
from harmony_control.store import operator_key
from harmony_control.store import secrets as secrets_module
from harmony_control.store.home import Home
from harmony_control.store.roots import save_root
from harmony_control.store.secrets import FleetSecrets
from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.envelope import Signer, SigningKey, VerifyKey, generate_key, seal
from harmony_core.wire.manifest import SerializedScore, hash_entry
from harmony_core.wire.root import ROOT_TYPE, Root, Scope
from harmony_core.wire.sealed import SealedFor, open_sealed, seal_box
from tests.control.ground import harmony
from tests.nats import home_without_server

DEVICE = generate_key()
TYPE = "application/vnd.harmony.secret.v1+json"
NO_POINT = VerifyKey(b"\0" * 32).to_text()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_without_server(tmp_path)


def copy_of(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in home.secrets.iterdir()}


def put_back(home: Home, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (home.secrets / name).write_bytes(data)


def entry(id: str = "web", more: str = "") -> SerializedScore:
    return SerializedScore(
        id=id, kind="FileScore", version=1, spec={"c": "${secret.db}" + more}, references=True
    )


def sealer(
    home: Home,
    generation: int = 1,
    key: str = DEVICE.public.to_text(),
    *,
    is_own: bool = True,
    named: Collection[str] = ("web", "another", "new"),
) -> Sealer:
    return Sealer(
        home=home,
        agent_id="pi-1",
        report_key=key,
        is_enrolled_here=is_own,
        epoch=0,
        generation=generation,
        named=named,
    )


def value_of(sealed: SerializedScore, key: SigningKey = DEVICE) -> str:
    what_for = SealedFor(
        agent_id="pi-1",
        score=sealed.id,
        name="db",
        entry=hash_entry(sealed),
        epoch=0,
        generation=9,
    )
    return open_sealed(sealed.secrets["db"], what_for, key)


# ---- which of two is the newer


def test_each_value_is_newer_than_the_one_before_also_where_the_clock_is_behind(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2001, 1, 1, tzinfo=UTC)

    secrets = FleetSecrets(home)
    secrets.set("db", "one")
    versions = [secrets.read("db").version]
    monkeypatch.setattr(secrets_module, "datetime", Behind)
    for value in ("two", "three"):
        secrets.set("db", value)
        versions.append(secrets.read("db").version)
    assert versions == sorted(set(versions))
    assert not secrets.read("db").set_at.startswith("2001")


def test_an_older_copy_undoes_no_rotation(home: Home) -> None:
    secrets = FleetSecrets(home)
    secrets.set("db", "old")
    older = copy_of(home)
    secrets.set("db", "new")
    before = {"web": sealer(home).seal({"web": entry()}, {}).entries["web"]}
    put_back(home, older)

    pushed = sealer(home, 2).seal({"web": entry()}, before)
    assert pushed.entries == before
    assert value_of(pushed.entries["web"]) == "new"
    [warning] = pushed.warnings
    assert "pi-1 keeps the secret 'db' that it has: the value here is older" in warning
    assert without_current_secrets(secrets, before["web"]) == entry()

    for changed in (entry(more="!"), entry("another")):
        with pytest.raises(UsageError, match="the value here is older than the one in force"):
            sealer(home, 2).seal({changed.id: changed}, before)


def test_a_newer_one_is_sealed_also_for_what_nobody_pushed_and_an_equal_one_is_kept(
    home: Home,
) -> None:
    secrets = FleetSecrets(home)
    secrets.set("db", "old")
    before = {"web": sealer(home).seal({"web": entry()}, {}).entries["web"]}
    assert sealer(home, 2).seal({"web": entry()}, before).entries == before
    secrets.set("db", "new")
    assert without_current_secrets(FleetSecrets(home), before["web"]) == before["web"]
    after = sealer(home, 2).seal({"web": entry()}, before)
    assert value_of(after.entries["web"]) == "new"
    assert after.warnings == ()


# ---- whose they are


def forge(home: Home, key: Signer, **fields: object) -> None:
    """Write a secret as somebody might who knows how, with boxes that open."""
    own = operator_key.load(home).public
    version = "0190" * 4
    boxed = {"name": "db", "version": version, "value": "forged", **fields}
    kept = {
        "v": 1,
        "name": "db",
        "version": version,
        "boxes": {own.id: seal_box(json.dumps(boxed).encode(), own)},
    }
    home.secrets.mkdir(exist_ok=True)
    (home.secrets / "db.json").write_bytes(seal(json.dumps(kept).encode(), key, payload_type=TYPE))


def test_what_no_operator_has_signed_is_neither_opened_nor_shared(home: Home) -> None:
    forge(home, generate_key())
    for use in (FleetSecrets(home).share, lambda: FleetSecrets(home).open("db")):
        with pytest.raises(ConfigError, match="is not as an operator has written it"):
            use()
    FleetSecrets(home).set("db", "mine")
    assert FleetSecrets(home).open("db").value == "mine"


@pytest.mark.parametrize("other", [{"name": "smtp"}, {"version": "0191" * 4}, {"value": 1}])
def test_a_box_of_another_secret_is_not_opened(home: Home, other: dict[str, object]) -> None:
    forge(home, operator_key.load(home))
    assert FleetSecrets(home).open("db").value == "forged"
    forge(home, operator_key.load(home), **other)
    with pytest.raises(ConfigError, match="another was put in its place") as refused:
        FleetSecrets(home).open("db")
    assert "forged" not in repr(refused.value)


def test_a_renamed_one_and_a_damaged_one_are_refused_and_a_device_keeps_what_it_has(
    home: Home,
) -> None:
    secrets = FleetSecrets(home)
    secrets.set("db", "mine")
    secrets.set("other", "another")
    before = {"web": sealer(home).seal({"web": entry()}, {}).entries["web"]}
    for data, told in (
        ((home.secrets / "other.json").read_bytes(), "is the secret 'other' under another name"),
        (b"{}", "is damaged"),
    ):
        (home.secrets / "db.json").write_bytes(data)
        with pytest.raises(ConfigError, match=told):
            secrets.open("db")
        kept = sealer(home, 2).seal({"web": entry()}, before)
        assert kept.entries == before
        assert told in kept.warnings[0]
        with pytest.raises(ConfigError, match=told):
            sealer(home, 2).seal({"new": entry("new")}, before)


def test_whom_the_root_document_lets_push_nothing_gets_none(home: Home) -> None:
    stolen, own = generate_key().public, operator_key.load_public(home)
    operator_key.trust(home, [stolen])
    root_key, versions = generate_key(), itertools.count(1)

    def believe(*keys: VerifyKey) -> None:
        root = Root(
            fleet=home.control().fleet,
            version=next(versions),
            issued_at=datetime.now(UTC),
            root_keys=(root_key.public.to_text(),),
            root_threshold=1,
            scopes=tuple(
                Scope(name=f"operator-{n}", keys=(key.to_text(),)) for n, key in enumerate(keys)
            ),
        )
        save_root(home, root.version, seal(root.payload(), root_key, payload_type=ROOT_TYPE))

    believe(own, stolen)
    assert set(FleetSecrets(home).set("db", "mine")) == {own.id, stolen.id}
    believe(own)
    assert FleetSecrets(home).share() == {"db": [own.id]}
    assert FleetSecrets(home).find_left_out() == [stolen.id]
    assert FleetSecrets(home).read("db").boxes.keys() == {own.id}
    believe(stolen)
    with pytest.raises(ConfigError, match="is not as an operator has written it"):
        FleetSecrets(home).open("db")
    with pytest.raises(UsageError, match="may sign no manifest by the root document"):
        FleetSecrets(home).set("db", "mine")


# ---- what is no key, and no secret


def test_a_key_that_is_no_point_is_told_with_its_device(home: Home) -> None:
    FleetSecrets(home).set("db", "mine")
    for key in (NO_POINT, "harmony-ed25519:#"):
        with pytest.raises(ConfigError, match="pi-1: its key is no good"):
            sealer(home, key=key).seal({"web": entry()}, {})


@pytest.mark.parametrize("knows_by", ["what was noted", "the manifest in force"])
async def test_another_key_by_the_word_of_others_is_refused_until_it_is_accepted(
    knows_by: str, home: Home
) -> None:
    FleetSecrets(home).set("db", "mine")
    first = sealer(home, is_own=False).seal({"web": entry()}, {})
    assert first.key_id == DEVICE.public.id
    before: Mapping[str, SerializedScore] = {}
    if knows_by == "what was noted":
        home.note_sealed_to("pi-1", first.key_id)
    else:
        before = first.entries
    other = generate_key()
    new, old = other.public.id[:16], DEVICE.public.id[:16]
    again = sealer(home, 2, other.public.to_text(), is_own=False)
    with pytest.raises(UsageError, match=f"another key now, {new}, .* sealed to {old}"):
        again.seal({"web": entry()}, before)
    plain = {"plain": SerializedScore(id="plain", kind="F", version=1, spec={})}
    assert again.seal(plain, before).entries == plain
    own = sealer(home, 2, other.public.to_text()).seal({"web": entry()}, before)
    assert value_of(own.entries["web"], other) == "mine"

    assert (await harmony(home, "secret", "accept-key", "pi-1", "Key")).status == 2
    assert (await harmony(home, "secret", "accept-key", "pi-1", new)).status == 0
    assert value_of(again.seal({"web": entry()}, before).entries["web"], other) == "mine"
    with pytest.raises(UsageError, match="another key now"):
        sealer(home, 2, is_own=False).seal({"web": entry()}, before)


async def test_a_copy_that_a_sync_has_made_is_named_and_costs_no_other(home: Home) -> None:
    FleetSecrets(home).set("db", "mine")
    (home.secrets / "Foo (conflict).json").write_text("{}")
    for verb in ("list", "share"):
        said = await harmony(home, "secret", verb)
        assert said.status == 0
        assert "Foo (conflict).json can be no secret by its name" in said.err
        assert "db" in said.out
