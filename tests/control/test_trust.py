"""Who may sign what, from the command to a device: a real server, and a real agent on a folder."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import tomllib
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from harmony_agent import config as configuration
from harmony_control.bus.connection import Bucket
from harmony_control.bus.roots import publish_missing
from harmony_control.cli.trust_text import describe_changes
from harmony_control.push.push import Contents, push
from harmony_control.server.roster import publish_devices
from harmony_control.signers import create_key, public_path
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.roots import save_root
from harmony_core.errors import ConfigError
from harmony_core.wire.actual_state import ActualState, from_json
from harmony_core.wire.envelope import Signer, SigningKey, VerifyKey, generate_key, seal
from harmony_core.wire.manifest import GENERATION_MAX, Manifest, SerializedScore, parse_manifest
from harmony_core.wire.root import ROOT_TYPE, Root, Scope, hash_root
from tests.nats import Bus, serving

from .ground import Said, harmony
from .scripted_device import ScriptedDevice


@attrs.define
class Ground:
    """A fleet with one device that is a folder, and an operator's home."""

    bus: Bus
    root: Path

    @property
    def home(self) -> Home:
        return self.bus.home

    async def run(self, *arguments: str, ends: int = 0) -> Said:
        said = await harmony(self.home, *arguments)
        assert said.status == ends, (said.out, said.err)
        return said

    async def push(self, text: str, *more: str, ends: int = 0, kind: str = "FileScore") -> Said:
        spec: dict[str, Any] = {"path": "/etc/motd", "content": text}
        score = {"id": "motd", "kind": kind, "spec": spec}
        path = self.root / "motd.json"
        path.write_text(json.dumps([score]))
        return await self.run("push-score", "pi-1", str(path), "--timeout", "30", *more, ends=ends)

    @property
    def motd(self) -> str:
        return (self.root / "device" / "etc" / "motd").read_text()

    async def state(self) -> ActualState:
        found = await self.bus.bucket("actual-state").get("pi-1")
        assert found is not None
        return from_json(found.value, ActualState)

    async def until(self, **fields: Any) -> ActualState:
        state = None
        with suppress(TimeoutError):
            async with asyncio.timeout(20):
                while True:
                    with suppress(AssertionError):
                        state = await self.state()
                        if all(getattr(state, name) == each for name, each in fields.items()):
                            return state
                    await asyncio.sleep(0.05)
        raise AssertionError(f"never so: {fields}; last: {state}")

    @contextmanager
    def agent(self) -> Generator[None]:
        toml = self.root / "agent.toml"
        if not toml.exists():
            enrolled = self.home.agent_toml("pi-1").read_text()
            (self.root / "device").mkdir()
            toml.write_text(
                "heartbeat_s = 1\n"
                f'state_directory = "{self.root / "state"}"\n'
                f'runtime_directory = "{self.root / "run"}"\n'
                f'{enrolled}\n[topology]\nroot = "{self.root / "device"}"\n'
            )
            toml.chmod(0o600)
        command = [sys.executable, "-m", "harmony_agent.cli", "run", "--config", str(toml)]
        log = self.root / "agent.log"
        with log.open("a") as out, subprocess.Popen(command, stderr=out, stdout=out) as process:
            try:
                yield
            finally:
                process.kill()
        assert "Traceback" not in log.read_text(), log.read_text()

    async def stolen(self, key: Signer, text: str, *, generation: int, epoch: int = 0) -> None:
        """Who has taken *key*, and the message server, pushes by hand."""
        spec = {"path": "/etc/motd", "content": text}
        manifest = Manifest(
            fleet="home",
            target="agent:pi-1",
            epoch=epoch,
            generation=generation,
            issued_at=datetime.now(UTC),
            scores=(SerializedScore(id="motd", kind="FileScore", version=1, spec=spec),),
        )
        bucket = Bucket(self.bus.admin, "desired-state")
        await bucket.put("pi-1", seal(manifest.payload(), key))


