"""Labels: set by the operator, signed, and read by a Score on the device."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path

import attrs
import pytest

from harmony_control.device import Device
from harmony_control.fleet import Fleet
from harmony_control.times_typed import lasting
from harmony_core import File, HasFiles, Inventory, Outcome, Score, outcome_of
from harmony_core.errors import UsageError
from harmony_core.outcome import Failure, Success
from harmony_core.plugins import Registry
from harmony_core.testing import FakeFiles
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.control.ground import Said, harmony
from tests.device import running_agent
from tests.nats import Bus, serving


class SiteScore(Score[HasFiles]):
    """Writes down where the device is, which only its operator can know."""

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        site = inventory.labels["site"]
        return outcome_of(
            await topology.files.ensure(File(path="/etc/site", content=site.encode()))
        )


@attrs.frozen
class Place:
    bus: Bus
    files: FakeFiles
    pi: Device[PiTopology]

    async def harmony(self, *arguments: str, stdin: str = "") -> Said:
        return await harmony(self.bus.home, *arguments, stdin=stdin)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    files = FakeFiles()
    async with (
        serving(tmp_path, "pi-1", "pi-2") as bus,
        running_agent(
            bus.home,
            "pi-1",
            tmp_path / "agent",
            registry=Registry([SiteScore, FileScore]),
            offers={"FileSystemHost": files},
            missing={},
        ),
        Fleet.connect(bus.home) as fleet,
    ):
        yield Place(bus, files, fleet.device("pi-1"))


async def test_a_missing_label_says_how_to_set_it_and_set_so_the_score_reads_it(
    place: Place,
) -> None:
    outcome = await place.pi.push(SiteScore(), id="site")
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "FactMissing"
    assert "`harmony label AGENT site=VALUE`" in outcome.error.message

    said = await place.harmony("label", "pi-1", "site=VALUE", "rack=3")
    assert said.status == 0, said.out + said.err
    assert "site                 SUCCESS" in said.out
    assert place.files.read("/etc/site") == b"VALUE"
    assert (await place.harmony("label", "pi-1")).out == "rack=3\nsite=VALUE\n"


async def test_a_label_stays_over_other_pushes_until_it_is_taken_away(place: Place) -> None:
    await place.pi.label({"site": "attic", "rack": "3"})
    assert isinstance(await place.pi.push(SiteScore(), id="site"), Success)
    assert place.files.read("/etc/site") == b"attic"
    said = await place.harmony("label", "pi-1", "rack-", "--json")
    assert said.status == 0, said.err
    assert (await place.harmony("label", "pi-1", "--json")).documents == [
        {"agent": "pi-1", "labels": {"site": "attic"}}
    ]
    # Taken away while a Score reads it: that Score fails, and keeps what it has made.
    said = await place.harmony("label", "pi-1", "site-")
    assert said.status == 1
    assert "FactMissing" in said.out
    assert place.files.read("/etc/site") == b"attic"


async def test_a_device_without_labels_or_scores_can_be_labelled(place: Place) -> None:
    assert (await place.harmony("label", "pi-1")).out == "pi-1 has no labels\n"
    said = await place.harmony("label", "pi-1", "site=")
    assert (said.status, said.out) == (0, "pushed to pi-1: generation 1, 0 Scores\n")
    assert await place.pi.labels() == {"site": ""}
    said = await place.harmony("label", "pi-9", "site=x", "--no-wait")
    assert (said.status, said.err) == (
        2,
        "harmony: there is no device 'pi-9'; did you mean 'pi-1' or 'pi-2'?\n",
    )
    said = await place.harmony("label", "pi-9", "site=x", "--no-wait", "--force")
    assert "pi-9 is not enrolled here" in said.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("site",), "'site': write site=VALUE to set that label, site- to remove it"),
        (("site=a", "site-"), "the label 'site' is named twice"),
        (
            ("si te=a",),
            "a label's name has 1 to 63 letters, digits and inner ._/-, such as site, not 'si te'",
        ),
        (("site=a\nb",), "labels.site: a label's value is one line of at most 256 characters"),
        (("=a",), "a label's name has 1 to 63"),
        (("other-",), "pi-1 has no label 'other'; it has: none"),
    ],
)
async def test_what_cannot_be_a_label_is_refused(
    words: tuple[str, ...], told: str, place: Place
) -> None:
    said = await place.harmony("label", "pi-1", *words)
    assert said.status == 2, said
    assert told in said.err
    assert await place.bus.bucket("desired-state").get("pi-1") is None


async def test_going_back_brings_the_earlier_labels_back(place: Place) -> None:
    await place.pi.label({"site": "attic"})
    await place.pi.push(SiteScore(), id="site")
    await place.pi.wait(await place.pi.label({"site": "cellar"}))
    assert place.files.read("/etc/site") == b"cellar"
    said = await place.harmony("rollback", "pi-1", "--yes")
    assert said.status == 0, said.err
    assert "label:site" in said.out
    assert place.files.read("/etc/site") == b"attic"
    assert await place.pi.labels() == {"site": "attic"}


async def test_what_expires_is_signed_with_when_and_the_next_push_does_not_expire(
    place: Place,
) -> None:
    motd = "- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: x}}\n"
    said = await place.harmony("push-score", "pi-1", "-", "--expires-in", "30d", stdin=motd)
    assert said.status == 0, said.err
    (generation,) = (await place.pi.history()).generations
    assert generation.manifest.expires_at is not None
    assert generation.manifest.expires_at - generation.manifest.issued_at == timedelta(days=30)
    await place.pi.put({"issue": FileScore(path="/etc/issue", content="x")})
    assert (await place.pi.history()).generations[-1].manifest.expires_at is None


@pytest.mark.parametrize("text", ["0d", "30", "-1h", "2026-01-31", "for ever", ""])
def test_what_is_not_how_long_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="30m, 12h or 30d"):
        lasting(text)


async def test_only_what_a_label_has_changed_is_listed(place: Place) -> None:
    await place.pi.put_and_wait({"note": FileScore(path="/etc/note", content="")})
    said = await place.harmony("label", "pi-1", "site=attic")
    assert said.status == 0, said.err
    assert "note" not in said.out


REFERRING = """
- id: site
  kind: FileScore
  spec: {path: "/etc/${labels.site}", content: "${inventory.agent_id}\\n", mode: "${labels.mode}"}
"""


async def test_a_reference_to_a_label_is_refused_without_it_and_followed_with_it(
    place: Place, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(REFERRING)
    await place.pi.label({"sites": "attic", "mode": "0600"})
    said = await place.harmony("push-score", "pi-1", str(file))
    assert said.status == 3
    assert "pi-1 has no label 'site', to which ${labels.site} refers" in said.err
    assert "did you mean 'sites'?" in said.err
    await place.pi.label({"site": "attic"})
    shown = await place.harmony("diff", "pi-1", str(file))
    assert "file:/etc/attic" in shown.out, shown.err
    said = await place.harmony("push-score", "pi-1", str(file))
    assert said.status == 0, said.err
    assert place.files.read("/etc/attic") == b"pi-1\n"
    said = await place.harmony("label", "pi-1", "site=cellar")
    assert said.status == 0, said.err
    assert place.files.read("/etc/cellar") == b"pi-1\n"
    said = await place.harmony("label", "pi-1", "site-")
    assert said.status == 1
    assert "FactMissing" in said.out
    assert place.files.read("/etc/cellar") == b"pi-1\n"
