"""The commands that ask a device, as a person types them, and a whole agent that answers."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from harmony_control.cli.changes_view import change_words
from harmony_control.cli.events import event_words
from harmony_control.cli.painted import paint
from harmony_control.fleet import Fleet
from harmony_control.times_typed import since_of
from harmony_core import plugins
from harmony_core.errors import UsageError, WriteFailed
from harmony_core.testing import FakeDirectories
from harmony_scores import FileScore
from tests.agent.asking import LoggingFiles
from tests.control.ground import Said, command, environment, harmony
from tests.device import running_agent
from tests.nats import Bus, serving

MOTD = FileScore(path="/etc/motd", content="hello\n")
ISSUE = FileScore(path="/etc/issue", content="issue\n")
CHANGED = '- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: "bye\\n"}}\n'
REPORTED = """
- id: motd
  kind: FileScore
  spec: {path: /etc/motd, content: "hello\\n"}
  policy: {drift: report}
"""
SAME = '- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: "hello\\n"}}\n'


@attrs.frozen
class Place:
    """A bus, and pi-1 with two Scores."""

    bus: Bus
    fleet: Fleet
    files: LoggingFiles

    async def harmony(self, *arguments: str, stdin: str = "") -> Said:
        return await harmony(self.bus.home, *arguments, stdin=stdin)

    async def generation(self) -> int:
        state = await self.fleet.device("pi-1").state()
        return state.generation if state else 0


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    files = LoggingFiles()
    async with (
        serving(tmp_path, "pi-1", "pi-2") as bus,
        Fleet.connect(bus.home) as fleet,
        running_agent(
            bus.home,
            "pi-1",
            tmp_path,
            registry=plugins.load(),
            offers={"FileSystemHost": files, "DirectoryHost": FakeDirectories(files)},
            missing={"SystemdHost": "no systemd here"},
        ),
    ):
        await fleet.device("pi-1").put_and_wait({"motd": MOTD, "issue": ISSUE})
        yield Place(bus, fleet, files)


@pytest.mark.parametrize(("file", "status"), [(CHANGED, 1), (SAME, 0)])
async def test_a_diff_can_say_by_its_exit_code_whether_anything_would_change(
    file: str, status: int, place: Place
) -> None:
    said = await place.harmony("diff", "pi-1", "-", "--exit-code", stdin=file)
    assert said.status == status, said


async def test_of_a_score_that_is_not_there_a_close_name_is_told(place: Place) -> None:
    for arguments in (("logs", "mot"), ("events", "mot"), ("reconcile", "mot")):
        name, score = arguments
        said = await place.harmony(name, "pi-1", score)
        assert said.status == 2, said
        assert "did you mean 'motd'?" in said.err


def test_what_is_made_and_tells_no_state_is_not_shown_as_removed() -> None:
    event = {"at": "2026", "score": "lan", "resource": "network:lan", "actions": ["created"]}
    assert "+ network:lan" in paint(event_words(event), colour=False)
    gone = {**event, "actions": ["removed"], "before": {"state": "Connected"}}
    assert "- network:lan" in paint(event_words(gone), colour=False)


async def test_a_diff_shows_a_file_as_people_like_it_and_changes_nothing(place: Place) -> None:
    said = await place.harmony("diff", "pi-1", "-", stdin=CHANGED)
    assert said.status == 0, said.err
    assert said.out.splitlines() == [
        "motd  1 change",
        "  ~ file:/etc/motd  wrote 6 → 4 bytes, sha256 5891b5b522d5… → abc6fd595fc0…",
        "      --- a/etc/motd",
        "      +++ b/etc/motd",
        "      @@ -1 +1 @@",
        "      -hello",
        "      +bye",
        "0 new, 1 changed, 0 removed; 1 Score in order",
    ]
    assert place.files.read("/etc/motd") == b"hello\n"
    assert await place.generation() == 1


async def test_a_dry_run_shows_the_same_and_pushes_nothing(place: Place) -> None:
    before = await place.bus.bucket("desired-state").get("pi-1")
    diff = await place.harmony("diff", "pi-1", "-", stdin=CHANGED)
    said = await place.harmony("push-score", "pi-1", "-", "--dry-run", stdin=CHANGED)
    assert (said.status, said.out) == (diff.status, diff.out)
    assert await place.bus.bucket("desired-state").get("pi-1") == before


async def test_a_diff_of_what_is_there_already_says_so(place: Place) -> None:
    said = await place.harmony("diff", "pi-1", "-", stdin=SAME)
    assert said == Said(0, "nothing would change: 2 Scores in order\n", "")


async def test_a_diff_of_the_whole_shows_what_would_go(place: Place) -> None:
    said = await place.harmony("diff", "pi-1", "-", "--whole", stdin=SAME)
    assert said.status == 0
    assert said.out.splitlines() == [
        "issue  would be removed, with 1 resource",
        "  - file:/etc/issue  removed",
        "0 new, 0 changed, 1 removed; 1 Score in order",
    ]


async def test_a_diff_as_documents(place: Place) -> None:
    said = await place.harmony("diff", "pi-1", "-", "--json", stdin=CHANGED)
    motd, issue = sorted(said.documents, key=lambda each: str(each["status"]), reverse=True)
    assert (motd["score"], motd["status"]) == ("motd", "SUCCESS")
    assert motd["changes"][0]["resource"] == "file:/etc/motd"
    assert (issue["status"], issue["changes"]) == ("NOOP", [])


async def test_a_diff_is_refused_as_a_push_would_be(place: Place) -> None:
    unit = "- {id: unit, kind: SystemdServiceScore, spec: {name: x.service}}\n"
    said = await place.harmony("diff", "pi-1", "-", stdin=unit)
    assert said.status == 3
    assert "needs SystemdHost" in said.err
    forced = await place.harmony("diff", "pi-1", "-", "--force", stdin=unit)
    assert forced.status == 1
    assert "would be refused: MissingCapability" in forced.out
    waiting = SAME.replace("kind", "after: [nobody], kind")
    assert (await place.harmony("diff", "pi-1", "-", stdin=waiting)).status == 2


async def test_a_diff_does_not_refuse_what_others_change_before_it(place: Place) -> None:
    """Also where the one in between would change nothing itself."""
    place.files.faults["/etc/of-a-user"] = WriteFailed("this device has no user ada; create it")
    spec = "kind: FileScore, spec: {path: /etc/of-a-user, content: x}"
    alone = await place.harmony("diff", "pi-1", "-", stdin=f"- {{id: it, {spec}}}\n")
    assert alone.status == 1
    assert "would be refused: WriteFailed: this device has no user ada" in alone.out
    issue = 'kind: FileScore, spec: {path: /etc/issue, content: "issue\\n"}'
    between = f"{{id: issue, after: [motd], {issue}}}"
    chain = f"{CHANGED}- {between}\n- {{id: it, after: [issue], {spec}}}\n"
    told = await place.harmony("diff", "pi-1", "-", stdin=chain)
    assert told.status == 0, told
    assert (
        "it  cannot predict the rest: file:/etc/of-a-user depends on what is changed before it; as the "
        "device is now: this device has no user ada; create it"
    ) in told.out


async def test_what_was_logged_is_shown_and_cannot_steer_a_terminal(place: Place) -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    place.files.log("/etc/motd", "plain", "\x1b[2Jwiped\rover", "two\nlines", at=noon)
    said = await place.harmony("logs", "pi-1", "motd")
    assert said == Said(
        0,
        "2026-01-31 12:00:00 /etc/motd  plain\n"
        "2026-01-31 12:00:00 /etc/motd  \\x1b[2Jwiped\\rover\n"
        "2026-01-31 12:00:00 /etc/motd  two\n"
        "    lines\n",
        "",
    )
    (last,) = (await place.harmony("logs", "pi-1", "motd", "--lines", "1", "--json")).documents
    assert (last["text"], last["stream"], last["resource"]) == (
        "two\nlines",
        "out",
        "file:/etc/motd",
    )
    assert (await place.harmony("logs", "pi-1", "motd", "--since", "10m")).out == ""


async def test_a_log_is_followed_until_interrupted(place: Place) -> None:
    place.files.log("/etc/motd", "first")
    process = await asyncio.create_subprocess_exec(
        *command("logs", "pi-1", "motd", "-f", "--json"),
        env=environment(place.bus.home),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert json.loads(await process.stdout.readline())["text"] == "first"
    place.files.log("/etc/motd", "second")
    assert json.loads(await process.stdout.readline())["text"] == "second"
    process.send_signal(signal.SIGINT)
    rest, err = await process.communicate()
    assert (process.returncode, rest) == (130, b"")
    assert b"Traceback" not in err


async def test_every_change_is_shown_with_why_and_by_whose_order(place: Place) -> None:
    place.files.write("/etc/motd", b"fiddled\n")
    async with asyncio.timeout(20):
        while place.files.read("/etc/motd") != b"hello\n":
            await asyncio.sleep(0.02)
    said = await place.harmony("events", "pi-1", "motd")
    assert said.status == 0, said.err
    lines = said.out.splitlines()
    first = next(n for n, line in enumerate(lines) if "desired, generation 1, signed by" in line)
    assert lines[first].split()[2] == "motd"
    assert lines[first + 1].startswith("  + file:/etc/motd")
    assert any("  motd  drift, generation 1, signed by" in line for line in lines)
    assert "      -fiddled" in lines
    (newest,) = (await place.harmony("events", "pi-1", "--lines", "1", "--json")).documents
    assert (newest["why"], newest["score"]) == ("drift", "motd")


async def test_scores_are_looked_at_now_and_what_they_came_to_is_shown(place: Place) -> None:
    said = await place.harmony("reconcile", "pi-1")
    assert said.status == 0
    assert sorted(line.split()[:2] for line in said.out.splitlines()) == [
        ["issue", "SUCCESS"],
        ["motd", "SUCCESS"],
    ]
    both = await place.harmony("reconcile", "pi-1", "motd", "issue", "motd")
    assert [line.split()[0] for line in both.out.splitlines()] == ["motd", "issue"]
    place.files.full = True
    failed = await place.harmony("reconcile", "pi-1", "motd", "--json")
    assert failed.status == 1
    assert failed.documents[0]["outcome"]["error"]["code"] == "WriteFailed"


async def test_1_while_what_has_drifted_is_left_so_and_it_is_put_right_once_where_asked(
    place: Place,
) -> None:
    push = ("push-score", "pi-1", "-")
    assert (await place.harmony(*push, stdin=REPORTED)).status == 0
    place.files.delete("/etc/motd")
    left = await place.harmony("reconcile", "pi-1", "motd")
    assert left.status == 1
    assert "--enforce" in left.out
    assert (await place.harmony(*push, stdin=REPORTED)).status == 1
    shown = await place.harmony("status", "pi-1", "--json")
    assert shown.status == 1
    assert (await place.harmony("reconcile", "pi-1", "motd", "--enforce")).status == 0
    assert place.files.read("/etc/motd") == b"hello\n"
    assert (await place.harmony(*push, stdin=REPORTED)).status == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("logs", "pi-1", "nosuch"), "there are: issue, motd"),
        (("reconcile", "pi-1", "nosuch"), "there are: issue, motd"),
        (("release", "pi-1", "motd"), "Score 'motd' has no postponed changes"),
        (("logs", "pi-1", "Motd!"), "this cannot be asked: score"),
        (("logs", "pi-1", "motd", "--since", "tomorrow"), "is no time"),
        (("logs", "pi-1", "motd", "--lines", "0"), "from 1 to 10000"),
        (("events", "*"), "cannot be a device's id"),
        (("diff", "pi-1"), "name the Score files"),
        (("push-score", "pi-1", "--all", "--dry-run"), "name files"),
    ],
)
async def test_2_for_what_cannot_be_meant(
    place: Place, arguments: tuple[str, ...], said: str
) -> None:
    heard = await place.harmony(*arguments)
    assert heard.status == 2, heard
    assert said in heard.err
    assert heard.out == ""


async def test_a_look_is_waited_for_no_longer_than_was_asked(place: Place) -> None:
    said = await place.harmony("reconcile", "pi-1", "--timeout", "0.001")
    assert (said.status, said.out) == (4, "")
    assert "pi-1 has not looked at all of it within 0.001 s" in said.err


@pytest.mark.parametrize(
    "arguments", [("logs", "pi-2", "motd"), ("events", "pi-2"), ("reconcile", "pi-2")]
)
async def test_4_for_a_device_that_does_not_answer(
    place: Place, arguments: tuple[str, ...]
) -> None:
    said = await place.harmony(*arguments)
    assert said.status == 4
    assert "pi-2 was never heard of" in said.err


async def test_1_for_what_the_device_could_not_do(place: Place) -> None:
    place.files.error = ZeroDivisionError("oh")
    said = await place.harmony("logs", "pi-1", "motd")
    assert said.status == 1
    assert "pi-1: Defect: ZeroDivisionError: oh" in said.err


def test_what_is_no_file_is_shown_field_by_field() -> None:
    words = change_words(
        "container:web",
        ("recreated: image changed", "started"),
        before={"state": "Running", "image": "web@sha256:" + "a" * 64, "restarts": 0, "since": "x"},
        after={"state": "Running", "image": "web@sha256:" + "b" * 64, "restarts": 0, "since": "y"},
        diff=None,
    )
    assert paint(words, colour=False).splitlines() == [
        "  ~ container:web  recreated: image changed, started",
        "      image: web@sha256:aaaaaaaaaaaa… → web@sha256:bbbbbbbbbbbb…",
    ]


def test_a_diff_is_coloured_and_what_it_contains_cannot_be() -> None:
    words = change_words(
        "file:/a", ("wrote",), before={"mode": "1"}, after=None, diff="@@ -1 +1 @@\n-a\n+\x1b[0m\n"
    )
    text = paint(words, colour=True)
    assert "\x1b[36m      @@ -1 +1 @@\x1b[0m" in text
    assert "\x1b[31m      -a\x1b[0m" in text
    assert "\x1b[32m      +\\x1b[0m\x1b[0m" in text


def test_since_is_how_long_ago_or_when() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert since_of(None) is None
    assert since_of("90s", noon) == noon - timedelta(seconds=90)
    assert since_of("10m", noon) == since_of("10 min", noon) == noon - timedelta(minutes=10)
    assert since_of("2h", noon) == noon - timedelta(hours=2)
    assert since_of("7d", noon) == noon - timedelta(days=7)
    assert since_of("2026-01-31T12:00:00Z") == noon
    assert since_of("2026-01-31T13:00:00+01:00") == noon
    assert since_of("2026-01-31 12:00") == datetime(2026, 1, 31, 12).astimezone(UTC)
    for text in ("", "yesterday", "-1h", "0x10m", "1" * 30 + "d", "٣m"):
        with pytest.raises(UsageError, match="is no time"):
            since_of(text)


async def test_a_device_is_described_with_what_it_says_and_what_was_changed(place: Place) -> None:
    said = await place.harmony("describe", "pi-1")
    assert said.status == 0, said.err
    assert said.out.splitlines()[:3] == [
        "device     Online",
        "update     UpToDate",
        "workloads  Healthy",
    ]
    assert "\nup " in said.out, "how it is itself"
    changes = said.out.partition("Last changes:\n")[2]
    assert "file:/etc/motd" in changes
    (told,) = (await place.harmony("describe", "pi-1", "-o", "json")).documents
    assert (told["device"], told["reasons"]["workloads"]) == ("Online", "")
    assert {each["resource"] for each in told["events"]} == {"file:/etc/motd", "file:/etc/issue"}
    assert told["state"]["scores"]["motd"]["outcome"]["status"] in {"SUCCESS", "NOOP"}
    assert told["vitals"]["uptime_s"] > 0
    assert told["events_problem"] == ""
