"""What another operator has written gets no secret of this one's, until he has pushed it by name himself."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from harmony_control.device import Device, Pushed
from harmony_control.fleet import Fleet
from harmony_control.server.roster import publish_devices
from harmony_control.store import named_entries, operator_key
from harmony_control.store.home import Home
from harmony_control.store.named_entries import NamedEntries
from harmony_control.store.secrets import FleetSecrets
from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.envelope import seal, split_envelope
from harmony_core.wire.manifest import Manifest, SerializedScore, hash_entry, parse_manifest
from harmony_core.wire.names import DESIRED_STATE
from harmony_core.wire.sealed import SealedFor, SealedSecret, open_sealed
from harmony_scores import FileScore

from .ground import Ground, ground
from .test_signed_reports import operator_elsewhere

OLD, NEW, BAIT = "hunter2-of-old", "correct-horse-of-new", "bait"
WEB = FileScore(path="/etc/web", content="${secret.db}")
MOTD = FileScore(path="/etc/motd", content="hello")
NEVER_NAMED = "which was never pushed by name from this directory as it is now"


@attrs.frozen
class Fleetmates:
    """Alice, who runs the server and has the secret, and Bob, who may push too and has it not."""

    plane: Ground
    bob: Home

    @property
    def alice(self) -> Home:
        return self.plane.home

    @property
    def device(self) -> Device[Any]:
        """The device, in Alice's hands."""
        return self.plane.fleet.device("pi-1")

    async def read(self) -> Manifest:
        """What is to be of the device by what stands on the server, whoever has signed it."""
        found = await self.plane.bus.bucket(DESIRED_STATE).get("pi-1")
        assert found is not None
        return parse_manifest(split_envelope(found.value)[0])

    async def spy(self, *, version: str = "0190" * 4) -> SerializedScore:
        """Have Bob say otherwise what `web` is, with a box that he has sealed himself, as no `harmony` does
        it: with the version that he likes."""
        before = await self.read()
        generation = before.generation + 1
        (web,) = (each for each in before.scores if each.id == "web")
        changed = web.model_copy(update={"spec": {**web.spec, "path": "/etc/issue"}})
        what_for = bound(changed, generation)
        key = self.plane.pi.device.report_key.public
        box = SealedSecret.seal(BAIT, version, what_for, key)
        changed = changed.model_copy(update={"secrets": {"db": box}})
        scores = tuple(changed if each.id == "web" else each for each in before.scores)
        manifest = before.model_copy(update={"generation": generation, "scores": scores})
        envelope = seal(manifest.payload(), operator_key.load(self.bob))
        await self.plane.bus.bucket(DESIRED_STATE).put("pi-1", envelope)
        assert self.value_of(changed) == BAIT
        return changed

    def value_of(self, entry: SerializedScore) -> str:
        """What the device opens of it."""
        key = self.plane.pi.device.report_key
        return open_sealed(entry.secrets["db"], bound(entry, 99), key)


def bound(entry: SerializedScore, generation: int) -> SealedFor:
    return SealedFor(
        agent_id="pi-1",
        score=entry.id,
        name="db",
        entry=hash_entry(entry),
        epoch=0,
        generation=generation,
    )


def hand_over(one: Home, other: Home) -> None:
    """Let *other* have the secrets of *one*."""
    operator_key.trust(one, [operator_key.load_public(other)])
    FleetSecrets(one).share()
    other.secrets.mkdir(exist_ok=True)
    for path in one.secrets.iterdir():
        (other.secrets / path.name).write_bytes(path.read_bytes())


@pytest.fixture
async def mates(tmp_path: Path) -> AsyncGenerator[Fleetmates]:
    async with ground(tmp_path) as plane:
        bob = await operator_elsewhere(plane, tmp_path)
        await publish_devices(plane.home, plane.bus.admin)
        FleetSecrets(plane.home).set("db", OLD)
        yield Fleetmates(plane, bob)


