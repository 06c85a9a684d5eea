"""Profiles as NetworkManager writes them and as they are compared say the same."""

from __future__ import annotations

import sys
from base64 import b64decode, b64encode
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_core.resources import (
    Bond,
    Bridge,
    Enterprise,
    Ethernet,
    Ipv4,
    Ipv4Route,
    Ipv6,
    Link,
    NetworkProfile,
    SecretRef,
    Vlan,
    Wifi,
    Wireguard,
    WireguardPeer,
)
from harmony_pi_topology.network.desired import SecretContent, resolve_desired
from harmony_pi_topology.network.nm_settings import (
    from_bytes,
    label_of,
    merge,
    read_known,
    read_secrets,
    to_bytes,
)
from harmony_pi_topology.network.settings import DEFAULTS, PSK, Setting
from harmony_pi_topology.network.wireguard import (
    make_private_key,
    peers_in,
    preshared_key_of,
    write_peers,
)

ONE, OTHER = (b64encode(bytes([number]) * 32).decode() for number in (1, 2))
LINKS: st.SearchStrategy[Link] = st.sampled_from(
    [
        Ethernet(interface="eth0", mtu=1400),
        Ethernet(interface="eth0"),
        Vlan(interface="eth0.7", parent="eth0", id=7),
        Bridge(interface="br0", stp=False),
        Bond(interface="bond0", primary="eth0"),
        Bond(interface="bond0", mode="802.3ad", lacp_rate="fast", xmit_hash_policy="layer3+4"),
        Ethernet(mac="d8:3a:dd:01:02:03"),
        Wifi(ssid="Büro 📶", hidden=True),
        Wireguard(
            interface="wg0",
            listen_port=51820,
            mtu=1420,
            peers=(
                WireguardPeer(
                    public_key=ONE,
                    endpoint="[2001:DB8::1]:51820",
                    allowed_ips=("fd08::/64", "10.8.0.0/24"),
                    persistent_keepalive_s=25,
                ),
                WireguardPeer(public_key=OTHER, allowed_ips=("0.0.0.0/0", "::/0")),
            ),
        ),
        Wifi(
            ssid="office",
            security="wpa-eap",
            enterprise=Enterprise(
                eap="tls",
                identity="pi-7",
                ca_certificate="/etc/ssl/Büro.pem",
                client_certificate="/etc/ssl/pi.pem",
                private_key="/etc/ssl/pi.key",
            ),
        ),
        Wifi(ssid="kiosk", mode="ap", interface="wlan0", security="none", band="5GHz", channel=36),
        Wifi(ssid="home", mac="d8:3a:dd:01:02:03", powersave=True),
    ]
)


def _interface(address: IPv4Address | IPv6Address) -> str:
    return f"{address}/{24 if address.version == 4 else 64}"


ADDRESSES4 = st.ip_addresses(v=4).map(str)
IPV4 = st.builds(
    Ipv4,
    method=st.just("manual"),
    addresses=st.lists(st.ip_addresses(v=4).map(_interface), min_size=1, max_size=3).map(tuple),
    gateway=st.none() | ADDRESSES4,
    routes=st.none()
    | st.lists(
        st.builds(
            Ipv4Route,
            to=st.just("10.0.0.0/8"),
            via=st.none() | ADDRESSES4,
            metric=st.none() | st.integers(0, 2**32 - 1),
        ),
        max_size=3,
    ).map(tuple),
    dns=st.none() | st.lists(ADDRESSES4, max_size=3).map(tuple),
    dns_search=st.none() | st.just(("example.org",)),
    ignore_auto_dns=st.none() | st.booleans(),
    metric=st.none() | st.integers(0, 2**32 - 1),
)
IPV6 = st.builds(
    Ipv6,
    method=st.just("manual"),
    addresses=st.lists(st.ip_addresses(v=6).map(_interface), min_size=1, max_size=3).map(tuple),
    dns=st.none() | st.lists(st.ip_addresses(v=6).map(str), max_size=3).map(tuple),
)
PROFILES = st.builds(
    NetworkProfile,
    name=st.just("office"),
    link=LINKS,
    ipv4=st.none() | IPV4,
    ipv6=st.none() | IPV6,
    autoconnect=st.booleans(),
    priority=st.integers(-999, 999),
)
STRANGE: dict[str, Any] = {
    "connection": {"zone": ("s", "home"), "master": ("s", "br7"), "controller": ("s", "br7")},
    "ipv4": {"dhcp-hostname": ("s", "kiosk"), "addresses": ("aau", [[1, 24, 0]])},
    "proxy": {},
    "802-11-wireless-security": {"key-mgmt": ("s", "wpa-psk"), "psk": ("s", "correct horse")},
    "802-1x": {"ca-cert": ("ay", b"\x00\x01")},
}


