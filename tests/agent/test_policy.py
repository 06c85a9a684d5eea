"""What a device does not allow, whoever signed it."""

from __future__ import annotations

import pytest

from harmony_agent.policy import DevicePolicy
from harmony_core.resources import Bridge, Ethernet, Link, NetworkProfile, Vlan, Wifi

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
