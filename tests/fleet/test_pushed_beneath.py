"""What was pushed is waited for with everything that stands on it: a service that it breaks is exit 1."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from tests.box import Box
from tests.fleet.ground import ControlPlane, Said

CONF = "/etc/svc.conf"
GOOD, BAD = "a=good\n", "a=bad\n"
READS = f"grep -q bad {CONF} && exit 1; sleep infinity"


def conf(content: str, id: str = "conf") -> Mapping[str, object]:
    return {"id": id, "kind": "FileScore", "spec": {"path": CONF, "content": content}}


def service(id: str = "svc", after: Sequence[str] = ("conf",)) -> Mapping[str, object]:
    command = ["/bin/sh", "-c", READS]
    spec = {"name": f"{id}.service", "exec_start": command, "uses": [CONF], "settle_s": 0.5}
    return {"id": id, "kind": "SystemdServiceScore", "spec": spec, "after": list(after)}


async def push(plane: ControlPlane, pi: Box, *entries: Mapping[str, object]) -> Said:
    return await plane.harmony("push-score", pi.name, "-", stdin=json.dumps(entries))


@pytest.mark.parametrize("after", [("conf",), ()], ids=["after", "uses alone"])
async def test_a_service_that_a_new_file_breaks_is_told_by_the_push_and_by_the_way_back(
    after: Sequence[str], plane: ControlPlane, device: Device[PiTopology], pi: Box
) -> None:
    # Without `after`, the service may be started before its file is there: first one, then the other.
    assert (await push(plane, pi, conf(GOOD))).status == 0
    said = await push(plane, pi, service(after=after))
    assert said.status == 0, said

    said = await push(plane, pi, conf(BAD))
    assert said.status == 1, said
    assert "svc" in said.out
    assert "UnitFailed" in said.out

    said = await push(plane, pi, conf(GOOD))
    assert said.status == 0, said
    assert pi.text("systemctl", "is-active", "svc.service").strip() == "active"

    said = await plane.harmony("rollback", pi.name, "--to", "3", "--yes")
    assert said.status == 1, said
    assert "UnitFailed" in said.out


async def test_what_a_removal_leaves_without_its_file_is_looked_at_too(
    plane: ControlPlane, device: Device[PiTopology], pi: Box
) -> None:
    needs = {
        "id": "needs",
        "kind": "SystemdServiceScore",
        "spec": {
            "name": "needs.service",
            "exec_start": ["/bin/sh", "-c", f"test -e {CONF} || exit 1; sleep infinity"],
            "uses": [CONF],
            "settle_s": 0.5,
        },
    }
    assert (await push(plane, pi, conf(GOOD))).status == 0
    assert (await push(plane, pi, needs)).status == 0
    said = await plane.harmony("remove-score", pi.name, "conf")
    assert said.status == 1, said
    assert "needs" in said.out
