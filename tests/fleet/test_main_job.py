"""The main job on a real Pi: a Score travels from the control plane and comes back as an Outcome."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

import attrs
import pytest

from harmony_control.device import Device
from harmony_control.push.entries import Entry
from harmony_core import HttpProbe, PublishedPort
from harmony_core.outcome import Failure, Noop, Running, Success
from harmony_core.score import Score
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore, FileScore, SystemdServiceScore, WebAppScore
from tests.box import Bed, Box
from tests.fleet.ground import SERVE, Host, in_shell, pushed, statuses
from tests.topology.slow_link import SlowLink

Pi: TypeAlias = Device[PiTopology]

SLEEP = ("sleep", "1000")


@attrs.frozen
class Case:
    """A Score, and everything that it makes."""

    score: Score[PiTopology]
    files: Sequence[str] = ()
    units: Sequence[str] = ()
    containers: Sequence[str] = ()


@pytest.fixture(scope="module")
def image(bed: Bed) -> str:
    return bed.registry.push_busybox("web", "1", command=in_shell(SERVE))


def the_case(kind: str, image: str) -> Case:
    match kind:
        case "FileScore":
            score = FileScore(path="/etc/motd.d/hello", content="hello\n", mode=0o640)
            return Case(score, files=["/etc/motd.d/hello"])
        case "SystemdServiceScore":
            unit = "sleeper.service"
            return Case(
                SystemdServiceScore(name=unit, exec_start=("/usr/bin/sleep", "infinity")),
                files=[f"/etc/systemd/system/{unit}"],
                units=[unit],
            )
        case "ContainerScore":
            ports = (PublishedPort(host=8081, container=80),)
            ready = HttpProbe(port=8081)
            return Case(
                ContainerScore(name="box", image=image, ports=ports, ready=ready),
                containers=["box"],
            )
        case _:
            return Case(
                WebAppScore(
                    name="web", image=image, config="x = 1\n", config_path="/etc/web.conf", port=80
                ),
                files=["/etc/harmony-apps/web/web.conf"],
                containers=["web"],
            )


@pytest.mark.parametrize(
    "kind", ["FileScore", "SystemdServiceScore", "ContainerScore", "WebAppScore"]
)
async def test_pushed_twice_it_is_success_then_noop_and_removed_it_is_gone(
    kind: str, device: Pi, host: Host, image: str
) -> None:
    """What leaves the description stays on the machine elsewhere (saltstack/salt#1972, wasmCloud/wadm#145),
    and changes are told where there are none (pyinfra-dev/pyinfra#731)."""
    case = the_case(kind, image)
    empty = host.everything()
    assert isinstance(await device.push(case.score, id="it"), Success)
    made = host.identities(files=case.files, units=case.units, containers=case.containers)
    assert None not in made.values()
    assert host.containers() == sorted(case.containers)

    assert isinstance(await device.push(case.score, id="it"), Noop)
    again = host.identities(files=case.files, units=case.units, containers=case.containers)
    assert again == made

    await device.remove("it")
    assert not any(map(host.file, case.files))
    assert all(host.unit(name)["ActiveState"] == "inactive" for name in case.units)
    assert _names(host.everything()) == _names(empty)


def _names(everything: Collection[str]) -> set[str]:
    return {line.split()[0] for line in everything}


async def test_a_web_application_is_running_until_it_answers(device: Pi, image: str) -> None:
    """That something runs does not mean that it is well (eclipse-ankaios/ankaios#109)."""
    slow = web_app(image, command=in_shell("sleep 3", SERVE))
    state, on_the_way = await pushed(device, {"web": slow})
    assert isinstance(state.scores["web"].outcome, Success)
    seen = [page.outcome for each in on_the_way for page in each.scores.values()]
    assert "NotReady" in [outcome.reason for outcome in seen]
    assert [outcome.status for outcome in seen[:-1]] == ["RUNNING"] * (len(seen) - 1)


async def test_a_web_application_that_never_answers_fails_with_its_last_lines(
    device: Pi, host: Host, image: str
) -> None:
    mute = in_shell("echo cannot open the database", "sleep 1000")
    outcome = await device.push(web_app(image, command=mute, within_s=3), id="web")
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NotReadyInTime"
    assert outcome.error.message.endswith("cannot open the database")
    assert outcome.error.resource == "container:web"
    assert host.containers() == ["web"]


async def test_a_large_image_is_seen_arriving_byte_by_byte(device: Pi, pi: Box, bed: Bed) -> None:
    large = bed.registry.push_busybox("large", "1", ballast_bytes=12_000_000)
    async with SlowLink(bed.registry.host, bytes_per_s=4_000_000) as link:
        link.make_known_to(pi, bed.registry.ca)
        image = large.replace(bed.registry.host, link.host)
        score = ContainerScore(name="box", image=image, command=SLEEP, stop_timeout_s=0)
        state, on_the_way = await pushed(device, {"box": score})
    assert isinstance(state.scores["box"].outcome, Success)
    outcomes = [each.scores["box"].outcome for each in on_the_way if "box" in each.scores]
    seen = [each for each in outcomes if isinstance(each, Running) and each.progress]
    counts = [each.progress for each in seen if each.progress]
    assert {each.reason for each in seen} == {"Progressing"}
    assert {each.unit for each in counts} == {"bytes"}
    assert any(0 < each.done < (each.total or 0) > 12_000_000 for each in counts)
    assert sorted(each.done for each in counts) == [each.done for each in counts]


async def test_what_comes_after_another_begins_when_that_has_converged(
    device: Pi, host: Host, image: str
) -> None:
    """Who counts what runs, and not what is ready, goes on too early (open-horizon/anax#3577)."""
    slow = in_shell("sleep 2", SERVE)
    third = FileScore(path="/srv/third", content="3")
    state, on_the_way = await pushed(
        device,
        {
            "third": Entry(third, after=["second"]),
            "second": Entry(FileScore(path="/srv/second", content="2"), after=["first"]),
            "first": web_app(image, command=slow),
        },
    )
    assert set(statuses(state).values()) == {"SUCCESS"}
    for each in map(statuses, on_the_way):
        order = [each.get(name) for name in ("first", "second", "third")]
        assert order == sorted(order, key=lambda status: status != "SUCCESS")
    second, last = host.file("/srv/second"), host.file("/srv/third")
    assert second is not None
    assert last is not None
    assert second[1] <= last[1]


async def test_what_waits_for_a_failure_is_blocked_and_the_rest_goes_on(
    device: Pi, host: Host
) -> None:
    broken = SystemdServiceScore(name="broken.service", exec_start=("/bin/false",), restart="no")
    state = await device.put_and_wait(
        {
            "broken": broken,
            "follower": Entry(FileScore(path="/srv/follower", content=""), after=["broken"]),
            "other": FileScore(path="/srv/other", content=""),
        }
    )
    assert statuses(state) == {"broken": "FAILURE", "follower": "RUNNING", "other": "SUCCESS"}
    assert state.scores["follower"].outcome.reason == "Blocked"
    assert host.file("/srv/follower") is None


def web_app(image: str, *, command: tuple[str, ...], within_s: float = 60) -> WebAppScore:
    return WebAppScore(
        name="web",
        image=image,
        config="x = 1\n",
        config_path="/etc/web.conf",
        port=80,
        published_port=8080,
        command=command,
        within_s=within_s,
    )