@asynccontextmanager
async def _ground(root: Path) -> AsyncGenerator[Ground]:
    async with serving(root) as bus:
        await bus.enrol("pi-1")
        yield Ground(bus, root)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncGenerator[Ground]:
    async with _ground(tmp_path) as found:
        yield found


def rejection(state: ActualState) -> str:
    degraded = next(each for each in state.conditions if each.type == "Degraded")
    return f"{degraded.reason} {degraded.message}"


@pytest.mark.timeout(180)  # a dozen commands, each a process of its own
async def test_one_command_gives_an_enrolled_fleet_a_root_and_another_locks_a_stolen_key_out(
    ground: Ground, tmp_path: Path
) -> None:
    """Also where the key has used up the generations, and while the device was away."""
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    with ground.agent():
        await ground.push("before")
        said = await ground.run("trust", "init")
        assert str(ground.home.root_key) in said.out
        await ground.until(root_version=1)
        await ground.push("by alice")
        said = await ground.run("trust", "add", "bob", str(bob.operator_pub))
        assert "published; it counts on 1 device" in said.out
        await ground.until(root_version=2)
        thief = operator_key.load(bob)
        await ground.stolen(thief, "by the thief", generation=GENERATION_MAX)
        await ground.until(generation=GENERATION_MAX, observed_generation=GENERATION_MAX)
        assert ground.motd == "by the thief"

        said = await ground.run("trust", "remove", "bob", "--stolen")
        assert "epoch 1" in said.out
        state = await ground.until(root_version=3)
        assert (
            state.generation == GENERATION_MAX
        )  # what runs stays so until somebody says otherwise
        await ground.stolen(thief, "again", generation=GENERATION_MAX, epoch=1)
        for _ in range(2):  # what was pushed by the thief is no base, and no alarm
            await ground.push("by alice again")
            assert ground.motd == "by alice again"
    state = await ground.until(epoch=1)
    assert state.generation < GENERATION_MAX
    # A device that was away goes from version to version, and then takes in nothing of the thief's.
    said = await ground.run("trust", "add", "carol", str(bob.operator_pub))
    assert "it counts on 0 devices" in said.out
    await ground.run("trust", "remove", "carol")
    await ground.stolen(thief, "while away", generation=state.generation + 50, epoch=1)
    with ground.agent():
        state = await ground.until(root_version=5)
        while "UntrustedSignature" not in rejection(await ground.state()):
            await asyncio.sleep(0.05)
    assert ground.motd == "by alice again"


async def test_a_stolen_key_uses_up_no_epoch_before_there_is_a_root_document(
    ground: Ground,
) -> None:
    """It counts for everything until then, and for nothing of what comes afterwards."""
    own = operator_key.load(ground.home)
    with ground.agent():
        await ground.push("by alice")
        await ground.stolen(own, "by the thief", generation=1, epoch=GENERATION_MAX)
        while "WrongEpoch" not in rejection(await ground.state()):
            await asyncio.sleep(0.05)
        await ground.run("trust", "init")
        await ground.run("trust", "renew", "--new-epoch")
        await ground.until(root_version=2)
        said = await ground.push("by alice again", ends=3)
        assert f"is of epoch {GENERATION_MAX}, and it is 1" in said.err
        await ground.push("by alice again", "--force")
        await ground.until(epoch=1)
        assert ground.motd == "by alice again"


async def test_who_may_not_change_the_order_pushes_in_that_which_there_was(
    ground: Ground, tmp_path: Path
) -> None:
    """The first that names a resource has it; a folder may say its Scores in another order."""
    key = tmp_path / "ci.key"
    kinds = {"motd": "FileScore", "page": "ContainerScore"}
    scores = {
        name: SerializedScore(id=name, kind=kind, version=1, spec={})
        for name, kind in kinds.items()
    }
    await push(ground.home, ground.bus.admin, "pi-1", lambda _: Contents(scores=scores))
    await ground.run("trust", "init")
    create_key(key)
    pub = str(public_path(key))
    await ground.run("trust", "add", "ci", pub, "--kinds", "ContainerScore")

    more = SerializedScore(id="more", kind="FileScore", version=1, spec={})
    turned = {"more": more, "page": scores["page"], "motd": scores["motd"]}
    await push(ground.home, ground.bus.admin, "pi-1", lambda _: Contents(scores=turned))
    found = await ground.bus.bucket("desired-state").get("pi-1")
    assert found is not None
    payload = base64.b64decode(json.loads(found.value)["payload"])
    assert [each.id for each in parse_manifest(payload).scores] == ["motd", "page", "more"]


