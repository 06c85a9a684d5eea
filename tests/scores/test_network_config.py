"""NetworkConfigScore: what a person writes, and what becomes of it."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from nacl.public import PrivateKey
from pydantic import ValidationError

from harmony_core import Failure, Noop, Success
from harmony_core.resources import (
    Bond,
    Bridge,
    Connected,
    Enterprise,
    Ethernet,
    Ipv4,
    Ipv4Route,
    Ipv6,
    NetworkProfile,
    SecretRef,
    Vlan,
    Wifi,
    Wireguard,
    WireguardPeer,
    first_problem,
)
from harmony_core.testing import FakePi, interpret_once, interpret_twice
from harmony_scores import NetworkConfigScore

FULL = NetworkConfigScore(
    name="office",
    link=Ethernet(interface="eth0", mtu=1400),
    ipv4=Ipv4(
        method="manual",
        addresses=("192.168.7.20/24", "192.168.8.20/24"),
        gateway="192.168.7.1",
        routes=(Ipv4Route(to="10.0.0.0/8", via="192.168.7.2", metric=50),),
        dns=("192.168.7.1",),
        dns_search=("example.org",),
        metric=10,
    ),
    ipv6=Ipv6(method="manual", addresses=("2001:db8::7/64",)),
    autoconnect=False,
    priority=10,
    confirm_within_s=30,
)
IN_THE_TUNNEL = Ipv4(method="manual", addresses=("10.8.0.2/24",))
ONE, OTHER = (b64encode(bytes([number]) * 32).decode() for number in (1, 2))
TUNNEL = Wireguard(
    interface="wg0",
    listen_port=51820,
    peers=(
        WireguardPeer(
            public_key=ONE,
            endpoint="vpn.example.org:51820",
            allowed_ips=("10.8.0.0/24", "fd08::/64"),
            persistent_keepalive_s=25,
        ),
        WireguardPeer(public_key=OTHER, allowed_ips=("0.0.0.0/0",)),
    ),
)
PASSWORD = SecretRef.model_validate({"secret": "password"})
ACCESS_POINT = Wifi(
    mode="ap", ssid="kiosk", psk=PASSWORD, interface="wlan0", band="5GHz", channel=36, hidden=True
)


def public_key_of(private: str) -> str:
    """Return it as another implementation makes it."""
    return b64encode(bytes(PrivateKey(b64decode(private)).public_key)).decode()


@pytest.mark.parametrize(
    "score",
    [
        NetworkConfigScore(name="office", link=Ethernet(interface="eth0")),
        FULL,
        NetworkConfigScore(name="seven", link=Vlan(interface="eth0.7", parent="eth0", id=7)),
        NetworkConfigScore(name="bridge", link=Bridge(interface="br0")),
        NetworkConfigScore(name="bond", link=Bond(interface="bond0", primary="eth0")),
        NetworkConfigScore(name="cable", link=Ethernet(interface="eth0", bond="bond0")),
        NetworkConfigScore(name="port", link=Ethernet(interface="eth0", bridge="br0")),
        NetworkConfigScore(
            name="mac", link=Ethernet(mac="02:00:00:00:00:00"), ipv4=Ipv4(ignore_auto_dns=True)
        ),
        NetworkConfigScore(name="home", link=Wifi(ssid="home", psk=PASSWORD, hidden=True)),
        NetworkConfigScore(name="awake", link=Wifi(ssid="home", powersave=False)),
        NetworkConfigScore(
            name="ap",
            link=ACCESS_POINT,
            ipv4=Ipv4(method="shared", addresses=("10.42.0.1/24",)),
        ),
        NetworkConfigScore(
            name="office",
            link=Wifi(
                ssid="office",
                security="wpa-eap",
                enterprise=Enterprise(
                    eap="ttls",
                    identity="pi-7",
                    anonymous_identity="anonymous",
                    password=PASSWORD,
                    phase2="pap",
                    ca_certificate="/etc/ssl/office.pem",
                    domain_suffix_match="radius.example.org",
                ),
            ),
        ),
        NetworkConfigScore(name="vpn", link=TUNNEL, ipv4=IN_THE_TUNNEL),
        NetworkConfigScore(name="open", link=Wifi(ssid="Freifunk", interface="wlan0")),
    ],
    ids=[
        "least",
        "full",
        "vlan",
        "bridge",
        "bond",
        "cable",
        "port",
        "mac",
        "wifi",
        "awake",
        "ap",
        "enterprise",
        "wireguard",
        "open wifi",
    ],
)
async def test_interpreted_twice_it_is_success_then_noop(score: NetworkConfigScore) -> None:
    pi = FakePi()
    pi.network.put_secret("password", b"correct horse\n")
    first, second = await interpret_twice(score, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()


async def test_a_change_that_cuts_the_device_off_is_a_failure_that_says_so() -> None:
    pi = FakePi()
    await interpret_once(FULL, pi.offers)
    pi.network.silent_after_changes = True
    bad = FULL.model_copy(update={"ipv4": Ipv4(method="manual", addresses=("10.1.2.3/24",))})
    outcome = (await interpret_once(bad, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NetworkRolledBack"
    assert await pi.network.addresses("eth0") == {
        "192.168.7.20/24",
        "192.168.8.20/24",
        "2001:db8::7/64",
    }


async def test_an_access_point_is_brought_up_unless_it_is_only_to_be_kept() -> None:
    pi = FakePi()
    pi.network.put_secret("password", b"correct horse")
    score = NetworkConfigScore(name="ap", link=ACCESS_POINT, state="kept")
    await interpret_once(score, pi.offers)
    assert await pi.network.in_use("wlan0") is None
    assert await pi.network.read("ap", "connection.autoconnect") == ("no",)
    await interpret_once(score.model_copy(update={"state": None}), pi.offers)
    assert await pi.network.in_use("wlan0") == "ap"


async def test_an_access_point_on_the_radio_by_which_the_device_is_reached_is_taken_back() -> None:
    pi = FakePi()
    pi.network.put_secret("password", b"correct horse")
    await pi.network.make_strange("home", "wlan0", "192.168.7.20/24")
    pi.network.silent_after_changes = True
    outcome = (
        await interpret_once(NetworkConfigScore(name="ap", link=ACCESS_POINT), pi.offers)
    ).outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NetworkRolledBack"
    assert await pi.network.in_use("wlan0") == "home"
    assert await pi.network.profiles() == {"home"}


async def test_sharing_needs_dnsmasq_on_the_device_and_says_so() -> None:
    pi = FakePi()
    pi.network.lacks = {
        *("/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq"),
        *("/usr/bin/dnsmasq", "/usr/local/bin/dnsmasq"),
    }
    score = NetworkConfigScore(
        name="ap", link=Ethernet(interface="eth0"), ipv4=Ipv4(method="shared")
    )
    outcome = (await interpret_once(score, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert "apt-get install dnsmasq-base" in outcome.error.message
    assert await pi.network.profiles() == set()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("addresses", ["fe80::1%eth0/64"]),
        ("dns", ["fe80::1%eth0"]),
        ("routes", [{"to": "fd00::%x/64"}]),
        ("routes", [{"to": "fd00::/64", "via": "fe80::1%x y"}]),
    ],
)
def test_an_address_that_names_its_interface_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=r"%.* write the address alone"):
        Ipv6.model_validate({field: value})


async def test_a_network_that_is_in_use_and_gives_nobody_an_address_is_a_failure() -> None:
    pi = FakePi()
    score = NetworkConfigScore(
        name="ap",
        link=Ethernet(interface="eth0"),
        ipv4=Ipv4(method="shared", addresses=("10.42.0.1/24",)),
    )
    assert isinstance((await interpret_once(score, pi.offers)).outcome, Success)
    pi.network.gives_none = {"eth0"}
    outcome = (await interpret_once(score, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert "gives nobody on eth0 an address" in outcome.error.message
    pi.network.gives_none = set()
    assert isinstance((await interpret_once(score, pi.offers)).outcome, Noop)


async def test_a_certificate_that_is_not_on_the_device_is_told_by_its_path() -> None:
    pi = FakePi()
    pi.network.put_secret("password", b"correct horse")
    pi.network.lacks = {"/etc/ssl/office.pem"}
    score = NetworkConfigScore.model_validate({"name": "office", "link": EAP})
    outcome = (await interpret_once(score, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert "/etc/ssl/office.pem" in outcome.error.message
    assert await pi.network.profiles() == set()


async def test_a_certificate_that_is_none_is_told_before_anything_is_written() -> None:
    pi = FakePi()
    pi.network.put_secret("password", b"correct horse")
    pi.network.broken = {"/etc/ssl/office.pem"}
    score = NetworkConfigScore.model_validate({"name": "office", "link": EAP})
    outcome = (await interpret_once(score, pi.offers)).outcome
    assert isinstance(outcome, Failure)
    assert "office: /etc/ssl/office.pem is broken" in outcome.error.message
    assert await pi.network.profiles() == set()


async def test_the_key_that_a_device_makes_is_told_by_its_public_half_alone() -> None:
    pi = FakePi()
    score = NetworkConfigScore(name="vpn", link=TUNNEL, ipv4=IN_THE_TUNNEL)
    planned = await interpret_once(score, pi.offers, apply=False)
    assert pi.network.own_secrets() == {}
    first = await interpret_once(score, pi.offers)
    (content,) = pi.network.own_secrets().values()
    private = content.decode().strip()
    state = await pi.network.observe("vpn")
    assert isinstance(state, Connected)
    assert state.public_key == public_key_of(private)
    assert private not in f"{planned}{first}{state}"
    await pi.network.delete("vpn")
    again = await interpret_once(score, pi.offers)
    assert isinstance(again.outcome, Success)
    assert await pi.network.observe("vpn") == state, "others know its public key"
    await pi.network.remove(["vpn"], apply=True)
    assert pi.network.own_secrets() == {}


async def test_a_key_that_is_on_the_device_is_used_and_stays() -> None:
    pi = FakePi()
    private = b64encode(bytes(range(32))).decode()
    pi.network.put_secret("vpn.key", f"{private}\n".encode())
    link = TUNNEL.model_copy(update={"private_key": SecretRef(secret="vpn.key")})
    score = NetworkConfigScore(name="vpn", link=link, ipv4=IN_THE_TUNNEL)
    first, second = await interpret_twice(score, pi.offers)
    assert isinstance(first, Success)
    assert second == Noop()
    state = await pi.network.observe("vpn")
    assert isinstance(state, Connected)
    assert state.public_key == public_key_of(private)
    assert pi.network.own_secrets() == {}
    await pi.network.remove(["vpn"], apply=True)
    assert isinstance((await interpret_once(score, pi.offers)).outcome, Success), (
        "it is still there"
    )


@pytest.mark.parametrize("content", [b"", b"correct horse", b64encode(bytes(31)), b"\xff" * 44])
async def test_a_secret_that_is_no_key_is_told_by_its_field(content: bytes) -> None:
    pi = FakePi()
    pi.network.put_secret("vpn.key", content)
    key = SecretRef(secret="vpn.key")
    for link, field in (
        (TUNNEL.model_copy(update={"private_key": key}), "link.private_key"),
        (
            Wireguard(
                interface="wg0",
                peers=(
                    WireguardPeer(public_key=ONE, allowed_ips=("10.8.0.0/24",), preshared_key=key),
                ),
            ),
            "link.peers.preshared_key",
        ),
    ):
        score = NetworkConfigScore(name="vpn", link=link)
        outcome = (await interpret_once(score, pi.offers)).outcome
        assert isinstance(outcome, Failure)
        assert field in outcome.error.message
        assert await pi.network.profiles() == set()


async def test_a_dry_run_says_what_would_happen_and_does_nothing() -> None:
    pi = FakePi()
    verdict = await interpret_once(FULL, pi.offers, apply=False)
    assert isinstance(verdict.outcome, Success)
    assert await pi.network.profiles() == set()


def test_json_there_and_back_is_the_same_score() -> None:
    assert NetworkConfigScore.model_validate(FULL.model_dump(mode="json")) == FULL
    assert NetworkConfigScore.model_validate_json(FULL.model_dump_json()) == FULL


def test_it_has_every_field_of_a_profile() -> None:
    assert set(NetworkConfigScore.model_fields) == set(NetworkProfile.model_fields)


def test_addresses_are_written_in_one_way() -> None:
    ipv6 = Ipv6(method="manual", addresses=("2001:DB8:0:0::0007/64",), dns=("2001:db8::0:1",))
    assert ipv6.addresses == ("2001:db8::7/64",)
    assert ipv6.dns == ("2001:db8::1",)
    assert Ethernet(mac="d8:3a:dd:01:02:03").mac == "D8:3A:DD:01:02:03"


AP = {
    "type": "wifi",
    "mode": "ap",
    "ssid": "x",
    "interface": "wlan0",
    "psk": {"secret": "password"},
}
LOGIN = {
    "eap": "peap",
    "identity": "pi-7",
    "password": {"secret": "password"},
    "ca_certificate": "/etc/ssl/office.pem",
}
BY_EAP = {"security": "wpa-eap", "enterprise": LOGIN}
EAP = {"type": "wifi", "ssid": "office", **BY_EAP}
BOND = {"type": "bond", "interface": "bond0"}
PEER: dict[str, object] = {"public_key": ONE, "allowed_ips": ["10.8.0.0/24"]}
TUNNEL_LINK: dict[str, object] = {"type": "wireguard", "interface": "wg0"}
BAD_TUNNELS: tuple[tuple[dict[str, object], str], ...] = (
    ({"interface": None}, ".interface"),
    ({"listen_port": 0}, ".listen_port"),
    ({"listen_port": 65_536}, ".listen_port"),
    ({"private_key": ONE}, ".private_key"),
    ({"peers": [PEER, PEER]}, ": peers"),
    ({"peers": [PEER, PEER | {"public_key": OTHER}]}, ": peers"),
    ({"peers": [PEER | {"public_key": ONE[:-1]}]}, ".peers.0.public_key"),
    ({"peers": [PEER | {"public_key": "x" * 44}]}, ".peers.0.public_key"),
    ({"peers": [PEER | {"public_key": f"{ONE}\n"}]}, ".peers.0.public_key"),
    (
        {"peers": [PEER | {"public_key": b64encode(bytes(33)).decode()}]},
        ".peers.0.public_key",
    ),
    ({"peers": [PEER | {"preshared_key": ONE}]}, ".peers.0.preshared_key"),
    ({"peers": [PEER | {"allowed_ips": []}]}, ".peers.0.allowed_ips"),
    ({"peers": [PEER | {"allowed_ips": ["10.8.0.2"]}]}, ".peers.0.allowed_ips.0"),
    ({"peers": [PEER | {"allowed_ips": ["10.8.0.2/24"]}]}, ".peers.0.allowed_ips.0"),
    ({"peers": [PEER | {"allowed_ips": ["all"]}]}, ".peers.0.allowed_ips.0"),
    ({"peers": [PEER | {"allowed_ips": ["fe80::%x/64"]}]}, ".peers.0.allowed_ips.0"),
    (
        {"peers": [PEER | {"persistent_keepalive_s": 65_536}]},
        ".peers.0.persistent_keepalive_s",
    ),
)
BAD_ENDPOINTS = (
    *("vpn.example.org", "vpn.example.org:", "vpn.example.org:65536"),
    *("2001:db8::1:51820", "[2001:db8::1]", "[vpn]:1", ":51820", "a b:1"),
    *("vpn.example.org:1 allowed-ips=0.0.0.0/0", "vpn.example.org:\u0661"),
    *("[fe80::1%wg0]:51820", "[fe80::1%x persistent-keepalive=5]:51820"),
)
SHARED = {"method": "shared", "addresses": ["10.42.0.1/24"]}
ADDRESS = {"method": "manual", "addresses": ["192.168.7.20/24"]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": "a/b"}, "name: "),
        ({"name": " office"}, "name: "),
        ({"name": ""}, "name: "),
        ({"link": {"type": "ethernet", "interface": "eth 0"}}, "link.ethernet.interface: "),
        ({"link": {"type": "ethernet", "interface": "a" * 16}}, "link.ethernet.interface: "),
        ({"link": {"type": "ethernet"}}, "link.ethernet: interface: "),
        (
            {"link": {"type": "ethernet", "interface": "eth0", "mac": "02:00:00:00:00:00"}},
            "link.ethernet: mac: ",
        ),
        ({"link": {"type": "ethernet", "mac": "02:00:00:00:00"}}, "link.ethernet.mac: "),
        ({"link": {"type": "wifi", "ssid": "x", "mac": "02-00-00-00-00-00"}}, "link.wifi.mac: "),
        ({"link": {"type": "wifi", "ssid": "x", "powersave": "2"}}, "link.wifi.powersave: "),
        ({"link": AP | {"psk": None}}, "link.wifi: psk: "),
        ({"link": AP | {"security": "none"}}, "link.wifi: psk: "),
        ({"link": AP | {"interface": None}}, "link.wifi: interface: "),
        ({"link": AP | {"channel": 6}}, "link.wifi: channel: "),
        ({"link": AP | {"band": "5GHz", "channel": 6}}, "link.wifi: channel: "),
        ({"link": AP | {"band": "2.4GHz", "channel": 15}}, "link.wifi: channel: "),
        ({"link": AP | {"band": "6GHz"}}, "link.wifi.band: "),
        ({"link": AP | {"mode": "mesh"}}, "link.wifi.mode: "),
        ({"link": AP | {"psk": None, **BY_EAP}}, "link.wifi: security: "),
        ({"link": EAP | {"psk": {"secret": "x"}}}, "link.wifi: psk: "),
        ({"link": EAP | {"enterprise": None}}, "link.wifi: enterprise: "),
        ({"link": EAP | {"security": "sae"}}, "link.wifi: enterprise: "),
        *(
            ({"link": EAP | {"enterprise": LOGIN | given}}, f"link.wifi.enterprise{field}: ")
            for given, field in (
                ({"identity": None}, ".identity"),
                ({"identity": ""}, ".identity"),
                ({"identity": "pi\n7"}, ".identity"),
                ({"eap": "leap"}, ".eap"),
                ({"password": None}, ": password"),
                ({"password": "horse"}, ".password"),
                ({"ca_certificate": None}, ": ca_certificate"),
                ({"ca_certificate": "office.pem"}, ".ca_certificate"),
                ({"allow_any_server": True}, ": ca_certificate"),
                (
                    {
                        "allow_any_server": True,
                        "ca_certificate": None,
                        "domain_suffix_match": "example.org",
                    },
                    ": domain_suffix_match",
                ),
                ({"domain_suffix_match": "a b"}, ".domain_suffix_match"),
                ({"private_key": "/etc/key.pem"}, ": private_key"),
                ({"private_key_password": {"secret": "x"}}, ": private_key_password"),
                ({"phase2": "pap"}, ": phase2"),
                ({"eap": "tls"}, ": client_certificate"),
                ({"eap": "tls", "client_certificate": "/c.pem"}, ": private_key"),
                (
                    {"eap": "tls", "client_certificate": "/c.pem", "private_key": "/k.pem"},
                    ": password",
                ),
            )
        ),
        ({"ipv4": SHARED | {"gateway": "10.42.0.2"}}, "ipv4: gateway: "),
        ({"ipv4": SHARED | {"dns": ["10.42.0.2"]}}, "ipv4: dns: "),
        ({"ipv4": SHARED | {"dns_search": ["example.org"]}}, "ipv4: dns_search: "),
        ({"ipv4": SHARED | {"addresses": ["10.1.0.1/24", "10.2.0.1/24"]}}, "ipv4: addresses: "),
        (
            {"link": {"type": "ethernet", "interface": "eth0", "bond": "bond0"}, "ipv6": {}},
            "ipv4, ipv6: ",
        ),
        (
            {"link": {"type": "ethernet", "interface": "eth0", "bond": "b0", "bridge": "br0"}},
            "link.ethernet: bond: ",
        ),
        ({"link": BOND | {"interface": None}}, "link.bond.interface: "),
        ({"link": BOND | {"mode": "1"}}, "link.bond.mode: "),
        ({"link": BOND | {"miimon_ms": 0}}, "link.bond.miimon_ms: "),
        ({"link": BOND | {"mode": "802.3ad", "primary": "eth0"}}, "link.bond: primary: "),
        ({"link": BOND | {"lacp_rate": "fast"}}, "link.bond: lacp_rate: "),
        ({"link": BOND | {"xmit_hash_policy": "layer2"}}, "link.bond: xmit_hash_policy: "),
        *(
            ({"link": {**TUNNEL_LINK, **given}}, f"link.wireguard{field}: ")
            for given, field in BAD_TUNNELS
        ),
        *(
            (
                {"link": {**TUNNEL_LINK, "peers": [{**PEER, "endpoint": endpoint}]}},
                "link.wireguard.peers.0.endpoint: ",
            )
            for endpoint in BAD_ENDPOINTS
        ),
        ({"link": {"type": "wireguard", "interface": "wg0"}, "ipv4": {}}, "ipv4: method: "),
        ({"link": TUNNEL_LINK, "ipv4": {"method": "link-local"}}, "ipv4: method: "),
        (
            {"link": {"type": "wireguard", "interface": "wg0"}, "ipv6": {"method": "shared"}},
            "ipv6: method: ",
        ),
        ({"link": {"type": "token-ring", "interface": "tr0"}}, "link: "),
        ({"link": {"interface": "eth0"}}, "link: "),
        ({"link": {"type": "vlan", "interface": "v", "parent": "e", "id": 4095}}, "link.vlan.id: "),
        ({"link": {"type": "wifi", "ssid": "ü" * 17}}, "link.wifi: ssid: "),
        ({"link": {"type": "wifi", "ssid": "x", "psk": "secret"}}, "link.wifi.psk: "),
        ({"ipv4": {"method": "manual"}}, "ipv4: addresses: "),
        ({"ipv4": {**ADDRESS, "method": "disabled"}}, "ipv4: addresses: "),
        ({"ipv4": {"gateway": "192.168.7.1"}}, "ipv4: gateway: "),
        ({"ipv4": {**ADDRESS, "gateway": "192.168.7.1/24"}}, "ipv4.gateway: "),
        (
            {"ipv4": {**ADDRESS, "gateway": "192.168.7.1", "default_route": False}},
            "ipv4: gateway: ",
        ),
        ({"ipv4": {"method": "manual", "addresses": ["192.168.7.20"]}}, "ipv4.addresses.0: "),
        ({"ipv4": {"method": "manual", "addresses": ["2001:db8::7/64"]}}, "ipv4.addresses.0: "),
        ({"ipv6": {"method": "manual", "addresses": ["10.0.0.1/8"]}}, "ipv6.addresses.0: "),
        ({"ipv4": {"routes": [{"to": "10.0.0.1/8"}]}}, "ipv4.routes.0.to: "),
        ({"ipv4": {"dns": ["one"]}}, "ipv4.dns.0: "),
        ({"ipv4": {"dns_search": ["a b"]}}, "ipv4.dns_search.0: "),
        ({"priority": 1000}, "priority: "),
        ({"confirm_within_s": 1}, "confirm_within_s: "),
        ({"state": "down"}, "state: "),
        ({"link": {"type": "wifi", "ssid": "x"}, "state": "up"}, "state: "),
        (
            {"link": {"type": "ethernet", "interface": "eth0", "bridge": "br0"}, "ipv4": {}},
            "ipv4, ipv6: ",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_by_its_field(fields: dict[str, object], field: str) -> None:
    least = {"name": "office", "link": {"type": "ethernet", "interface": "eth0"}}
    with pytest.raises(ValidationError) as caught:
        NetworkConfigScore.model_validate({**least, **fields})
    assert first_problem(caught.value).startswith(field)


def test_an_editor_is_told_what_every_field_is_for() -> None:
    properties = NetworkConfigScore.model_json_schema()["properties"]
    assert all(field.get("description") for field in properties.values())
