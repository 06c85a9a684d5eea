"""From Score files to Outcomes: the control plane against a real bus and a whole agent."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import attrs
import pytest

from harmony_control.device import Device, removals_held
from harmony_control.fleet import Fleet
from harmony_control.push.entries import Entry, default_id
from harmony_control.push.push import Contents, push
from harmony_control.store.home import Home
from harmony_core.errors import (
    DependencyCycle,
    MissingCapability,
    NoAnswer,
    UnknownDependency,
    UnknownKind,
    UntrustedSignature,
    UsageError,
)
from harmony_core.outcome import Noop, Success
from harmony_core.plugins import Registry
from harmony_core.testing import FakeDirectories, FakeFiles
from harmony_core.wire.envelope import generate_key, seal
from harmony_core.wire.manifest import Manifest
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore
from tests.device import running_agent
from tests.nats import Bus, serving

MOTD = FileScore(path="/etc/motd", content="hello\n")
ISSUE = FileScore(path="/etc/issue", content="issue\n")


@attrs.frozen
class Rig:
    bus: Bus
    files: FakeFiles
    fleet: Fleet

    @property
    def home(self) -> Home:
        return self.bus.home

    @property
    def pi(self) -> Device[PiTopology]:
        return self.fleet.device("pi-1")

    async def harmony(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """The command, as a user runs it: exit code, standard output, standard error."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "harmony_control.cli", *arguments),
            env={**os.environ, "HARMONY_HOME": str(self.home.root)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        assert "Traceback" not in err.decode()
        return process.returncode or 0, out.decode(), err.decode()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncGenerator[Rig]:
    files = FakeFiles()
    async with (
        serving(tmp_path, "pi-1", "pi-2") as bus,
        running_agent(
            bus.home,
            "pi-1",
            tmp_path / "agent",
            registry=Registry([FileScore, SystemdServiceScore]),
            offers={"FileSystemHost": files, "DirectoryHost": FakeDirectories(files)},
            missing={"SystemdHost": "this is a test"},
        ),
        Fleet.connect(bus.home) as fleet,
    ):
        rig = Rig(bus, files, fleet)
        async with asyncio.timeout(20), rig.pi.watch() as states:
            async for _ in states:
                break
        yield rig


async def test_a_pushed_score_converges_and_pushed_again_needs_nothing(rig: Rig) -> None:
    assert isinstance(await rig.pi.push(MOTD, id="motd"), Success)
    assert rig.files.read("/etc/motd") == b"hello\n"
    assert isinstance(await rig.pi.push(MOTD, id="motd"), Noop)


async def test_pushing_adds_to_what_is_there_and_removing_takes_away(rig: Rig) -> None:
    await rig.pi.push(MOTD, id="motd")
    await rig.pi.push(ISSUE, id="issue")
    state = await rig.pi.remove("motd")
    assert set(state.scores) == {"issue"}
    assert not rig.files.exists("/etc/motd")
    assert rig.files.exists("/etc/issue")


async def test_pushes_at_once_lose_nothing(rig: Rig) -> None:
    scores = {f"f-{n}": FileScore(path=f"/etc/f{n}", content="x") for n in range(6)}
    await asyncio.gather(*(rig.pi.put({name: score}) for name, score in scores.items()))
    pushed = await rig.pi.put({"last": MOTD})
    assert set(pushed.entries) == {*scores, "last"}
    assert pushed.generation == 7


async def test_two_operators_at_once_lose_nothing(rig: Rig, tmp_path: Path) -> None:
    shutil.copytree(rig.home.root, tmp_path / "other")
    scores = {f"f-{n}": FileScore(path=f"/etc/f{n}", content="x") for n in range(8)}
    async with Fleet.connect(Home(tmp_path / "other")) as other:
        devices = (rig.pi, other.device("pi-1"))
        await asyncio.gather(
            *(devices[n % 2].put({name: score}) for n, (name, score) in enumerate(scores.items()))
        )
    pushed = await rig.pi.put({"last": MOTD})
    assert set(pushed.entries) == {*scores, "last"}


async def test_what_the_device_cannot_do_is_refused_before_anything_is_pushed(rig: Rig) -> None:
    with pytest.raises(MissingCapability, match=r"unit needs SystemdHost.*this is a test"):
        await rig.pi.push(SystemdServiceScore(name="x.service"), id="unit")
    with pytest.raises(UnknownKind, match="does not know the kind ContainerScore"):
        await rig.pi.put({"c": Entry(_container())}, force=False)
    assert await rig.bus.bucket("desired-state").get("pi-1") is None


async def test_forced_past_the_check_the_device_itself_refuses(rig: Rig) -> None:
    unit = Entry(SystemdServiceScore(name="x.service"))
    state = await rig.pi.put_and_wait({"unit": unit, "c": Entry(_container())}, force=True)
    codes = {name: getattr(page.outcome, "error").code for name, page in state.scores.items()}  # noqa: B009
    assert codes == {"unit": "MissingCapability", "c": "UnknownKind"}


def _container() -> ContainerScore:
    return ContainerScore(name="c", image="example.org/c@sha256:" + "0" * 64)


async def test_an_order_that_cannot_be_followed_is_refused(rig: Rig) -> None:
    with pytest.raises(UnknownDependency, match="no Score 'b'"):
        await rig.pi.push(MOTD, id="a", after=["b"])
    with pytest.raises(DependencyCycle):
        await rig.pi.put({"a": Entry(MOTD, ["b"]), "b": Entry(ISSUE, ["a"])})


async def test_nothing_is_built_on_what_somebody_else_has_signed(rig: Rig) -> None:
    foreign = Manifest(fleet="home", target="agent:pi-1", generation=9, issued_at=datetime.now(UTC))
    await rig.bus.bucket("desired-state").put("pi-1", seal(foreign.payload(), generate_key()))
    with pytest.raises(UntrustedSignature, match="not signed by an operator trusted here"):
        await rig.pi.push(MOTD)


async def test_a_server_that_lost_its_last_writes_is_pushed_past_them(rig: Rig) -> None:
    first = await rig.pi.put({"motd": Entry(MOTD)})
    old = await rig.bus.bucket("desired-state").get("pi-1")
    assert old is not None
    await rig.pi.put_and_wait({"issue": Entry(ISSUE)})
    await rig.bus.bucket("desired-state").put("pi-1", old.value)
    pushed = await rig.pi.put_again()
    assert pushed.generation == first.generation + 2
    assert set(pushed.entries) == {"motd", "issue"}


async def test_an_unknown_id_is_not_removed_silently(rig: Rig) -> None:
    await rig.pi.push(MOTD, id="motd")
    with pytest.raises(UsageError, match=r"no Score 'mood'.*there are: motd"):
        await rig.pi.remove("mood")


async def test_waiting_for_a_device_that_is_silent_ends_in_time(rig: Rig) -> None:
    with pytest.raises(NoAnswer, match="never heard of"):
        await rig.fleet.device("pi-2").push(MOTD, timeout_s=0.5)


async def test_agents_are_known_before_they_report(rig: Rig) -> None:
    seen = {each.agent_id: each for each in await rig.fleet.agents()}
    assert set(seen) == {"pi-1", "pi-2"}
    assert seen["pi-2"].state is None
    assert seen["pi-2"].presence == "Never"


@pytest.mark.parametrize(
    ("score", "expected"),
    [(MOTD, "file"), (SystemdServiceScore(name="x.service"), "systemd-service")],
)
def test_a_score_without_an_id_is_named_after_its_kind(
    score: FileScore | SystemdServiceScore, expected: str
) -> None:
    assert default_id(score) == expected


PYTHON = """
from harmony_control import Entry
from harmony_scores import FileScore
scores = {
    "motd": FileScore(path="/etc/motd", content="hello"),
    "issue": Entry(FileScore(path="/etc/issue", content="x"), after=["motd"]),
}
"""


async def test_the_command_pushes_python_yaml_json_and_standard_input(
    rig: Rig, tmp_path: Path
) -> None:
    (tmp_path / "a.py").write_text(PYTHON)
    spec = "{path: /etc/b, content: b}"
    (tmp_path / "b.yaml").write_text(f"- {{id: b, kind: FileScore, spec: {spec}}}\n")
    entry = {"id": "c", "kind": "FileScore", "spec": {"path": "/etc/c", "content": "c"}}
    (tmp_path / "c.json").write_text(json.dumps([entry]))
    stdin = json.dumps([{**entry, "id": "d", "spec": {"path": "/etc/d", "content": "d"}}])
    files = [str(tmp_path / name) for name in ("a.py", "b.yaml", "c.json")]
    status, out, err = await rig.harmony("push-score", "pi-1", *files, "-", "--json", stdin=stdin)
    assert (status, err) == (0, "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines[0] == {"event": "pushed", "agent": "pi-1", "generation": 1}
    last = {line["id"]: line["outcome"]["status"] for line in lines[1:]}
    assert last == dict.fromkeys(["motd", "issue", "b", "c", "d"], "SUCCESS")


async def test_the_command_says_what_is_true(rig: Rig) -> None:
    await rig.pi.push(MOTD, id="motd")
    status, out, _ = await rig.harmony("status", "pi-1")
    assert status == 0
    assert "AllConverged" in out
    assert "present" in out
    status, out, _ = await rig.harmony("status", "--json")
    assert [json.loads(line)["agent_id"] for line in out.splitlines()] == ["pi-1", "pi-2"]
    assert status == 4, "pi-2 was never heard"
    _, out, _ = await rig.harmony("status")
    assert "never" in out


def test_without_a_server_the_command_says_which_one_to_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from harmony_control.cli import main

    assert main(["status", "--home", str(tmp_path / "home")]) == 2
    assert "harmony server" in capfd.readouterr().err


async def test_a_server_that_is_down_is_exit_4(rig: Rig) -> None:
    pid = rig.bus.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    status, _, err = await rig.harmony("status")
    assert status == 4
    assert "harmony server" in err


HEAVY = {"nats", "pydantic", "rich", "httpx", "attrs", "cattrs", "ruamel", "asyncio"}


async def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "from harmony_control.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert err.decode().strip() == "[]"


async def test_what_is_held_back_of_scores_that_follow_each_other_goes_when_that_is_approved(
    rig: Rig,
) -> None:
    chain = {
        f"f-{n}": Entry(
            FileScore(path=f"/etc/f{n}", content="x"), after=[f"f-{n - 1}"] if n else []
        )
        for n in range(12)
    }
    await rig.pi.put_and_wait(chain)
    pushed = await push(rig.home, rig.bus.admin, "pi-1", lambda _: Contents())
    state = await rig.pi.wait(attrs.evolve(pushed, removed=frozenset(chain)), timeout_s=20)
    assert state.removals_held == 12
    assert removals_held(state) == dict.fromkeys(chain, 1)
    await rig.pi.wait(await rig.pi.approve(), timeout_s=20)
    assert not any(rig.files.exists(f"/etc/f{n}") for n in range(12))


async def test_what_a_device_holds_back_is_shown_and_goes_when_that_is_approved(rig: Rig) -> None:
    many = {f"f-{n}": FileScore(path=f"/etc/f{n}", content="x") for n in range(12)}
    await rig.pi.put_and_wait(many)
    assert await rig.harmony("approve", "pi-1") == (
        0,
        "pi-1 has no removal that waits for approval\n",
        "",
    )
    # Not named one by one, as `remove-score` would: lost from the manifest.
    pushed = await push(rig.home, rig.bus.admin, "pi-1", lambda _: Contents())
    # Waiting for it ends, since nothing goes on before somebody says so.
    state = await rig.pi.wait(attrs.evolve(pushed, removed=frozenset(many)), timeout_s=20)
    assert removals_held(state) == dict.fromkeys(many, 1)
    status, out, err = await rig.harmony("approve", "pi-1")
    assert status == 2
    assert "f-0                  1 to remove" in out
    assert "--yes" in err
    assert rig.files.exists("/etc/f0")
    status, out, err = await rig.harmony("approve", "pi-1", "--yes")
    assert status == 0, out + err
    assert "f-11                 gone" in out
    assert not any(rig.files.exists(f"/etc/f{n}") for n in range(12))
    with pytest.raises(UsageError, match="no removal that waits for approval"):
        await rig.pi.approve()


async def test_leave_is_given_only_for_the_removals_that_were_shown(rig: Rig) -> None:
    many = {f"f-{n}": FileScore(path=f"/etc/f{n}", content="x") for n in range(13)}
    await rig.pi.put_and_wait(many)

    def keep_one(found: Contents) -> Contents:
        return attrs.evolve(found, scores={"f-12": found.scores["f-12"]})

    pushed = await push(rig.home, rig.bus.admin, "pi-1", keep_one)
    removed = frozenset(many.keys() - {"f-12"})
    shown = await rig.pi.wait(attrs.evolve(pushed, removed=removed), timeout_s=20)
    assert shown.removals_held == 12
    # While somebody still reads that, another operator removes one more.
    pushed = await push(rig.home, rig.bus.admin, "pi-1", lambda _: Contents())
    with pytest.raises(UsageError, match=r"nothing was signed: .* it was 12 of generation 2"):
        await rig.pi.approve(shown)
    await rig.pi.wait(attrs.evolve(pushed, removed=frozenset(many)), timeout_s=20)
    with pytest.raises(UsageError, match=r"it was 12 of generation 2, and is 13 of generation 3"):
        await rig.pi.approve(shown)
    assert all(rig.files.exists(f"/etc/f{n}") for n in range(13))
    await rig.pi.wait(await rig.pi.approve(await rig.pi.state()), timeout_s=20)
    assert not any(rig.files.exists(f"/etc/f{n}") for n in range(13))
