"""LinkScore: what it takes, and what a device lets it do."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core.resources import SymbolicLink
from harmony_core.testing import FakePi, interpret_twice
from harmony_scores import LinkScore


async def test_it_is_made_once() -> None:
    pi = FakePi()
    first, second = await interpret_twice(LinkScore(path="/srv/now", target="data"), pi.offers)
    assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert pi.links.readlink("/srv/now") == "data"


@pytest.mark.parametrize("target", ["", "a\0b", "a\nb", "\ud800", "x" * 4096, "a\u202eb"])
def test_a_target_that_is_no_path_is_refused(target: str) -> None:
    with pytest.raises(ValidationError):
        LinkScore(path="/srv/now", target=target)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/etc/systemd/system/web.service", "SystemdServiceScore"),
        ("/etc/systemd/system/multi-user.target.wants/web.service", "SystemdServiceScore"),
        ("/run/systemd/system/web.service", "SystemdServiceScore"),
        ("/dev/camera", "the system's"),
        ("/proc/x", "the system's"),
        ("/boot/firmware/config.txt", "the system's"),
        ("/etc/passwd", "who may do what"),
        ("/usr/bin/python", "Debian's packages"),
        ("/etc/NetworkManager/x", "of the network"),
        ("/etc/cron.d/x", "run a program as root"),
        ("/var/lib/harmony/agent.db", "the agent itself"),
        ("/var/lib", "the agent itself"),
        ("/srv", "came with the system"),
    ],
)
def test_where_a_file_may_not_be_no_link_may_be_either(path: str, why: str) -> None:
    policy = DevicePolicy("/var/lib/harmony", rules=PolicyTable(preset="open", jobs="none"))
    assert why in (policy.refusal(SymbolicLink(path=path, target="/srv/x")) or "")


def test_elsewhere_it_may_be_and_in_an_appliance_where_it_is_listed() -> None:
    link = SymbolicLink(path="/srv/now", target="data")
    assert DevicePolicy("/var/lib/harmony").refusal(link) is None
    closed = PolicyTable(preset="appliance")
    assert "paths" in (DevicePolicy(rules=closed).refusal(link) or "")
    listed = PolicyTable(preset="appliance", paths=("/srv",))
    assert DevicePolicy(rules=listed).refusal(link) is None