async def test_who_leaves_in_peace_leaves_what_was_pushed(ground: Ground, tmp_path: Path) -> None:
    """It stays in force over a restart, and others build upon it."""
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    with ground.agent():
        await ground.run("trust", "init")
        await ground.run("trust", "add", "bob", str(bob.operator_pub))
        await ground.until(root_version=2)
        await ground.stolen(operator_key.load(bob), "by bob", generation=7)
        await ground.until(generation=7, observed_generation=7)
        await ground.run("trust", "remove", "bob")
        await ground.until(root_version=3)
    (ground.root / "device" / "etc" / "motd").write_text("changed while the agent was off")
    with ground.agent():
        while ground.motd != "by bob":
            await asyncio.sleep(0.05)
        state = await ground.until(generation=7, observed_generation=7)
        assert rejection(state).startswith("AllWell"), state
        await ground.run("label", "pi-1", "site=attic")
        assert (await ground.state()).scores.keys() == {"motd"}


async def test_a_threshold_of_root_keys_that_are_kept_elsewhere(
    ground: Ground, tmp_path: Path
) -> None:
    keys = [tmp_path / f"root-{each}.key" for each in "abc"]
    for each in keys:
        await ground.run("trust", "key", str(each))
    public = [arg for each in keys for arg in ("--root-key", str(each.with_suffix(".pub")))]
    said = await ground.run("trust", "init", *public, "--threshold", "2")
    assert "2 more of its own root keys" in said.out
    waiting = ground.home.next_root
    with ground.agent():
        said = await ground.run("trust", "publish", ends=3)
        assert "signed by 0 root keys of version 1, 2 must" in said.err
        # Where the key is, there is neither a home nor a network.
        carried = tmp_path / "stick.json"
        carried.write_bytes(waiting.read_bytes())
        for each in keys[:2]:
            said = await harmony(
                tmp_path / "nowhere", "trust", "sign", str(carried), "--key", str(each), "--yes"
            )
            assert said.status == 0, said.err
            assert "root document 1 of home" in said.out
        await ground.run("trust", "publish", str(carried))
        await ground.until(root_version=1)
        assert not waiting.exists()

        said = await ground.run("trust", "renew", "--expires-in", "30d", "--key", str(keys[0]))
        assert "1 more of version 1's root keys" in said.out
        said = await ground.run("trust", "add", "x", str(ground.home.operator_pub), ends=2)
        assert "waits to be signed" in said.err
        await refuses_and_shows(ground, tmp_path, str(keys[2]))
        await ground.run("trust", "sign", "--key", str(keys[2]), "--yes")
        await ground.run("trust", "publish")
        await ground.until(root_version=2)
        said = await ground.run("trust", "show", "--json")
        shown = said.documents[0]["root"]
        assert (shown["version"], shown["root_threshold"]) == (2, 2)
        assert shown["expires_at"]