PUSHES: Mapping[str, Callable[[Device[Any]], Awaitable[Pushed]]] = {
    "of another Score": lambda device: device.put({"note": MOTD}),
    "without a Score": lambda device: device.put({}, remove=["motd"]),
    "of a label": lambda device: device.label({"site": "attic"}),
    "of what was pushed last": lambda device: device.put_again(),
    "of what was pushed last, with force": lambda device: device.put_again(force=True),
}


async def test_what_another_has_changed_gets_no_value_by_a_push_of_something_else(
    mates: Fleetmates,
) -> None:
    await mates.device.put({"web": WEB, "motd": MOTD})
    spying = await mates.spy()
    for name, push in PUSHES.items():
        pushed = await push(mates.device)
        assert pushed.entries["web"] == spying, name
        assert spying in (await mates.read()).scores
        (warning,) = [each for each in pushed.warnings if "secret" in each]
        assert warning.startswith("web: the value here of the secret 'db' is not given")
        assert NEVER_NAMED in warning
        assert "harmony push-score pi-1 FILE" in warning
    FleetSecrets(mates.alice).set("db", NEW)
    pushed = await mates.device.put({"web": WEB})
    assert mates.value_of(pushed.entries["web"]) == NEW


async def test_what_another_has_changed_is_not_mended_for_him_where_it_has_no_box(
    mates: Fleetmates,
) -> None:
    """One that nothing opens would be sealed anew by whoever pushes."""
    await mates.device.put({"web": WEB})
    spying = await mates.spy()
    before = await mates.read()
    bare = spying.model_copy(update={"secrets": {}})
    manifest = before.model_copy(update={"generation": before.generation + 1, "scores": (bare,)})
    envelope = seal(manifest.payload(), operator_key.load(mates.bob))
    await mates.plane.bus.bucket(DESIRED_STATE).put("pi-1", envelope)
    with pytest.raises(UsageError, match=NEVER_NAMED):
        await mates.device.label({"site": "attic"})
    assert await mates.read() == manifest
    await mates.device.put({}, remove=["web"])
    assert (await mates.read()).scores == ()


async def test_going_back_to_what_another_has_written_opens_nothing_for_him(
    mates: Fleetmates,
) -> None:
    first = await mates.device.put({"web": WEB})
    spying = await mates.spy()
    again = await mates.device.put({"web": WEB})
    with pytest.raises(UsageError, match=NEVER_NAMED):
        await mates.device.rollback(first.generation + 1)
    assert (await mates.read()).generation == again.generation

    # With a box that says it has the value of today, it is as Bob has sealed it.
    here = FleetSecrets(mates.alice).read("db").version
    posing = await mates.spy(version=here)
    await mates.device.put({"web": WEB})
    back = await mates.device.rollback()
    assert back.entries["web"] == posing
    assert hash_entry(posing) == hash_entry(spying)
    assert mates.value_of(back.entries["web"]) == BAIT


async def test_going_back_to_what_was_pushed_by_name_from_here_has_the_value_of_today(
    mates: Fleetmates,
) -> None:
    first = await mates.device.put({"web": WEB})
    await mates.device.put({"web": MOTD})
    FleetSecrets(mates.alice).set("db", NEW)
    back = await mates.device.rollback(first.generation)
    assert mates.value_of(back.entries["web"]) == NEW
    assert back.warnings == ()


async def test_what_was_named_once_gets_a_newer_value_by_any_push_and_a_check_names_nothing(
    mates: Fleetmates,
) -> None:
    ready = await mates.device.prepare({"web": WEB})
    await mates.device.check_prepared(ready)
    assert ready.entries["web"] not in NamedEntries(mates.alice, "pi-1")
    pushed = await mates.device.put_prepared(ready)
    assert pushed.entries["web"] in NamedEntries(mates.alice, "pi-1")
    FleetSecrets(mates.alice).set("db", NEW)
    pushed = await mates.device.label({"site": "attic"})
    assert mates.value_of(pushed.entries["web"]) == NEW
    assert NEVER_NAMED not in "".join(pushed.warnings)


