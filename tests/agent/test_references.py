"""References on a device: resolved just before a Score is decoded, and again when what they stand for
changes."""

from __future__ import annotations

from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of
from harmony_core.outcome import Failure
from harmony_core.resources import FileMode, PresentAt
from harmony_core.wire.manifest import SerializedScore

from .rig import Note, Rig, code, entry, status


class Lamp(Score[HasFiles]):
    """A file of a mode: a field that is no text."""

    mode: FileMode

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        return outcome_of(
            await topology.files.ensure(File(path="/etc/lamp", content=b"", mode=self.mode))
        )


def _referring(text: str, path: str = "/etc/note") -> SerializedScore:
    return entry(Note(path=path, text=text), "note", references=True)


async def test_a_label_is_resolved_and_another_one_is_followed_without_drift(rig: Rig) -> None:
    note = _referring("${labels.site} ${inventory.agent_id} $${labels.site} ${HOME}")
    async with rig.agent():
        await rig.put(1, note, labels={"site": "attic"})
        assert status(await rig.seen(1)) == {"note": "SUCCESS"}
        assert rig.files.read("/etc/note") == b"attic pi-1 ${labels.site} ${HOME}"
        await rig.put(2, note, labels={"site": "attic"})
        assert status(await rig.seen(2)) == {"note": "NOOP"}
        await rig.put(3, note, labels={"site": "cellar"})
        assert status(await rig.seen(3)) == {"note": "SUCCESS"}
        assert rig.files.read("/etc/note") == b"cellar pi-1 ${labels.site} ${HOME}"
    assert {each["why"] for each in await rig.events()} == {"desired"}


async def test_a_missing_label_changes_nothing_and_removes_nothing_until_it_is_set(
    rig: Rig,
) -> None:
    async with rig.agent():
        await rig.put(1, _referring("${labels.site}"), labels={"site": "attic"})
        await rig.seen(1)
        await rig.put(2, _referring("${labels.site}", path="/etc/moved"))
        page = (await rig.seen(2))["note"]
        assert code(page) == "FactMissing"
        assert isinstance(page.outcome, Failure)
        assert page.outcome.error.retry_at is None
        assert "harmony label AGENT site=VALUE" in page.outcome.error.message
        assert rig.files.read("/etc/note") == b"attic"
        assert await rig.files.observe("/etc/moved") is None
        await rig.put(3, _referring("${labels.site}", path="/etc/moved"), labels={"site": "b"})
        assert status(await rig.seen(3)) == {"note": "SUCCESS"}
        assert rig.files.read("/etc/moved") == b"b"
        assert await rig.files.observe("/etc/note") is None


async def test_what_an_entry_does_not_say_to_be_a_reference_is_text(rig: Rig) -> None:
    async with rig.agent():
        plain = entry(Note(text="${labels.site} $${labels.site}"), "note")
        await rig.put(1, plain, labels={"site": "attic"})
        await rig.seen(1)
        assert rig.files.read("/etc/note") == b"${labels.site} $${labels.site}"


async def test_a_field_is_judged_by_what_its_reference_comes_to(rig: Rig) -> None:
    lamp = SerializedScore(
        id="lamp", kind="Lamp", version=1, spec={"mode": "${labels.mode}"}, references=True
    )
    async with rig.agent(kinds=[Lamp]):
        await rig.put(1, lamp, labels={"mode": "many"})
        page = (await rig.seen(1))["lamp"]
        assert code(page) == "InvalidScore"
        assert isinstance(page.outcome, Failure)
        assert "not 'many'" in page.outcome.error.message
        await rig.put(2, lamp, labels={"mode": "384"})
        assert status(await rig.seen(2)) == {"lamp": "SUCCESS"}
        found = await rig.files.observe("/etc/lamp")
        assert isinstance(found, PresentAt)
        assert found.mode == "0600"
