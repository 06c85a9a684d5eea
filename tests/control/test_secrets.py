"""Secrets from an operator's home to a device's files: seen where they are to be, and nowhere else."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_control.fleet import Fleet
from harmony_control.push.entries import Entry, serialize
from harmony_control.push.seal import Sealer, without_current_secrets
from harmony_control.server.roster import publish_devices
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_control.store.secrets import FleetSecrets
from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of
from harmony_core.errors import UsageError
from harmony_core.outcome import Failure
from harmony_core.plugins import Registry
from harmony_core.resources import PresentAt
from harmony_core.secret_values import find_words
from harmony_core.testing import FakeFiles
from harmony_core.wire.envelope import VerifyKey
from harmony_core.wire.manifest import SerializedScore, hash_entry
from harmony_scores import DirectoryScore, FileScore
from tests.control.ground import Said, ground, harmony
from tests.control.test_signed_reports import operator_elsewhere
from tests.device import running_agent
from tests.nats import Bus, serving

VALUE, NEW_VALUE = "hunter2-of-old", "correct-horse-of-new"
CONFIG = """
- id: config
  kind: FileScore
  spec: {path: /etc/app.conf, content: "user = app\\npassword = ${secret.db.password}\\n"}
"""


class LoudScore(Score[HasFiles]):
    """Puts its text where it does not belong."""

    text: str
    where: str

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        if self.where == "error":
            raise RuntimeError(f"bad: {self.text}")
        path = f"/etc/{self.text}" if self.where == "path" else "/etc/loud"
        content = b"" if self.where == "path" else self.text.encode()
        return outcome_of(await topology.files.ensure(File(path=path, content=content, mode=0o600)))


@attrs.frozen
class Place:
    bus: Bus
    files: FakeFiles
    root: Path

    async def harmony(self, *arguments: str, stdin: str = "") -> Said:
        return await harmony(self.bus.home, *arguments, stdin=stdin)

    async def push_loud(self, id: str, text: str, where: str) -> Failure:
        async with Fleet.connect(self.bus.home) as fleet:
            outcome = await fleet.device("pi-1").push(LoudScore(text=text, where=where), id=id)
        assert isinstance(outcome, Failure)
        return outcome

    async def push(self, yaml: str, *more: str) -> Said:
        file = self.root / "scores.yaml"
        file.write_text(yaml)
        return await self.harmony("push-score", "pi-1", str(file), *more)

    def holders_of(self, value: str) -> list[str]:
        """The files of the operator and the device, of the bus and of Harmony's own, that have *value*."""
        return [
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_file() and value.encode() in path.read_bytes()
        ]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    files = FakeFiles()
    async with (
        serving(tmp_path, "pi-1", "pi-2") as bus,
        running_agent(
            bus.home,
            "pi-1",
            tmp_path / "agent",
            registry=Registry([FileScore, DirectoryScore, LoudScore]),
            offers={"FileSystemHost": files},
            missing={},
            secret_values=files.secret_values,
        ),
    ):
        yield Place(bus, files, tmp_path)


async def test_a_secret_is_in_its_file_and_told_nowhere_and_is_replaced_with_the_next_push(
    place: Place,
) -> None:
    said = await place.push(CONFIG)
    assert said.status == 2
    assert "config: there is no secret 'db.password'" in said.err
    assert (await place.harmony("secret", "set", "db.password", stdin=f"{VALUE}\n")).status == 0
    told: list[Said] = []
    told.append(await place.harmony("secret", "list"))
    told.append(await place.push(CONFIG))
    assert told[-1].status == 0, told[-1].err
    assert place.files.read("/etc/app.conf") == f"user = app\npassword = {VALUE}\n".encode()
    found = await place.files.observe("/etc/app.conf")
    assert isinstance(found, PresentAt)
    assert (found.mode, found.sha256) == ("0600", "")

    again = await place.push(CONFIG)
    assert "unchanged" in again.out
    assert (await place.harmony("secret", "set", "db.password", stdin=NEW_VALUE)).status == 0
    file = str(place.root / "scores.yaml")
    told.append(await place.harmony("diff", "pi-1", file))
    assert "file:/etc/app.conf" in told[-1].out
    assert "wrote" in told[-1].out
    told.append(await place.push(CONFIG))
    assert told[-1].status == 0, told[-1].err
    assert place.files.read("/etc/app.conf") == f"user = app\npassword = {NEW_VALUE}\n".encode()
    told += [
        await place.harmony(*command)
        for command in (
            ("events", "pi-1"),
            ("history", "pi-1"),
            ("status", "pi-1"),
            ("describe", "pi-1"),
            ("diff", "pi-1", file),
        )
    ]
    for each in told:
        assert VALUE not in each.out + each.err
        assert NEW_VALUE not in each.out + each.err
    assert place.holders_of(VALUE) == []
    assert place.holders_of(NEW_VALUE) == []