async def test_another_operator_who_has_the_secret_renews_it_by_the_same_file(
    mates: Fleetmates,
) -> None:
    first = await mates.device.put({"web": WEB})
    hand_over(mates.alice, mates.bob)
    async with Fleet.connect(mates.bob) as fleet:
        his = fleet.device("pi-1")
        await his.put({"web": MOTD})
        # What Alice has sealed has the value of today.
        back = await his.rollback(first.generation)
        assert back.entries == first.entries

        FleetSecrets(mates.alice).set("db", NEW)
        hand_over(mates.alice, mates.bob)
        pushed = await his.label({"site": "attic"})
        assert mates.value_of(pushed.entries["web"]) == OLD
        assert [NEVER_NAMED in each for each in pushed.warnings if "secret" in each] == [True]
        pushed = await his.put({"web": WEB})
        assert mates.value_of(pushed.entries["web"]) == NEW


async def test_a_folder_names_all_scores_of_its_devices_also_where_only_the_value_is_new(
    mates: Fleetmates, tmp_path: Path
) -> None:
    folder = tmp_path / "fleet"
    folder.mkdir()
    web = {"id": "web", "kind": "FileScore", "spec": WEB.model_dump(mode="json")}
    (folder / "web.json").write_text(json.dumps([web]))
    (folder / "fleet.yaml").write_text("devices: {pi-1: {scores: [web.json]}}\n")

    async def apply() -> str:
        said = await mates.plane.harmony("apply", str(folder), "--yes")
        assert said.status == 0, said.err
        assert "secret" not in said.err
        return mates.value_of((await mates.read()).scores[0])

    assert await apply() == OLD
    FleetSecrets(mates.alice).set("db", NEW)
    assert await apply() == NEW
    await mates.spy()
    assert await apply() == NEW
    assert (await mates.read()).scores[0].spec["path"] == WEB.path

    # Where the folder has labels alone, it names no Score.
    await mates.spy()
    (folder / "fleet.yaml").write_text("devices: {pi-1: {labels: {site: attic}}}\n")
    said = await mates.plane.harmony("apply", str(folder), "--yes")
    assert NEVER_NAMED in said.err
    assert mates.value_of((await mates.read()).scores[0]) == BAIT


# ---- what is noted of it


def an_entry(id: str, text: str = "") -> SerializedScore:
    return SerializedScore(
        id=id, kind="FileScore", version=1, spec={"c": text + "${secret.db}"}, references=True
    )


def test_what_was_named_is_kept_by_what_it_says_and_for_its_device_and_goes_with_it(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    NamedEntries(home, "pi-1").note({"web": an_entry("web")})
    known = NamedEntries(home, "pi-1")
    assert an_entry("web") in known
    assert an_entry("web").model_copy(update={"after": ("motd",)}) in known
    assert an_entry("web", "other") not in known
    assert an_entry("other") not in known
    assert an_entry("web") not in NamedEntries(home, "pi-2")
    home.forget("pi-1")
    assert an_entry("web") not in NamedEntries(home, "pi-1")
    assert not home.knows("pi-1")


def test_those_that_were_used_last_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named_entries, "NAMED_MOST", 3)
    home = Home(tmp_path / "home")
    for name in ("a", "b", "c", "a", "d"):
        NamedEntries(home, "pi-1").note({name: an_entry(name)})
    known = NamedEntries(home, "pi-1")
    assert [name for name in "abcd" if an_entry(name) in known] == ["a", "c", "d"]


def test_what_is_damaged_names_nothing_and_what_others_may_write_is_not_believed(
    tmp_path: Path,
) -> None:
    home = Home(tmp_path / "home")
    NamedEntries(home, "pi-1").note({"web": an_entry("web")})
    path = home.manifest_json("pi-1", ".named")
    line = path.read_bytes()
    path.write_bytes(b"\xff\n" + line[:40] + b"\n\n" + line + line[:-4])
    assert an_entry("web") in NamedEntries(home, "pi-1")
    NamedEntries(home, "pi-1").note({"b": an_entry("b")})
    assert [each.split()[1] for each in path.read_text().splitlines()] == ["web", "b"]
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="others may write"):
        NamedEntries(home, "pi-1")