@given(PROFILES)
def test_what_is_written_is_read_again(profile: NetworkProfile) -> None:
    wish = resolve_desired(profile, {})
    raw = merge({}, wish.settings, {}, name="office", uuid="u")
    found = read_known(raw)
    for name, value in wish.settings.items():
        assert found.get(name, DEFAULTS[name]) == value, name
    assert label_of(raw) == "network:office"
    assert raw["connection"]["uuid"] == ("s", "u")


@given(PROFILES)
def test_what_is_not_known_stays(profile: NetworkProfile) -> None:
    raw = merge(STRANGE, resolve_desired(profile, {}).settings, {})
    assert raw["connection"]["zone"] == ("s", "home")
    assert raw["ipv4"]["dhcp-hostname"] == ("s", "kiosk")
    login = profile.link.enterprise if isinstance(profile.link, Wifi) else None
    assert login is not None or raw["802-1x"] == STRANGE["802-1x"]


@given(PROFILES)
def test_a_profile_that_was_kept_comes_back_to_the_byte(profile: NetworkProfile) -> None:
    raw = merge(STRANGE, resolve_desired(profile, {}).settings, {PSK: "another horse"})
    assert from_bytes(to_bytes(raw)) == raw


def test_older_ways_of_saying_the_same_do_not_stay_beside_what_is_written() -> None:
    settings: dict[str, Setting] = {
        "connection.controller": "",
        "ipv4.addresses": ("10.0.0.2/24",),
        "ipv4.dns": (),
    }
    raw = merge(STRANGE, settings, {})
    assert not raw["connection"].keys() & {"master", "controller"}
    assert raw["ipv4"].keys() == {"dhcp-hostname", "address-data"}


@pytest.mark.parametrize("kind", ["bridge", "bond"])
def test_a_port_has_no_addresses(kind: str) -> None:
    link = Ethernet.model_validate({"interface": "eth0", kind: "br0"})
    profile = NetworkProfile(name="port", link=link)
    raw = merge(STRANGE, resolve_desired(profile, {}).settings, {})
    assert "ipv4" not in raw
    assert raw["connection"]["master"] == ("s", "br0")
    assert raw["connection"]["slave-type"] == ("s", kind)


def test_a_password_is_set_and_stays_unless_another_is_given() -> None:
    psk = SecretRef.model_validate({"secret": "password"})
    profile = NetworkProfile(name="home", link=Wifi(ssid="home", psk=psk))
    wish = resolve_desired(profile, {PSK: SecretContent(content=b"battery staple\n", mark="1")})
    assert wish.secrets == {PSK: "battery staple"}
    assert read_secrets(merge({}, wish.settings, wish.secrets)) == {PSK: "battery staple"}
    assert read_secrets(merge(STRANGE, wish.settings, {})) == {PSK: "correct horse"}
    assert "staple" not in repr(wish)
    opened = resolve_desired(NetworkProfile(name="home", link=Wifi(ssid="home")), {})
    assert read_secrets(merge(STRANGE, opened.settings, {})) == {}