async def test_going_back_brings_back_what_was_wanted_but_no_old_value(place: Place) -> None:
    await place.harmony("secret", "set", "db.password", stdin=VALUE)
    await place.push(CONFIG)
    await place.push(CONFIG.replace("user = app", "user = other"))
    await place.harmony("secret", "set", "db.password", stdin=NEW_VALUE)
    said = await place.harmony("rollback", "pi-1", "--yes")
    assert said.status == 0, said.err
    assert place.files.read("/etc/app.conf") == f"user = app\npassword = {NEW_VALUE}\n".encode()


async def test_what_an_older_harmony_has_sealed_is_to_be_pushed_and_sealed_anew(
    place: Place,
) -> None:
    await place.harmony("secret", "set", "db.password", stdin=VALUE)
    await place.push(CONFIG)
    home, secrets = place.bus.home, FleetSecrets(place.bus.home)

    async def read() -> SerializedScore:
        async with Fleet.connect(home) as fleet:
            (entry,) = (await fleet.device("pi-1").label({"site": "attic"})).entries.values()
            return entry

    entry = await read()
    assert (await read()).secrets == entry.secrets
    assert without_current_secrets(secrets, entry).secrets == {}
    former = entry.model_copy(
        update={
            "secrets": {
                name: each.model_copy(update={"entry": ""}) for name, each in entry.secrets.items()
            }
        }
    )
    assert without_current_secrets(secrets, former) is former
    sealer = Sealer(
        home=home,
        agent_id="pi-1",
        report_key=home.agents()["pi-1"].report_key,
        is_enrolled_here=True,
        epoch=0,
        generation=9,
        named=(),
    )
    wanted = {"config": without_current_secrets(secrets, entry)}
    kept = sealer.seal(wanted, {"config": entry}).entries["config"]
    assert kept == entry
    anew = sealer.seal(wanted, {"config": former}).entries["config"]
    assert anew.secrets["db.password"].entry == hash_entry(entry)
    assert anew.secrets["db.password"].box != entry.secrets["db.password"].box


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("path", "a secret cannot stand here: of a file, content can have one"),
        ("error", "InterpretationFailed"),
    ],
)
async def test_a_score_that_puts_it_elsewhere_fails_and_does_not_know_it(
    where: str, told: str, place: Place
) -> None:
    await place.harmony("secret", "set", "key", stdin=VALUE)
    failed = await place.push_loud("loud", "${secret.key}", where)
    assert told in failed.error.code + failed.error.message
    assert VALUE not in repr(failed)
    assert place.holders_of(VALUE) == []


@pytest.mark.parametrize("content", [b"key = ${secret.key}", b"\xff${labels.site}"])
async def test_a_reference_in_bytes_is_refused_where_it_is_pushed(
    content: bytes, place: Place
) -> None:
    text = base64.b64encode(content).decode()
    said = await place.push(
        f"- {{id: blob, kind: FileScore, spec: {{path: /etc/blob, content_base64: {text}}}}}"
    )
    assert said.status == 2
    assert "content_base64: ${" in said.err
    assert "stands in bytes, which are written as they are" in said.err
    for literal in (b"$${secret.key} ${HOME} ${secret.}", b"\xff"):
        serialize(
            "blob", Entry(FileScore(path="/etc/blob", content_base64=base64.b64encode(literal)))
        )