async def refuses_and_shows(ground: Ground, tmp_path: Path, key: str) -> None:
    """Whoever signs sees what, and what it changes; a key that counts nowhere signs nothing."""
    waiting = ground.home.next_root
    before = waiting.read_bytes()
    said = await ground.run("trust", "sign", "--key", key, ends=2)
    assert "of version 1 it changes:\n~ until " in said.out
    assert "was: never expires" in said.out
    assert "pass --yes" in said.err
    said = await ground.run(
        "trust", "sign", "--key", str(ground.home.operator_key), "--yes", ends=2
    )
    assert "would count nowhere" in said.err
    assert waiting.read_bytes() == before
    # Where there is no home, the version before is carried along.
    carried, nowhere = tmp_path / "carried" / "next.json", tmp_path / "nowhere"
    carried.parent.mkdir()
    carried.write_bytes(before)
    sign = ("trust", "sign", str(carried), "--key", key, "--yes", "--json")
    said = await harmony(nowhere, *sign)
    assert said.status == 2
    assert "carry trust/1.json along" in said.err
    assert carried.read_bytes() == before
    first = ground.home.trust / "1.json"
    said = await harmony(nowhere, *sign, "--before", str(first))
    assert [each["event"] for each in said.documents] == ["to sign", "signed"]
    carried.with_name("1.json").write_bytes(first.read_bytes())
    assert (await harmony(nowhere, *sign)).status == 0


def test_what_a_root_document_changes_is_told_by_scope_key_threshold_epoch_and_expiry() -> None:
    a, b, c = (generate_key().public.to_text() for _ in "abc")
    now = datetime.fromisoformat("2026-01-31T12:00:00+00:00")
    before = Root(
        fleet="home",
        version=1,
        issued_at=now,
        root_keys=(a,),
        root_threshold=1,
        scopes=(Scope(name="ada", keys=(b,)), Scope(name="bob", keys=(c,))),
    )
    after = before.model_copy(
        update={
            "version": 2,
            "epoch": 1,
            "expires_at": now,
            "root_keys": (a, c),
            "root_threshold": 2,
            "scopes": (
                Scope(name="ada", keys=(b,), kinds=("FileScore",)),
                Scope(name="eve", keys=(b,)),
            ),
        }
    )
    ids = {key: f"{VerifyKey.from_text(key).id[:16]}…" for key in (a, b, c)}
    assert describe_changes(after, before) == [
        f"+ root key {ids[c]}",
        f"~ ada: 1 of {ids[b]}: FileScore; was 1 of {ids[b]}: all kinds",
        f"+ eve: 1 of {ids[b]}: all kinds",
        f"- bob: 1 of {ids[c]}: all kinds",
        "~ root keys that must sign: 2; was 1",
        "~ epoch 1; was 0: makes void all that was signed so far",
        "~ until 2026-01-31T12:00:00.000Z; was: never expires",
    ]
    assert describe_changes(before.model_copy(update={"version": 2}), before) == [
        "nothing but its date"
    ]


async def test_what_two_must_sign_two_sign(ground: Ground, tmp_path: Path) -> None:
    second = tmp_path / "second.key"
    await ground.run("trust", "key", str(second))
    pub = [str(ground.home.operator_pub), str(second.with_suffix(".pub"))]
    with ground.agent():
        await ground.run("trust", "init")
        await ground.run("trust", "add", "both", *pub, "--threshold", "2", "--kinds", "FileScore")
        await ground.until(root_version=2)
        said = await ground.push("by one", ends=3)
        assert "FileScore are changed by 2 of both" in said.err
        assert (await ground.state()).generation == 0
        await ground.push("by both", "--sign-with", str(second))
        assert ground.motd == "by both"
        # One who does not ask here is refused by the device.
        own = operator_key.load(ground.home)
        await ground.stolen(own, "by one", generation=9)
        while "OutOfScope" not in rejection(await ground.state()):
            await asyncio.sleep(0.05)
        assert ground.motd == "by both"


async def test_an_expired_root_stops_nothing_and_takes_in_nothing_until_it_is_renewed(
    ground: Ground,
) -> None:
    with ground.agent():
        await ground.run("trust", "init", "--expires-in", "30d")
        await ground.push("while it counts")
        await ground.run("trust", "renew", "--expires-in", "1s")
        while True:
            stale = next(each for each in (await ground.state()).conditions if each.type == "Stale")
            if stale.status == "True":
                break
            await asyncio.sleep(0.05)
        assert stale.reason == "RootExpired"
        assert "harmony trust renew" in stale.message
        said = await ground.push("too late", ends=3)
        assert "harmony trust renew" in said.err
        (ground.root / "device" / "etc" / "motd").write_text("tampered")
        await ground.run("reconcile", "pi-1")
        assert ground.motd == "while it counts"
        await ground.run("trust", "renew", "--expires-in", "30d")
        await ground.push("renewed")
        assert ground.motd == "renewed"


