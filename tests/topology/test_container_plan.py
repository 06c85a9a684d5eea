"""What is to be done about a container, from what was found of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from harmony_core.resources import Container, PublishedPort
from harmony_core.steps import Created, KeptVolume, Recreated, Removed, Started, Stopped
from harmony_pi_topology.containers.plan import plan_removal, plan_steps
from harmony_pi_topology.containers.podman_reply import FoundContainer
from harmony_pi_topology.containers.spec import resolve_desired
from harmony_pi_topology.containers.volumes import volume_name

WEB = resolve_desired(Container(name="web", image="registry.test/web:1"), {})
FOUND = FoundContainer(
    id="1",
    name="web",
    labels=WEB.labels,
    status="running",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    finished_at=datetime(1, 1, 1, tzinfo=UTC),
    exit_code=0,
    restarts=0,
    image="registry.test/web:1",
    stop_timeout_s=0,
    stopped_by_user=False,
    ipv6="fd00::2",
    volumes={"/data": volume_name("web", "/data"), "/cache": "0" * 64, "/named": "web-data"},
)


def test_what_is_not_there_is_created_and_started() -> None:
    assert plan_steps(WEB, None, ()).in_order == (Created(), Started())


def test_what_runs_as_it_should_is_left_alone() -> None:
    assert not plan_steps(WEB, FOUND, ())
    assert plan_steps(WEB, FOUND, ()).in_order == ()


@pytest.mark.parametrize("status", ["created", "exited", "stopped", "paused"])
def test_what_does_not_run_is_started_unless_its_failure_is_yet_to_be_told(status: str) -> None:
    found = attrs.evolve(FOUND, status=status)
    assert plan_steps(WEB, found, ()).only_starts
    assert not plan_steps(WEB, found, (), has_just_failed=True)


@pytest.mark.parametrize(
    ("found", "starts"),
    [
        ({}, False),
        ({"exit_code": 1}, True),
        ({"stopped_by_user": True}, True),
        # The device lost its power while it ran: podman says 0, and of no end after the start.
        ({"finished_at": datetime(1, 1, 1, tzinfo=UTC)}, True),
    ],
    ids=["ended well", "failed", "stopped by somebody", "cut short with the device"],
)
def test_what_runs_once_is_started_again_unless_it_has_ended_well(
    found: dict[str, Any], starts: bool
) -> None:
    once = WEB.container.model_copy(update={"runs": "once", "restart": "no"})
    job = resolve_desired(once, {})
    ended = attrs.evolve(FOUND, labels=job.labels, status="exited", finished_at=FOUND.started_at)
    assert bool(plan_steps(job, attrs.evolve(ended, **found), ())) is starts


def test_what_has_a_mount_that_was_replaced_is_made_anew_for_that() -> None:
    first, *_ = plan_steps(WEB, FOUND, {"/srv/web.conf"}).in_order
    assert first == Recreated(fields={"/srv/web.conf"})


def test_only_what_has_lost_its_network_is_made_anew_for_that() -> None:
    port = PublishedPort(host=80, container=80, address="::")
    on_ipv6 = resolve_desired(WEB.container.model_copy(update={"ports": (port,)}), {})
    found = attrs.evolve(FOUND, labels=on_ipv6.labels)
    assert not plan_steps(on_ipv6, found, ())
    assert plan_steps(on_ipv6, attrs.evolve(found, ipv6=""), ()).changed == {"networks"}
    assert plan_steps(WEB, attrs.evolve(FOUND, is_cut_off=True), ()).changed == {"networks"}


def test_a_removal_that_was_cut_short_is_said_to_be_the_reason() -> None:
    steps = plan_steps(WEB, attrs.evolve(FOUND, status="removing"), ()).in_order
    assert steps == (Recreated(is_removal_cut_short=True), Started())


def test_removing_tells_what_stays() -> None:
    assert plan_removal(None) == ()
    assert plan_removal(FOUND) == (
        Stopped(),
        Removed(),
        KeptVolume(name="0" * 64, target="/cache"),
        KeptVolume(name=volume_name("web", "/data"), target="/data"),
    ), "what has a name of its own is its own Score's to tell"