def test_name_servers_of_both_ways_of_writing_are_read() -> None:
    packed = IPv4Address("10.0.0.1").packed
    number = int.from_bytes(packed, sys.byteorder)
    assert read_known({"ipv4": {"dns": ("au", [number])}})["ipv4.dns"] == ("10.0.0.1",)
    raw: Any = {"ipv4": {"dns": ("au", [number]), "dns-data": ("as", ["10.0.0.1"])}}
    assert read_known(raw)["ipv4.dns"] == ("10.0.0.1",)


def test_what_networkmanager_writes_in_another_way_is_the_same_peer() -> None:
    """It keeps hosts and the order as they were given, and the kernel looks at neither."""
    peer = {
        "public-key": ("s", ONE),
        "endpoint": ("s", "[2001:DB8:0::1]:51820"),
        "allowed-ips": ("as", ["fd08:0::/64", "10.8.0.5/24"]),
        "persistent-keepalive": ("u", 0),
    }
    told = f"{ONE} endpoint=[2001:db8::1]:51820 allowed-ips=10.8.0.0/24,fd08::/64"
    assert peers_in([peer]) == (told,)
    other = f"{OTHER} allowed-ips=::/0"
    assert peers_in([*write_peers([told, other])]) == peers_in([*write_peers([other, told])])


def test_the_preshared_key_of_a_peer_stays_or_changes_or_goes() -> None:
    peers = ("wireguard.peers", (f"{ONE} allowed-ips=10.8.0.0/24", f"{OTHER} allowed-ips=::/0"))
    settings: dict[str, Setting] = dict([peers])
    one, other = preshared_key_of(ONE), preshared_key_of(OTHER)
    raw = merge({}, settings, {one: "1", other: "2"})
    assert read_secrets(merge(raw, settings, {})) == {one: "1", other: "2"}
    assert read_secrets(merge(raw, settings, {one: None, other: "3"})) == {other: "3"}
    assert read_secrets(merge(raw, {}, {other: "4"})) == {one: "1", other: "4"}
    alone: dict[str, Setting] = {"wireguard.peers": (f"{ONE} allowed-ips=10.8.0.0/24",)}
    assert read_secrets(merge(raw, alone, {other: "5"})) == {one: "1"}
    assert read_secrets(from_bytes(to_bytes(raw))) == {one: "1", other: "2"}


def test_keys_are_made_as_wg_makes_them() -> None:
    keys = {make_private_key() for _ in range(100)}
    assert len(keys) == 100
    for each in keys:
        content = b64decode(each)
        assert len(content) == 32
        assert content[0] & 7 == 0
        assert content[31] >> 6 == 1


@pytest.mark.parametrize(
    ("link", "spec"),
    [
        (Ethernet(interface="eth0", mtu=1400), "c695f331dd73f25a5d11fb0a5ea54b4a"),
        (Vlan(interface="eth0.7", parent="eth0", id=7), "ed35bf6f9ec05dfc8c92a5a9c2f09659"),
        (Bridge(interface="br0"), "9927a6cb8e5eb4ba1a64a98a65016ed3"),
        (
            Wifi(ssid="home", psk=SecretRef(secret="x"), interface="wlan0"),
            "a11949f40a0d959c64bb552581bb40b1",
        ),
        (Wifi(ssid="open"), "294456d23f7e0dd3e6750040cd1f0e0c"),
    ],
    ids=["ethernet", "vlan", "bridge", "wifi", "open wifi"],
)
def test_what_an_agent_from_before_has_confirmed_is_confirmed_still(link: Link, spec: str) -> None:
    """Else every device would put its network on trial once more when its agent is updated."""
    ipv4 = Ipv4(method="manual", addresses=("10.0.0.2/24",), gateway="10.0.0.1")
    profile = NetworkProfile(name="x", link=link, ipv4=ipv4)
    assert resolve_desired(profile, {}).spec.startswith(spec)