async def test_a_forged_root_is_told_and_changes_nothing(ground: Ground, tmp_path: Path) -> None:
    with ground.agent():
        await ground.run("trust", "init")
        await ground.until(root_version=1)
        stranger = Home(tmp_path / "stranger")
        operator_key.create(stranger)
        current = json.loads((ground.home.trust / "1.json").read_text())
        current["signatures"] = current["signatures"][:1]
        await Bucket(ground.bus.admin, "trust").put("2", json.dumps(current).encode())
        await ground.bus.admin.publish("harmony.mail.pi-1.trust", b"")
        while "RootRejected" not in rejection(await ground.state()):
            await asyncio.sleep(0.05)
        assert (await ground.state()).root_version == 1
        # It keeps nobody from pushing, nor from publishing the true one in its place.
        await ground.push("by alice")
        await ground.run("trust", "renew", "--expires-in", "30d")
        assert (await ground.until(root_version=2)).generation == 1


async def test_a_device_that_follows_another_document_of_that_version_is_named(
    ground: Ground,
) -> None:
    """Whoever has the root key, too, has made two of them: "it counts there" would be a lie."""
    with ground.agent():
        await ground.run("trust", "init")
        state = await ground.until(root_version=1)
        said = await ground.run("trust", "show", "--json")
        assert said.documents[0]["sha256"] == state.root_sha256
        root = Root.model_validate_json(json.dumps(said.documents[0]["root"]))
        other = root.model_copy(update={"version": 2, "issued_at": datetime.now(UTC)})
        thief = SigningKey.from_text(ground.home.root_key.read_text())
        bucket = Bucket(ground.bus.admin, "trust")
        await bucket.put("2", seal(other.payload(), thief, payload_type=ROOT_TYPE))
        await ground.bus.admin.publish("harmony.mail.pi-1.trust", b"")
        await ground.until(root_version=2)
        await bucket.put("2", b"what the server has lost")

        said = await ground.run("trust", "renew", "--expires-in", "30d", ends=1)
        assert "it counts on 0 devices; ANOTHER root document counts on pi-1" in said.out
        assert "harmony enroll root@HOST" in said.err
        said = await ground.run("trust", "show", "--json", ends=1)
        assert said.documents[0]["devices"]["others"] == ["pi-1"]
        said = await ground.run("agents", "--json")
        assert said.documents[0]["update"] == "Refused"
        assert said.documents[0]["reason"].startswith("OtherRoot: ")


async def test_a_home_says_which_first_root_document_it_takes_in_and_takes_no_other(
    ground: Ground,
) -> None:
    await ground.run("trust", "init")
    first = ground.home.trust / "1.json"
    kept = first.read_bytes()
    for each in ground.home.trust.iterdir():
        each.unlink()
    said = await ground.run("trust", "show")
    sha256 = hash_root(kept)
    assert f"the fleet has a root document now, sha256 {sha256}" in said.err
    assert first.read_bytes() == kept
    said = await ground.run("trust", "show")
    assert said.err == ""
    assert sha256 in said.out

    other = Root.model_validate_json(json.dumps(json_payload(kept))).model_copy(
        update={"issued_at": datetime.now(UTC)}
    )
    keys = [SigningKey.from_text(ground.home.root_key.read_text()), operator_key.load(ground.home)]
    envelope = seal(other.payload(), *keys, payload_type=ROOT_TYPE)
    await Bucket(ground.bus.admin, "trust").put("1", envelope)
    first.unlink()
    said = await ground.run("trust", "show")
    assert "this home has followed another root document first" in said.err
    assert not first.exists()
    first.write_bytes(kept)
    with pytest.raises(ConfigError, match="another root document of that version"):
        save_root(ground.home, 1, envelope)


