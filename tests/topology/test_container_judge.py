"""Whether a container stays up and serves, judged by podman's times, whatever the clocks do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import pytest

from harmony_core.errors import ContainerFailed, NotReadyInTime
from harmony_core.resources import Container, PublishedPort, TcpProbe
from harmony_core.resources import HealthCheck as Check
from harmony_pi_topology.containers.health import HealthCheck
from harmony_pi_topology.containers.podman import Podman
from harmony_pi_topology.containers.podman_reply import FoundCheck, FoundContainer

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
NEVER = datetime(1, 1, 1, tzinfo=UTC)
YEAR_S = 365 * 86_400.0

WEB = Container(name="web", image="registry.test/web:1", settle_s=2.0)
FOUND = FoundContainer(
    id="1",
    name="web",
    labels={},
    status="running",
    started_at=STARTED,
    finished_at=NEVER,
    exit_code=0,
    restarts=0,
    image="registry.test/web:1",
    stop_timeout_s=0,
    stopped_by_user=False,
)


class Clocks:
    """A wall clock and one that only goes forward; the log is asked of a podman that is not there."""

    def __init__(self) -> None:
        self.wall = STARTED
        self.monotonic_s = 1000.0
        self.podman = _NoLog("unix:///nowhere")
        self.judge = HealthCheck(
            self.podman,
            now=lambda: self.wall,
            monotonic_s=lambda: self.monotonic_s,
        )

    def pass_time(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """The wall clock is set."""
        self.wall += timedelta(seconds=seconds)


class _NoLog(Podman):
    """A podman that is asked for nothing but the log, and for an end."""

    ended: str = ""

    async def log_tail(self, container_id: str, *, lines: int) -> bytes:
        return b"its last words\n"

    async def ask_to_end(self, container_id: str, *, signal: str) -> None:
        self.ended += f"{signal} to {container_id}"

    async def kill(self, container_id: str) -> None:
        self.ended += f"killed {container_id}"


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


async def test_it_settles_when_its_time_has_passed_since_its_start(clocks: Clocks) -> None:
    clocks.pass_time(0.5)
    pending = await clocks.judge.evaluate(FOUND, WEB)
    assert pending is not None
    assert pending.look_again_s == pytest.approx(1.5)
    clocks.pass_time(1.5)
    assert await clocks.judge.evaluate(FOUND, WEB) is None


async def test_one_that_was_up_before_the_agent_has_settled_at_first_sight(clocks: Clocks) -> None:
    clocks.jump(3.0)
    assert await clocks.judge.evaluate(FOUND, WEB) is None


@pytest.mark.parametrize("seconds", [-YEAR_S, -10.0, -80 * YEAR_S])
async def test_a_clock_that_is_set_back_costs_one_settling_at_most(
    clocks: Clocks, seconds: float
) -> None:
    clocks.jump(seconds)
    pending = await clocks.judge.evaluate(FOUND, WEB)
    assert pending is not None
    assert 0 < pending.look_again_s <= WEB.settle_s
    clocks.pass_time(pending.look_again_s)
    assert await clocks.judge.evaluate(FOUND, WEB) is None


async def test_a_clock_that_is_set_forward_makes_nobody_older(clocks: Clocks) -> None:
    assert await clocks.judge.evaluate(FOUND, WEB) is not None
    clocks.jump(YEAR_S)
    assert await clocks.judge.evaluate(FOUND, WEB) is not None
    clocks.pass_time(2.0)
    assert await clocks.judge.evaluate(FOUND, WEB) is None


async def test_nobody_is_older_than_the_time_since_boot(clocks: Clocks) -> None:
    """A device without a clock boots, starts a container, and learns what year it is: all within seconds."""
    clocks.monotonic_s = 10.0
    ready = TcpProbe(port=9, within_s=60.0)
    wish = WEB.model_copy(update={"ready": ready})
    clocks.jump(YEAR_S)
    assert await clocks.judge.evaluate(FOUND, wish) is not None, "not NotReadyInTime"


async def test_a_restart_begins_the_settling_anew(clocks: Clocks) -> None:
    clocks.pass_time(3.0)
    assert await clocks.judge.evaluate(FOUND, WEB) is None
    again = attrs.evolve(FOUND, started_at=clocks.wall, restarts=1)
    assert await clocks.judge.evaluate(again, WEB) is not None
    clocks.pass_time(2.0)
    assert await clocks.judge.evaluate(again, WEB) is None


async def test_a_restart_before_it_had_settled_is_a_failure(clocks: Clocks) -> None:
    await clocks.judge.evaluate(FOUND, WEB)
    clocks.pass_time(1.0)
    again = attrs.evolve(FOUND, started_at=clocks.wall, restarts=4)
    with pytest.raises(ContainerFailed, match="restarted 4 times; its last lines:\nits last words"):
        await clocks.judge.evaluate(again, WEB)
    assert clocks.podman.ended == "SIGTERM to 1"


def ended(after_s: float, *, by_hand: bool = False) -> FoundContainer:
    return attrs.evolve(
        FOUND,
        status="exited",
        finished_at=STARTED + timedelta(seconds=after_s),
        exit_code=3,
        stopped_by_user=by_hand,
    )


async def test_an_early_end_is_told_once_and_then_started_again(clocks: Clocks) -> None:
    found = ended(0.5)
    assert clocks.judge.has_just_failed(found, WEB)
    with pytest.raises(ContainerFailed, match=r"exited with code 3 0\.5 s after its start"):
        await clocks.judge.evaluate(found, WEB)
    assert not clocks.judge.has_just_failed(found, WEB)
    assert clocks.podman.ended == "killed 1"


@pytest.mark.parametrize("found", [FOUND, ended(0.5)], ids=["runs", "has ended"])
async def test_what_podman_does_not_restart_need_not_be_kept_from_it(
    clocks: Clocks, found: FoundContainer
) -> None:
    wish = WEB.model_copy(update={"restart": "no"})
    await clocks.judge.evaluate(FOUND, wish)
    with pytest.raises(ContainerFailed):
        await clocks.judge.evaluate(attrs.evolve(found, started_at=clocks.wall, restarts=1), wish)
    assert clocks.podman.ended == ""


@pytest.mark.parametrize(
    "found",
    [
        ended(5.0),
        ended(0.5, by_hand=True),
        ended(-YEAR_S),
        attrs.evolve(ended(0.5), status="created"),
    ],
    ids=["late", "by somebody's hand", "before its start", "never started"],
)
def test_any_other_end_is_started_again_at_once(clocks: Clocks, found: FoundContainer) -> None:
    assert not clocks.judge.has_just_failed(found, WEB)


async def test_what_does_not_serve_is_not_ready_and_then_too_late(clocks: Clocks) -> None:
    ready = TcpProbe(port=1, within_s=10, every_s=3)
    wish = WEB.model_copy(update={"ready": ready})
    clocks.pass_time(4.0)
    pending = await clocks.judge.evaluate(FOUND, wish)
    assert pending is not None
    assert pending.look_again_s == 3
    assert "nothing listens on 127.0.0.1:1" in pending.message
    assert clocks.judge.health(FOUND, "web") == "starting"
    clocks.pass_time(6.0)
    with pytest.raises(NotReadyInTime, match=r"(?s)within 10 s.*its last words"):
        await clocks.judge.evaluate(FOUND, wish)
    assert clocks.judge.health(FOUND, "web") == "unhealthy"


async def test_a_health_check_that_hangs_is_no_health_whatever_the_wall_clock_does(
    clocks: Clocks,
) -> None:
    wish = WEB.model_copy(update={"healthcheck": Check(command=("true",))})
    check = FoundCheck(
        status="healthy",
        said="",
        ended_at="2026-01-01T00:00:30Z",
        interval_s=30,
        due_within_s=180,
        fails_within_s=180,
    )
    found = attrs.evolve(FOUND, check=check)
    clocks.pass_time(60.0)
    assert await clocks.judge.evaluate(found, wish) is None
    clocks.jump(YEAR_S)
    clocks.pass_time(200.0)
    assert await clocks.judge.evaluate(found, wish) is None
    clocks.pass_time(20.0)
    assert clocks.judge.health(found, "web") == "unhealthy"
    with pytest.raises(NotReadyInTime, match=r"(?s)180 s none of its health checks.*last words"):
        await clocks.judge.evaluate(found, wish)
    again = attrs.evolve(found, check=attrs.evolve(check, ended_at="2026-01-01T00:05:00Z"))
    assert await clocks.judge.evaluate(again, wish) is None
    assert clocks.judge.health(again, "web") == "healthy"


async def test_a_port_published_on_one_address_is_probed_there(clocks: Clocks) -> None:
    port = PublishedPort(host=1, container=80, address="127.0.0.9")
    wish = WEB.model_copy(update={"ready": TcpProbe(port=1), "ports": (port,)})
    clocks.pass_time(4.0)
    pending = await clocks.judge.evaluate(FOUND, wish)
    assert pending is not None
    assert "127.0.0.9:1" in pending.message


async def test_a_port_published_on_several_addresses_is_probed_on_each(clocks: Clocks) -> None:
    listening = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    number = listening.sockets[0].getsockname()[1]
    ports = (
        PublishedPort(host=number, container=80, address="127.0.0.1"),
        PublishedPort(host=number, container=80, address="127.0.0.9"),
    )
    wish = WEB.model_copy(update={"ready": TcpProbe(port=number), "ports": ports[:1]})
    clocks.pass_time(4.0)
    assert await clocks.judge.evaluate(FOUND, wish) is None
    pending = await clocks.judge.evaluate(FOUND, wish.model_copy(update={"ports": ports}))
    assert pending is not None
    assert f"127.0.0.9:{number}" in pending.message
    listening.close()


async def test_what_is_published_on_all_ipv6_addresses_is_probed_at_the_container_s_own(
    clocks: Clocks,
) -> None:
    port = PublishedPort(host=8080, container=1, address="::")
    wish = WEB.model_copy(update={"ready": TcpProbe(port=8080), "ports": (port,)})
    clocks.pass_time(4.0)
    pending = await clocks.judge.evaluate(attrs.evolve(FOUND, ipv6="::ffff:127.0.0.7"), wish)
    assert pending is not None
    assert "[::ffff:127.0.0.7]:1" in pending.message


async def test_a_udp_port_of_that_number_is_not_what_is_probed(clocks: Clocks) -> None:
    port = PublishedPort(host=1, container=80, address="127.0.0.9", protocol="udp")
    wish = WEB.model_copy(update={"ready": TcpProbe(port=1), "ports": (port,)})
    clocks.pass_time(4.0)
    pending = await clocks.judge.evaluate(FOUND, wish)
    assert pending is not None
    assert "127.0.0.1:1" in pending.message


async def test_what_a_probe_said_of_another_start_counts_no_more(clocks: Clocks) -> None:
    clocks.pass_time(4.0)
    await clocks.judge.evaluate(FOUND, WEB.model_copy(update={"ready": TcpProbe(port=1)}))
    assert clocks.judge.health(FOUND, "web") == "starting"
    assert clocks.judge.health(attrs.evolve(FOUND, id="2"), "web") == "unprobed"
    clocks.judge.forget("web")
    assert clocks.judge.health(FOUND, "web") == "unprobed"


def test_nothing_of_podman_s_library_is_imported_before_it_is_needed(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; import harmony_pi_topology.containers.reconciler as c; c.PodmanContainers();"
        "print({'podman', 'requests', 'urllib3'} & set(sys.modules))"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert printed.stdout == b"set()\n"
