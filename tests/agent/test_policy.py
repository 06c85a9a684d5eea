"""What a device does not allow, whoever signed it."""

from __future__ import annotations

import pytest

from harmony_agent.config import JobPolicy
from harmony_agent.policy import DevicePolicy
from harmony_core.resources import Bridge, Ethernet, Job, Link, NetworkProfile, Vlan, Wifi

POLICY = DevicePolicy("/etc/harmony")


@pytest.mark.parametrize("interface", ["lo", "podman0", "veth3", "cni-podman0", "docker0"])
@pytest.mark.parametrize("link", [Ethernet, Bridge])
def test_interfaces_of_the_system_and_its_containers_are_refused(
    link: type[Ethernet | Bridge], interface: str
) -> None:
    profile = NetworkProfile(name="office", link=link(interface=interface))
    refusal = POLICY.refusal(profile)
    assert refusal is not None
    assert interface in refusal


@pytest.mark.parametrize(
    "link",
    [
        Ethernet(interface="eth0"),
        Vlan(interface="eth0.7", parent="eth0", id=7),
        Bridge(interface="br0"),
        Wifi(ssid="home"),
        Wifi(ssid="home", interface="wlan0"),
    ],
)
def test_others_may_be_configured(link: Link) -> None:
    assert POLICY.refusal(NetworkProfile(name="office", link=link)) is None


@pytest.mark.parametrize(
    ("allowed", "privileged", "refused"),
    [
        ("none", False, True),
        ("none", True, True),
        ("confined", False, False),
        ("confined", True, True),
        ("any", False, False),
        ("any", True, False),
    ],
)
def test_jobs_are_run_only_where_the_device_says_so(
    allowed: JobPolicy, privileged: bool, refused: bool
) -> None:
    job = Job(name="it", command=("/bin/true",), privileged=privileged)
    assert (DevicePolicy(jobs=allowed).refusal(job) is not None) is refused
    assert DevicePolicy().refusal(job) is not None