async def test_a_first_root_document_of_somebody_else_is_not_replaced_silently(
    ground: Ground,
) -> None:
    """Devices that trust the other one follow it."""
    await ground.run("trust", "init")
    kept = (ground.home.trust / "1.json").read_bytes()
    for each in ground.home.trust.iterdir():
        each.unlink()
    root = Root.model_validate_json(json.dumps(json_payload(kept)))
    stranger, other_root = generate_key(), generate_key()
    theirs = root.model_copy(update={"root_keys": (other_root.public.to_text(),)})
    envelope = seal(theirs.payload(), stranger, other_root, payload_type=ROOT_TYPE)
    bucket = Bucket(ground.bus.admin, "trust")
    await bucket.put("1", envelope)
    said = await ground.run("trust", "init", ends=2)
    assert f"sha256 {hash_root(envelope)}, which no operator trusted here has signed" in said.err
    found = await bucket.get("1")
    assert found is not None
    assert found.value == envelope
    said = await ground.run("trust", "publish", "--replace", hash_root(envelope))
    found = await bucket.get("1")
    assert found is not None
    assert found.value == (ground.home.trust / "1.json").read_bytes()


async def test_of_an_older_agent_it_is_not_known_which_document_it_follows(
    ground: Ground,
) -> None:
    await ground.run("trust", "init")
    device = ScriptedDevice(await ground.bus.device("pi-1"))
    await device.report(attrs.evolve(device.state(0), root_version=1))
    said = await ground.run("trust", "show")
    assert "it counts on 0 devices; not known which, since the agent is an older one" in said.out
    assert "pi-1 (version 1)" in said.out


