"""What users of other systems complain of in public, done to a real Pi: here it does not happen.

Each test names the complaint that it answers. Those that are answered by a test which has its place
elsewhere are named in that test, so a citation is looked for by its number over the whole of tests/.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import pytest

from harmony_control.device import Device
from harmony_control.push.entries import Entry, Pushable
from harmony_core.outcome import Failure
from harmony_core.score import Score
from harmony_core.wire.actual_state import ActualState
from harmony_core.wire.manifest import ScorePolicy
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore, WebAppScore
from tests.box import Bed, Box
from tests.box.layers import built_wheel
from tests.fleet.ground import (
    AGENT,
    SERVE,
    TREE,
    Host,
    code_of,
    heard_again,
    in_shell,
    pushed,
    statuses,
    until,
)
from tests.topology.slow_link import SlowLink

Pi: TypeAlias = Device[PiTopology]
Scores: TypeAlias = Mapping[str, Pushable[PiTopology]]

SLEEP = ("/usr/bin/sleep", "infinity")
CONVERGED = {"SUCCESS", "NOOP"}


@pytest.fixture(scope="module")
def image(bed: Bed) -> str:
    return bed.registry.push_busybox("web", "1", command=in_shell(SERVE))


def sleeper(name: str = "sleeper") -> SystemdServiceScore:
    return SystemdServiceScore(name=f"{name}.service", exec_start=SLEEP, settle_s=0.5)


def box(image: str, **fields: object) -> ContainerScore:
    given = {"name": "box", "image": image, "settle_s": 0.5, "stop_timeout_s": 1, **fields}
    return ContainerScore.model_validate(given)


@asynccontextmanager
async def cable_out(pi: Box, device: Pi) -> AsyncGenerator[None]:
    """Nobody reaches the Pi during the block; it is heard of again after it."""
    pi.cut_network()
    try:
        yield
    finally:
        pi.restore_network()
    await heard_again(device)


async def test_all_that_was_removed_while_it_was_away_is_gone_on_its_return(
    device: Pi, pi: Box, host: Host, image: str
) -> None:
    """A device whose only work is removed while it is away keeps it running for ever, since what is sent
    on its return is what was added (eclipse-ankaios/ankaios#358, open-horizon/anax#3936)."""
    note = FileScore(path="/srv/note", content="note\n")
    scores: Scores = {"note": note, "sleeper": sleeper(), "box": box(image)}
    assert set(statuses(await device.put_and_wait(scores)).values()) == {"SUCCESS"}
    async with cable_out(pi, device):
        removed = await device.put({}, remove=scores)
        pi.run(["systemctl", "restart", AGENT])
        assert host.file("/srv/note") is not None
        assert host.unit("sleeper.service")["ActiveState"] == "active"
        assert host.containers() == ["box"]
    state = await device.wait(removed)
    assert state.generation == removed.generation
    assert host.file("/srv/note") is None
    assert host.units("sleeper") == []
    assert host.containers() == []


def _broken(image: str) -> dict[str, Score[PiTopology]]:
    """Each in a way of its own, and none of them ever up."""
    return {
        "loops": SystemdServiceScore(
            name="loops.service", exec_start=("/bin/false",), restart="always", settle_s=0.5
        ),
        "never-starts": SystemdServiceScore(
            name="never-starts.service", exec_start=SLEEP, type="notify", settle_s=0.5
        ),
        "box": box(image, command=("sh", "-c", "exit 3")),
        "mute": WebAppScore(
            name="mute",
            image=image,
            config="x = 1\n",
            config_path="/etc/web.conf",
            port=80,
            published_port=8081,
            command=in_shell("sleep 86399"),
        ),
    }


def _mended(image: str) -> dict[str, Score[PiTopology]]:
    mute = _broken(image)["mute"]
    return {
        "loops": sleeper("loops"),
        "never-starts": sleeper("never-starts"),
        "box": box(image),
        "mute": mute.model_copy(update={"command": ()}),
    }


async def test_what_never_comes_up_does_not_keep_its_own_mending_waiting(
    device: Pi, image: str
) -> None:
    """A deployment with a component that is broken, or restarts over and over, cannot be cancelled, so the
    one that mends it never begins (aws-greengrass/aws-greengrass-nucleus#1161,
    balena-os/balena-supervisor#1632)."""
    await device.put(_broken(image))
    failing = {"box": "FAILURE", "loops": "FAILURE", "mute": "RUNNING", "never-starts": "RUNNING"}
    await until(device, lambda state: statuses(state) == failing)
    state = await device.put_and_wait(_mended(image))
    assert set(statuses(state).values()) == {"SUCCESS"}


async def test_an_image_that_never_ends_arriving_does_not_keep_its_own_mending_waiting(
    device: Pi, pi: Box, bed: Bed, image: str
) -> None:
    """The same, of what hangs before it is ever started (aws-greengrass/aws-greengrass-nucleus#1203)."""
    large = bed.registry.push_busybox("large", "1", ballast_bytes=12_000_000)
    async with SlowLink(bed.registry.host, bytes_per_s=20_000) as link:
        link.make_known_to(pi, bed.registry.ca)
        await device.put({"box": box(large.replace(bed.registry.host, link.host))})
        await until(device, lambda state: _reason(state, "box") == "Progressing")
        state = await device.put_and_wait({"box": box(image)})
    assert statuses(state) == {"box": "SUCCESS"}


def _reason(state: ActualState, score: str) -> str:
    return state.scores[score].outcome.reason if score in state.scores else ""


def _error(state: ActualState, score: str) -> str:
    outcome = state.scores[score].outcome
    return outcome.error.message if isinstance(outcome, Failure) else ""


HANGING = "/run/systemd/system/podman.service.d/hanging.conf"


@contextmanager
def podman_hanging(pi: Box) -> Generator[None]:
    """Whoever asks podman is let in, and not answered during the block."""
    pi.write(HANGING, "[Service]\nType=exec\nExecStart=\nExecStart=/usr/bin/sleep infinity\n")
    pi.run(["systemctl", "daemon-reload"])
    pi.run(["systemctl", "stop", "podman.service"])
    try:
        yield
    finally:
        pi.run(["rm", HANGING])
        pi.run(["systemctl", "daemon-reload"])
        pi.run(["systemctl", "restart", "podman.service"])


async def test_podman_that_hangs_costs_nothing_but_containers(
    device: Pi, pi: Box, host: Host, image: str
) -> None:
    """One call of the container runtime that hangs takes the whole node out
    (kubernetes/kubernetes#61117)."""
    with podman_hanging(pi):
        hanging = await device.put({"box": box(image)})
        await heard_again(device)
        others: Scores = {
            "note": FileScore(path="/srv/note", content="note\n"),
            "sleeper": sleeper(),
        }
        state = await device.put_and_wait(others)
        assert statuses(state, ["note", "sleeper"]) == dict.fromkeys(others, "SUCCESS")
        assert host.unit("sleeper.service")["ActiveState"] == "active"
        assert not host.box.run(["pgrep", "-x", "conmon"], check=False).stdout
    state = await device.wait(hanging)
    assert statuses(state, ["box"]) == {"box": "SUCCESS"}


NO_PROGRAM = "[Service]\nType=simple\nExecStart=/usr/bin/not-there\n"


async def test_what_could_not_be_started_was_never_told_as_success(
    device: Pi, host: Host, image: str
) -> None:
    """A service that could not be started is told with Result: True (saltstack/salt#33540), a release as
    applied whose container does not run (balena-os/balena-supervisor#1576); success is reported, and nothing
    was done (saltstack/salt#29465). To systemd a unit of type
    simple is active although its program is missing."""
    broken: Scores = {
        "missing": SystemdServiceScore(name="missing.service", unit_file=NO_PROGRAM, enabled=None),
        "ends": box(image, name="ends", command=("true",), restart="no"),
        "no-image": box(image.rpartition("@")[0] + "@sha256:" + "0" * 64, name="no-image"),
    }
    state, on_the_way = await pushed(device, broken)
    assert code_of(state, "missing") == "UnitFailed"
    assert code_of(state, "ends") == "ContainerFailed"
    assert code_of(state, "no-image") == "ImageNotFound"
    told = {status for each in on_the_way for status in statuses(each).values()}
    assert told <= {"RUNNING", "FAILURE"}
    assert host.container("no-image") is None


async def test_no_reload_and_no_upgrade_of_the_agent_restarts_what_runs_well(
    device: Pi, pi: Box, host: Host, image: str
) -> None:
    """A client that is started anew, or upgraded, starts what it runs anew (hashicorp/nomad#5883,
    eclipse-ankaios/ankaios#16)."""
    web = WebAppScore(
        name="web", image=image, config="x = 1\n", config_path="/etc/web.conf", port=80
    )
    scores: Scores = {"sleeper": sleeper(), "box": box(image), "web": web}
    await device.put_and_wait(scores)
    named = {"units": ["sleeper.service"], "containers": ["box", "web"]}
    before = host.identities(**named)
    for command in ("daemon-reload", "daemon-reexec", "restart podman.service"):
        await asyncio.to_thread(pi.run, ["systemctl", *command.split()])
    await asyncio.to_thread(_upgrade_agent, pi)
    state = await device.put_and_wait(scores)
    assert set(statuses(state).values()) == {"NOOP"}
    assert host.identities(**named) == before


def _upgrade_agent(pi: Box) -> None:
    """Another wheel takes the place of the one that runs."""
    wheel = built_wheel(TREE)
    pi.write(f"/root/{wheel.name}", wheel.read_bytes())
    pip = ["/opt/harmony/bin/pip", "install", "--quiet", "--no-index", "--no-deps"]
    pi.run([*pip, "--force-reinstall", f"/root/{wheel.name}"])
    pi.run(["systemctl", "restart", AGENT])


def _written_by_the_agent(host: Host) -> str:
    """How many bytes it has sent to a disk ever since it started, as the kernel counts them."""
    counts = host.box.read(f"/proc/{host.agent_pid()}/io").decode().splitlines()
    (written,) = (line for line in counts if line.startswith("write_bytes: "))
    return written


async def _looked_at(device: Pi) -> set[str]:
    """Have everything looked at now: the Scores that were."""
    async with device.reconcile() as looks:
        return {each.score async for each in looks}


async def test_where_nothing_changes_nothing_is_written_to_disk(
    device: Pi, pi: Box, host: Host, image: str
) -> None:
    """A database that is written to at idle wore out a memory card in half a year (k3s-io/k3s#11313)."""
    scores: Scores = {
        "note": FileScore(path="/srv/note", content="note\n"),
        "sleeper": sleeper(),
        "box": box(image),
    }
    await device.put_and_wait(scores)
    # Asked once before: of what is loaded for the first question, the kernel notes that it was read.
    await _looked_at(device)
    await heard_again(device)
    before = _written_by_the_agent(host)
    assert before != "write_bytes: 0", "nothing is counted here"
    pi.run(["touch", "/run/since"])
    assert await _looked_at(device) == set(scores)
    await heard_again(device)
    assert _written_by_the_agent(host) == before
    newer = ("find", "/etc", "/srv", "/var/lib/harmony", "-newer", "/run/since")
    assert pi.text(*newer) == ""


async def test_a_secret_that_is_missing_empties_no_file(device: Pi, pi: Box, host: Host) -> None:
    """Files were emptied while the data that they are rendered from was missing (saltstack/salt#30600)."""
    pi.write("/etc/harmony/secrets/token", "s3cret\n", mode=0o600)
    await device.push(FileScore(path="/srv/token", secret="token"), id="token")
    before = host.file("/srv/token")
    pi.run(["rm", "/etc/harmony/secrets/token"])
    pi.run(["systemctl", "restart", AGENT])
    await until(device, lambda state: code_of(state, "token") == "SecretMissing")
    await device.push(FileScore(path="/srv/note", content="note\n"), id="note")
    assert host.file("/srv/token") == before
    assert pi.read("/srv/token") == b"s3cret\n"


OLD_UNIT = "[Service]\nExecStart=/usr/bin/sleep 4711\n[Install]\nWantedBy=multi-user.target\n"
OLD_UNIT_FILE = "/etc/systemd/system/old.service"


async def test_a_score_that_goes_gives_back_what_stood_there_before(device: Pi, pi: Box) -> None:
    """Whoever takes a state out of the description has to know, and to write, what undoes it
    (saltstack/salt#3819, saltstack/salt#1972)."""
    pi.write("/etc/old", "old\n")
    pi.run(["sh", "-c", "chmod 640 /etc/old && chown nobody:nogroup /etc/old"])
    pi.write(OLD_UNIT_FILE, OLD_UNIT, mode=0o640)
    pi.run(["systemctl", "daemon-reload"])
    files = ("/etc/old", OLD_UNIT_FILE)
    before = {path: (pi.text("stat", "-c", "%a %U %G", path), pi.read(path)) for path in files}
    await device.put_and_wait(
        {"file": FileScore(path="/etc/old", content="new\n"), "unit": sleeper("old")}
    )
    assert pi.read("/etc/old") == b"new\n"
    assert pi.text("systemctl", "is-enabled", "old.service") == "enabled"
    pi.run(["systemctl", "restart", AGENT])
    await device.remove("file", "unit")
    after = {path: (pi.text("stat", "-c", "%a %U %G", path), pi.read(path)) for path in files}
    assert after == before
    unit = Host(pi).unit("old.service", "ActiveState", "UnitFileState")
    assert unit == {"ActiveState": "inactive", "UnitFileState": "disabled"}
    pi.run(["rm", *files])


async def test_a_bad_version_goes_back_to_the_good_one_and_says_why(
    device: Pi, host: Host, image: str
) -> None:
    """An update that does not start is kept, or taken back without a reason
    (home-assistant/supervisor#4590)."""
    await device.push(box(image), id="box")
    bad = box(image, command=("sh", "-c", "echo cannot open the database; exit 3"))
    back = Entry(bad, policy=ScorePolicy(on_failure="rollback", deadline_s=5))
    await device.put({"box": back})
    state = await until(device, lambda state: "effective again" in _error(state, "box"))
    assert code_of(state, "box") == "RolledBack"
    assert "cannot open the database" in _error(state, "box")
    running = host.container("box")
    assert running is not None
    assert running["State"]["Status"] == "running"
    assert running["Config"]["Cmd"] == list(in_shell(SERVE))