async def test_the_word_of_another_score_opens_nothing(place: Place) -> None:
    await place.harmony("secret", "set", "db.password", stdin=VALUE)
    await place.push(CONFIG)
    version = FleetSecrets(place.bus.home).read("db.password").version
    word = f"<secret config/db.password {version}>"
    assert find_words(word)
    failed = await place.push_loud("thief", word, "content")
    assert "the word for a secret that this Score does not have" in failed.error.message
    assert place.files.read("/etc/loud") is None


async def test_a_class_is_refused_by_name(place: Place) -> None:
    await place.harmony("secret", "set", "db.password", stdin=VALUE)
    file = place.root / "scores.yaml"
    file.write_text(CONFIG)
    said = await place.harmony(
        "push-score", "--class", "kiosk", "--selector", "role == kiosk", str(file)
    )
    assert said.status == 2
    assert "config: a class is for many devices, and a secret is sealed to one" in said.err


async def test_another_operator_opens_what_was_shared_and_no_other(tmp_path: Path) -> None:
    first, second = Home(tmp_path / "first"), Home(tmp_path / "second")
    operator_key.create(first)
    operator_key.create(second)
    FleetSecrets(first).set("key", VALUE)
    operator_key.trust(second, [operator_key.load_public(first)])

    def hand_over() -> None:
        second.secrets.mkdir(exist_ok=True)
        kept = first.secrets / "key.json"
        (second.secrets / "key.json").write_bytes(kept.read_bytes())

    hand_over()
    with pytest.raises(UsageError, match="is not sealed to this operator"):
        FleetSecrets(second).open("key")
    version = FleetSecrets(first).read("key").version
    operator_key.trust(first, [operator_key.load_public(second)])
    FleetSecrets(first).share()
    hand_over()
    opened = FleetSecrets(second).open("key")
    assert (opened.value, opened.version) == (VALUE, version)
    assert VALUE not in repr(opened)


@pytest.mark.parametrize(
    ("words", "stdin", "told"),
    [
        (("set", "Key"), VALUE, "'Key' cannot be a secret's name"),
        (("set", "key"), "", "a secret's value has 1 to 16384 bytes"),
        (("set", "key"), "a\0b", "no NUL"),
        (("set", "key", "--file", "/nowhere"), "", "/nowhere cannot be read"),
        (("remove", "key"), "", "there is no secret 'key'"),
    ],
)
async def test_what_cannot_be_a_secret_is_refused(
    words: tuple[str, ...], stdin: str, told: str, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    operator_key.create(home)
    said = await harmony(home, "secret", *words, stdin=stdin)
    assert said.status == 2
    assert told in said.err


async def test_an_operator_elsewhere_seals_to_no_other_key_by_a_record_alone(
    tmp_path: Path,
) -> None:
    async with ground(tmp_path) as plane:
        bob = await operator_elsewhere(plane, tmp_path)
        await publish_devices(plane.home, plane.bus.admin)
        FleetSecrets(bob).set("key", VALUE)
        score = FileScore(path="/etc/key", content="${secret.key}")
        async with Fleet.connect(bob) as his:
            await his.device("pi-1").put({"config": score})
        await plane.bus.enrol("pi-1", replace=True)
        await publish_devices(plane.home, plane.bus.admin)
        async with Fleet.connect(bob) as his:
            with pytest.raises(UsageError, match="pi-1 has another key now") as refused:
                await his.device("pi-1").label({"site": "attic"})
            accept = refused.value.message.partition("harmony ")[2].split()
            assert (await harmony(bob, *accept)).status == 0
            pushed = await his.device("pi-1").label({"site": "attic"})
        report_key = VerifyKey.from_text(plane.home.agents()["pi-1"].report_key)
        assert pushed.entries["config"].secrets["key"].key == report_key.id[:16]