def json_payload(envelope: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


async def test_nothing_is_built_upon_what_the_device_refused(
    ground: Ground, tmp_path: Path
) -> None:
    """Else an operator would sign what a key that may not has put into the bucket."""
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    thief = operator_key.load(bob)
    scope = ("trust", "add", "bob", str(bob.operator_pub), "--kinds", "ContainerScore")
    with ground.agent():
        await ground.run("trust", "init")
        await ground.run(*scope)
        await ground.push("by alice")
        for change in (scope, ("trust", "remove", "bob")):
            await ground.run(*change)
            generation = (await ground.state()).generation + 10
            await ground.stolen(thief, "by bob", generation=generation)
            said = await ground.run("label", "pi-1", "site=attic", ends=3)
            assert "nothing is built on it" in said.err
            await ground.run("push-score", "pi-1", "--all", "--force")
            assert ground.motd == "by alice"


async def test_without_its_root_document_a_device_believes_nobody(ground: Ground) -> None:
    """Not even the keys that were pinned before: one of them may have been taken out since."""
    with ground.agent():
        await ground.run("trust", "init")
        await ground.push("by alice")
    (ground.root / "state" / "root.json").unlink()
    await Bucket(ground.bus.admin, "trust").erase("1")
    own = operator_key.load(ground.home)
    await ground.stolen(own, "by who has the key", generation=9)
    with ground.agent():
        while "FloorLost" not in rejection(await ground.state()):
            await asyncio.sleep(0.05)
        assert ground.motd == "by alice"
        await publish_missing(ground.home, ground.bus.admin)
        await ground.run("trust", "renew", "--expires-in", "30d")
        await ground.until(root_version=2, generation=9, observed_generation=9)


async def test_a_stolen_key_goes_also_where_others_need_it(ground: Ground, tmp_path: Path) -> None:
    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    await ground.run("trust", "init")
    await ground.run("trust", "add", "bob", str(bob.operator_pub))
    pub = [str(ground.home.operator_pub), str(bob.operator_pub)]
    await ground.run("trust", "add", "both", *pub, "--threshold", "2", "--kinds", "FileScore")
    said = await ground.run("trust", "remove", "bob", "--stolen", "--json")
    scopes = {each["name"]: each for each in said.documents[-1]["root"]["scopes"]}
    assert scopes.keys() == {"admin", "both"}
    assert (len(scopes["both"]["keys"]), scopes["both"]["threshold"]) == (1, 1)


async def test_who_comes_later_pins_the_newest_one(ground: Ground, tmp_path: Path) -> None:
    """A device, an invitation, and an operator elsewhere."""
    await ground.run("trust", "init")
    await ground.run("trust", "renew", "--expires-in", "365d")
    await ground.bus.enrol("pi-2")
    pinned = configuration.load(ground.home.agent_toml("pi-2")).trust
    assert not pinned.operator_keys
    assert pinned.root == (ground.home.trust / "2.json").read_text()

    bob = Home(tmp_path / "bob")
    operator_key.create(bob)
    fleet = tmp_path / "bob.fleet"
    said = await ground.run(
        "add-operator", "bob", str(bob.operator_pub), "--out", str(fleet), "--url",
        ground.home.control().url,
    )  # fmt: skip
    assert "harmony trust add bob" in said.out
    assert tomllib.loads(fleet.read_text())["root"] == pinned.root
    await ground.run("trust", "add", "bob", str(bob.operator_pub))
    assert (await harmony(bob, "join", str(fleet))).status == 0
    await publish_devices(ground.home, ground.bus.admin)
    with ground.agent():
        await ground.until(root_version=3)
        path = tmp_path / "motd.json"
        spec = {"path": "/etc/motd", "content": "by bob"}
        path.write_text(json.dumps([{"id": "motd", "kind": "FileScore", "spec": spec}]))
        said = await harmony(bob, "push-score", "pi-1", str(path), "--timeout", "30")
        assert said.status == 0, said.err
        assert ground.motd == "by bob"
        # Whoever holds a root key may publish from anywhere, and devices hear of it.
        key = str(ground.home.root_key)
        said = await harmony(bob, "trust", "renew", "--expires-in", "90d", "--key", key)
        assert "published" in said.out
        await ground.until(root_version=4)
        # Taken out, he learns it from the bus.
        await ground.run("trust", "remove", "bob")
        said = await harmony(bob, "push-score", "pi-1", str(path), "--timeout", "30")
        assert said.status == 3
        assert "by the root document" in said.err


async def test_what_nobody_can_mean_is_not_published(ground: Ground, tmp_path: Path) -> None:
    await ground.run("trust", "init")
    said = await ground.run("trust", "remove", "admin", ends=2)
    assert "nobody could sign anything" in said.err
    said = await ground.run("trust", "rotate", ends=2)
    assert "--root-key" in said.err
    key = tmp_path / "ci.key"
    await ground.run("trust", "key", str(key))
    said = await ground.run(
        "trust", "add", "ci", str(key.with_suffix(".pub")), "--kinds", "FielScore"
    )
    assert "no such kind is installed here; did you mean 'FileScore'" in said.err
    said = await ground.run("trust", "show", "--json")
    assert said.documents[0]["root"]["version"] == 2


async def test_a_key_that_another_signer_holds(ground: Ground, tmp_path: Path) -> None:
    """As an HSM's would: by securesystemslib's URI, here of a PEM file."""
    key = Ed25519PrivateKey.generate()
    pem = tmp_path / "root.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pub = tmp_path / "root.pub"
    raw = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    pub.write_text(VerifyKey(raw).to_text() + "\n")
    said = await ground.run("trust", "init", "--root-key", str(pub), "--key", f"file2:{pem}")
    assert "published" in said.out
    said = await ground.run("trust", "renew", "--expires-in", "9d", "--key", "hv:none/1", ends=2)
    assert "--public" in said.err


async def test_a_server_that_has_lost_them_gets_them_again(ground: Ground) -> None:
    await ground.run("trust", "init")

    await Bucket(ground.bus.admin, "trust").erase("1")
    await publish_missing(ground.home, ground.bus.admin)
    found = await Bucket(ground.bus.admin, "trust").get("1")
    assert found is not None
    assert found.value == (ground.home.trust / "1.json").read_bytes()
