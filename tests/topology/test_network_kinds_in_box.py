"""Kinds of network that no machine of tests has, such as access points, on a real NetworkManager.

That such a profile is accepted, kept with exactly what was wished for, changed, and taken away; and what is
told where the device cannot bring it up. An Ethernet network that is shared is up in truth.
"""

from __future__ import annotations

import asyncio
import stat
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any, get_args

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from nacl.public import PrivateKey

from harmony_core.errors import NetworkFailed
from harmony_core.resources import (
    Bond,
    Bridge,
    Connected,
    Disconnected,
    Enterprise,
    Ethernet,
    Ipv4,
    Ipv6,
    Ipv6Route,
    NetworkProfile,
    SecretRef,
    Wifi,
    Wireguard,
    WireguardPeer,
)
from harmony_core.resources.network_link import CHANNELS, BondMode
from harmony_core.secret_values import secret_word
from harmony_pi_topology.testing.network_contract import NetworkConfiguratorContract
from harmony_pi_topology.testing.network_under_test import NetworkUnderTest
from tests.box import Bed, Box
from tests.topology.box_network import NetworksOfABox, cabled, find_other_end, networks_of
from tests.topology.dhcp import ask_for_an_address

WIRE = NetworkConfiguratorContract.WIRE
GOOD = NetworkConfiguratorContract.GOOD
SECRET = "correct horse"
ONE, OTHER = (b64encode(bytes([number]) * 32).decode() for number in (1, 2))


@pytest.fixture(scope="module")
def wired(pi: Box, bed: Bed) -> Box:
    """A Pi with a second cable."""
    cabled(pi, bed.name)
    return pi


@pytest.fixture
async def networks(wired: Box, bed: Bed, tmp_path: Path) -> AsyncGenerator[NetworksOfABox]:
    async with networks_of(wired, bed.name, tmp_path) as networks:
        networks.bystander.put_secret("password", f"{SECRET}\n".encode())
        yield networks


@pytest.fixture
def host(networks: NetworksOfABox) -> NetworkUnderTest:
    return networks.under_test()


def profile(link: Any, **fields: Any) -> NetworkProfile:
    return NetworkProfile.model_validate(
        {"name": "new", "link": link, "confirm_within_s": 5, **fields}
    )


_SECTION_OF_SECRET = {
    "802-11-wireless-security.psk": "wifi-security",
    "802-1x.password": "802-1x",
    "802-1x.private-key-password": "802-1x",
    "wireguard.private-key": "wireguard",
}
"""Of a profile's file. Not by nmcli, which may print a secret as empty: it asks for secrets, and drops them
when a change that it hears of meanwhile makes it ask for the rest anew."""


async def read_all(networks: NetworksOfABox, *settings: str) -> list[str]:
    """Return what is on disk of the profile `new`, by NetworkManager's own words, secrets too."""
    assert await networks.bystander.is_on_disk("new")
    file = ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    file.read_string(await read_file(networks))
    return [
        file.get(_SECTION_OF_SECRET[setting], setting.partition(".")[2], fallback="")
        if setting in _SECTION_OF_SECRET
        else await networks.bystander.nmcli(
            "--escape", "no", "-g", setting, "connection", "show", "new"
        )
        for setting in settings
    ]


async def stays_as_it_is(host: NetworkUnderTest, desired: NetworkProfile) -> None:
    """Neither this agent nor one that starts again finds anything to do."""
    for network in (host.network, host.reopen()):
        (change,) = await network.converge([desired], apply=True)
        assert not isinstance(change, Exception)
        assert change.actions == ()
        assert change.pending is None


def make_login_files(box: Box, password: str | None = None) -> None:
    """Make a CA, a certificate of it, and the key of that, which *password* locks."""
    authority = trustme.CA()
    issued = authority.issue_cert("pi-7.example.org")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    box.write(CA, authority.cert_pem.bytes().decode())
    box.write(CERTIFICATE, issued.cert_chain_pems[0].bytes().decode())
    box.write(KEY, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked).decode())


def access_point(**fields: Any) -> Wifi:
    given = {"ssid": "Büro", "mode": "ap", "interface": "wlan0", "psk": {"secret": "password"}}
    return Wifi.model_validate({**given, **fields})


CA = "/etc/ssl/harmony-office.pem"
CERTIFICATE, KEY = "/etc/ssl/harmony-pi.pem", "/etc/ssl/harmony-pi.key"


def by_login(**fields: Any) -> NetworkProfile:
    given = {"identity": "pi-7", "ca_certificate": CA, **fields}
    return profile(
        Wifi(ssid="office", security="wpa-eap", enterprise=Enterprise.model_validate(given))
    )


HOSTILE = [
    r" cor;rect=ho\nrse\; #\x41é ",
    r"\\server\s\t\r\n\0",
    "[ipv4]",
    "#no;comment=",
    "'\"$(reboot)`",
    "100 % of %s",
    "a" * 4096,
]
"""Passwords with what has a meaning in the files of profiles."""
END_DNSMASQ = "pkill -KILL -x dnsmasq; while pgrep -x -r R,S,D dnsmasq; do sleep 0.05; done"
SHARED = Ipv4(method="shared", addresses=("10.42.0.1/24",))


async def test_an_access_point_is_kept_as_it_was_wished_for_changed_and_taken_away(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    link = access_point(band="2.4GHz", channel=6, hidden=True)
    desired = profile(link, ipv4=SHARED, state="kept")
    planned = await host.plan_one(desired)
    change = await host.apply_one(desired)
    assert change.actions == ("created",)
    assert SECRET not in f"{planned}{change}"
    wifi, security = "802-11-wireless", "802-11-wireless-security"
    assert await read_all(
        networks,
        f"{wifi}.ssid",
        f"{wifi}.mode",
        f"{wifi}.band",
        f"{wifi}.channel",
        f"{wifi}.hidden",
        f"{security}.key-mgmt",
        f"{security}.proto",
        f"{security}.pairwise",
        f"{security}.group",
        "ipv4.method",
        "ipv4.addresses",
        "connection.interface-name",
        "connection.autoconnect",  # nothing has shown that the device is reached beside it
    ) == [
        *("Büro", "ap", "bg", "6", "yes", "wpa-psk", "rsn", "ccmp", "ccmp"),
        *("shared", "10.42.0.1/24", "wlan0", "no"),
    ]
    assert await read_all(networks, f"{security}.psk") == [SECRET]
    await stays_as_it_is(host, desired)
    faster = profile(access_point(band="5GHz", channel=36), ipv4=SHARED, state="kept")
    assert (await host.apply_one(faster)).actions == (
        "changed 802-11-wireless.hidden, 802-11-wireless.band, 802-11-wireless.channel",
    )
    await stays_as_it_is(host, faster)
    opened = profile(access_point(psk=None, security="none"), ipv4=SHARED, state="kept")
    await host.apply_one(opened)
    assert await read_all(networks, f"{security}.key-mgmt", f"{wifi}.channel") == ["", "0"]
    await stays_as_it_is(host, opened)
    assert (await host.remove_one("new")).actions == ("removed",)
    assert await networks.bystander.profiles() == {"start"}


async def test_a_network_of_others_becomes_an_access_point_and_one_of_others_again(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    client = profile(Wifi(ssid="Büro", psk=SecretRef(secret="password")))
    await host.apply_one(client)
    await host.apply_one(profile(access_point(), state="kept"))
    assert await read_all(networks, "802-11-wireless.mode", "connection.autoconnect") == [
        "ap",
        "no",
    ]
    await host.apply_one(client)
    assert await read_all(
        networks,
        "802-11-wireless.mode",
        "802-11-wireless-security.proto",
        "connection.interface-name",
        "connection.autoconnect",
    ) == ["", "", "", "yes"]
    await stays_as_it_is(host, client)


async def test_an_access_point_without_a_radio_is_a_failure_and_nothing_is_touched(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    identity = await networks.bystander.identity("start")
    error = await host.expect_failure(profile(access_point(), ipv4=SHARED))
    assert isinstance(error, NetworkFailed)
    assert "no network interface wlan0" in error.message
    assert await networks.bystander.profiles() == {"start"}
    assert await networks.bystander.identity("start") == identity


async def test_a_login_by_a_password_is_kept_changed_to_one_by_a_certificate_and_taken_away(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    make_login_files(networks.bystander.box, "battery staple")
    password = {"secret": "password"}
    by_password = by_login(
        eap="peap",
        password=password,
        anonymous_identity="anonymous",
        domain_suffix_match="radius.example.org",
    )
    planned = await host.plan_one(by_password)
    change = await host.apply_one(by_password)
    assert change.actions == ("created",)
    assert SECRET not in f"{planned}{change}"
    key_management = "802-11-wireless-security.key-mgmt"
    login = (
        *("802-1x.eap", "802-1x.identity", "802-1x.anonymous-identity", "802-1x.ca-cert"),
        *("802-1x.domain-suffix-match", "802-1x.phase2-auth", "802-1x.client-cert"),
        *("802-1x.private-key", "802-1x.password"),
    )
    assert await read_all(networks, key_management, *login) == [
        *("wpa-eap", "peap", "pi-7", "anonymous", CA),
        *("radius.example.org", "mschapv2", "", "", SECRET),
    ]
    await stays_as_it_is(host, by_password)
    networks.bystander.put_secret("password", b"battery staple")
    assert (await host.apply_one(by_password)).actions == ("changed 802-1x.password",)
    await stays_as_it_is(host, by_password)
    by_certificate = by_login(
        eap="tls",
        client_certificate=CERTIFICATE,
        private_key=KEY,
        private_key_password=password,
    )
    await host.apply_one(by_certificate)
    assert await read_all(networks, key_management, *login) == [
        *("wpa-eap", "tls", "pi-7", "", CA, "", ""),
        *(CERTIFICATE, KEY, ""),
    ]
    assert await read_all(networks, "802-1x.private-key-password") == ["battery staple"]
    await stays_as_it_is(host, by_certificate)
    make_login_files(networks.bystander.box)
    unlocked = by_login(eap="tls", client_certificate=CERTIFICATE, private_key=KEY)
    await host.apply_one(unlocked)
    await stays_as_it_is(host, unlocked)
    networks.bystander.put_secret("password", SECRET.encode())
    alone = profile(Wifi(ssid="office", psk=SecretRef(secret="password")))
    await host.apply_one(alone)
    assert await read_all(networks, key_management, *login[:2]) == ["wpa-psk", "", ""]
    await stays_as_it_is(host, alone)
    assert (await host.remove_one("new")).actions == ("removed",)
    assert await networks.bystander.profiles() == {"start"}


async def test_secrets_of_the_fleet_are_kept_whatever_they_mean_in_the_files_of_profiles(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    """NetworkManager reads its file anew, and tells the same."""
    make_login_files(networks.bystander.box)
    for number, value in enumerate([*HOSTILE, SECRET]):
        word = secret_word("net", "wifi", f"{number:016x}")
        networks.bystander.put_value(word, value)
        desired = by_login(eap="peap", password=word)
        change = await host.apply_one(desired)
        assert change.actions == (("changed 802-1x.password",) if number else ("created",))
        assert value not in str(change)
        await networks.bystander.nmcli("connection", "reload")
        await stays_as_it_is(host, desired)
        assert await networks.bystander.profiles() == {"start", "new"}
    assert await read_all(networks, "802-1x.password") == [SECRET]
    told = await networks.bystander.run("stat", "-c", "%a %U", await find_kept(networks))
    assert told.stdout.decode().strip() == "600 root"


async def test_keys_of_a_tunnel_are_secrets_of_the_fleet(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    private, preshared, other = (b64encode(bytes([n]) * 32).decode() for n in range(8, 11))
    words = [secret_word("net", f"key{n}", "00" * 8) for n in range(3)]
    for word, value in zip(words, (private, preshared, other), strict=True):
        networks.bystander.put_value(word, value)

    def tunnel(preshared_word: str) -> NetworkProfile:
        peer = WireguardPeer(
            public_key=b64encode(bytes([7]) * 32).decode(),
            allowed_ips=("10.8.0.0/24",),
            preshared_key=preshared_word,
        )
        link = Wireguard(interface="wg0", private_key=words[0], peers=(peer,))
        return profile(link, state="kept")

    change = await host.apply_one(tunnel(words[1]))
    assert not any(each in str(change) for each in (private, preshared))
    file = await read_file(networks)
    assert f"private-key={private}" in file
    assert f"preshared-key={preshared}" in file
    await stays_as_it_is(host, tunnel(words[1]))
    change = await host.apply_one(tunnel(words[2]))
    (action,) = change.actions
    assert action.endswith(".preshared-key")
    file = await read_file(networks)
    assert f"preshared-key={other}" in file
    assert preshared not in file
    await stays_as_it_is(host, tunnel(words[2]))


async def test_a_login_whose_certificate_is_none_is_a_failure_before_anything_is_written(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    networks.bystander.box.write(CA, "PEM\n")
    error = await host.expect_failure(by_login(eap="peap", password={"secret": "password"}))
    assert isinstance(error, NetworkFailed)
    assert f"{CA} holds no certificate" in error.message
    make_login_files(networks.bystander.box, "battery staple")
    locked = by_login(
        eap="tls",
        client_certificate=CERTIFICATE,
        private_key=KEY,
        private_key_password={"secret": "password"},
    )
    error = await host.expect_failure(locked)
    assert isinstance(error, NetworkFailed)
    assert "private_key_password does not unlock it" in error.message
    assert SECRET not in error.message
    assert await networks.bystander.profiles() == {"start"}


async def test_a_login_whose_certificate_is_not_there_is_a_failure_by_its_path(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    networks.bystander.box.run(["rm", "-f", CA])
    error = await host.expect_failure(by_login(eap="peap", password={"secret": "password"}))
    assert isinstance(error, NetworkFailed)
    assert CA in error.message
    assert await networks.bystander.profiles() == {"start"}


async def test_a_bond_and_its_port_are_kept_changed_and_taken_away(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    bond = profile(
        Bond(interface="bond0", primary="eth7"),
        ipv4=Ipv4(method="manual", addresses=(GOOD,)),
        state="kept",
    )
    port = profile(Ethernet(interface="eth7", bond="bond0"), name="port", state="kept")
    for change in await host.looks(bond, port):
        assert change.actions == ("created",)
    assert await read_all(
        networks, "bond.options", "ipv4.addresses", "connection.interface-name"
    ) == ["mode=active-backup,miimon=100,primary=eth7", GOOD, "bond0"]
    assert await networks.bystander.read("port", "connection.controller") == ("bond0",)
    assert await networks.bystander.read("port", "connection.port-type") == ("bond",)
    for each in (bond, port):
        await stays_as_it_is(host, each)
    lacp = profile(
        Bond(interface="bond0", mode="802.3ad", lacp_rate="fast", xmit_hash_policy="layer3+4"),
        ipv4=bond.ipv4,
        state="kept",
    )
    assert (await host.apply_one(lacp)).actions == ("changed bond.options",)
    await stays_as_it_is(host, lacp)
    for name in ("new", "port"):
        assert (await host.remove_one(name)).actions == ("removed",)
    assert await networks.bystander.profiles() == {"start"}


async def test_a_bond_that_the_kernel_does_not_know_is_a_failure_and_nothing_is_touched(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    await refused_by_the_kernel(networks, host, profile(Bond(interface="bond0")))


async def refused_by_the_kernel(
    networks: NetworksOfABox, host: NetworkUnderTest, desired: NetworkProfile
) -> None:
    if kernel_makes(networks, desired.link.type):
        pytest.skip(f"this kernel makes interfaces of the type {desired.link.type}")
    identity = await networks.bystander.identity("start")
    for _ in range(2):
        error = await host.expect_failure(desired)
        assert isinstance(error, NetworkFailed)
        assert f"no interface of the type {desired.link.type}" in error.message
        assert error.resource == "network:new"
    assert await networks.bystander.profiles() == {"start"}
    assert await networks.bystander.identity("start") == identity


def kernel_makes(networks: NetworksOfABox, kind: str) -> bool:
    """Return whether it knows this type of interface, which machines of tests often do not."""
    box = networks.bystander.box
    made = box.run(["ip", "link", "add", "probe7", "type", kind], check=False).returncode == 0
    box.run(["ip", "link", "delete", "probe7"], check=False)
    return made


def tunnel(*peers: dict[str, Any], **fields: Any) -> NetworkProfile:
    link = {"type": "wireguard", "interface": "wg0", "peers": peers, **fields}
    return profile(link, ipv4=Ipv4(method="manual", addresses=("10.8.0.2/24",)), state="kept")


async def test_a_tunnel_is_kept_with_a_key_of_the_device_s_own_changed_and_taken_away(
    networks: NetworksOfABox, host: NetworkUnderTest, tmp_path: Path
) -> None:
    preshared = b64encode(bytes(range(32))).decode()
    networks.bystander.put_secret("preshared", f"{preshared}\n".encode())
    one = {
        "public_key": ONE,
        "endpoint": "[2001:DB8:0::1]:51820",
        "allowed_ips": ["fd08::/64", "10.8.0.0/24"],
        "preshared_key": {"secret": "preshared"},
        "persistent_keepalive_s": 25,
    }
    everything = {"public_key": OTHER, "allowed_ips": ["0.0.0.0/0", "::/0"]}
    desired = tunnel(everything, one, listen_port=51820, mtu=1420)
    planned = await host.plan_one(desired)
    assert not (tmp_path / ".own").exists(), "nothing is made for a plan"
    change = await host.apply_one(desired)
    assert change.actions == ("created",)
    (made,) = (tmp_path / ".own").iterdir()
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    private = made.read_text().strip()
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert isinstance(change.after, Disconnected)
    public = b64encode(bytes(PrivateKey(b64decode(private)).public_key)).decode()
    assert change.after.public_key == public
    assert await host.network.observe("new") == change.after
    told = f"{planned}{change}"
    assert private not in told
    assert preshared not in told
    assert await read_all(
        networks,
        *("wireguard.private-key", "wireguard.listen-port", "wireguard.mtu"),
        *("ipv4.addresses", "connection.interface-name", "connection.autoconnect"),
    ) == [private, "51820", "1420", "10.8.0.2/24", "wg0", "no"]
    on_disk = await read_file(networks)
    first, second = sorted(on_disk.split("[wireguard-peer.")[1:])
    assert first.startswith(f"{ONE}]")
    assert f"preshared-key={preshared}\n" in first
    assert "endpoint=[2001:db8::1]:51820\n" in first
    assert "allowed-ips=10.8.0.0/24;fd08::/64;\n" in first
    assert "persistent-keepalive=25\n" in first
    assert second.startswith(f"{OTHER}]")
    assert "allowed-ips=0.0.0.0/0;::/0;\n" in second
    assert "preshared-key" not in second
    await stays_as_it_is(host, desired)

    networks.bystander.put_secret("preshared", b64encode(bytes(32)))
    change = await host.apply_one(desired)
    assert change.actions == (f"changed wireguard.peers.{ONE}.preshared-key",)
    await stays_as_it_is(host, desired)

    alone = tunnel({**one, "preshared_key": None})
    changed = "wireguard.listen-port, wireguard.mtu, wireguard.peers"
    change = await host.apply_one(alone)
    assert change.actions == (f"changed {changed}, wireguard.peers.{ONE}.preshared-key",)
    assert "preshared-key=" not in await read_file(networks)
    await stays_as_it_is(host, alone)

    await networks.bystander.delete("new")
    assert (await host.apply_one(alone)).actions == ("created",)
    assert await read_all(networks, "wireguard.private-key") == [private], (
        "others know its public half"
    )
    assert (await host.remove_one("new")).actions == ("removed",)
    assert await networks.bystander.profiles() == {"start"}
    assert not [*(tmp_path / ".own").iterdir()]


async def test_a_tunnel_that_somebody_made_keeps_its_key_when_it_is_taken_over(
    networks: NetworksOfABox, host: NetworkUnderTest, tmp_path: Path
) -> None:
    private = b64encode(bytes(range(31, -1, -1))).decode()
    given = "type wireguard ifname wg0 con-name new autoconnect no"
    await networks.bystander.nmcli(
        "connection", "add", *given.split(), "wireguard.private-key", private
    )
    peer = {"public_key": ONE, "allowed_ips": ["10.8.0.0/24"]}
    desired = tunnel(peer).model_copy(update={"take_over": True})
    await host.apply_one(desired)
    assert await read_all(networks, "wireguard.private-key") == [private]
    await stays_as_it_is(host, desired)
    await host.remove_one("new")
    assert await read_all(networks, "wireguard.private-key") == [private]
    assert not [*(tmp_path / ".own").iterdir()]


async def test_a_tunnel_that_the_kernel_does_not_know_is_a_failure_and_nothing_is_touched(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    everything = {"public_key": OTHER, "allowed_ips": ["0.0.0.0/0"]}
    desired = tunnel(everything).model_copy(update={"state": "up"})
    await refused_by_the_kernel(networks, host, desired)


async def find_kept(networks: NetworksOfABox) -> str:
    """Return the file in which NetworkManager keeps the profile `new`."""
    lines = (
        await networks.bystander.nmcli("-g", "NAME,FILENAME", "connection", "show")
    ).splitlines()
    return dict(line.split(":", 1) for line in lines)["new"]


async def read_file(networks: NetworksOfABox) -> str:
    """Return what NetworkManager keeps on disk of the profile `new`."""
    return networks.bystander.box.read(await find_kept(networks)).decode()


def every_choice() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each word and number that a link, or its addresses, may have where NetworkManager has a list."""
    for mode in get_args(BondMode):
        yield {"type": "bond", "interface": "bond0", "mode": mode}, {}
    for policy in ("layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4"):
        yield (
            {
                "type": "bond",
                "interface": "bond0",
                "mode": "balance-xor",
                "xmit_hash_policy": policy,
            },
            {},
        )
    for band, channels in CHANNELS.items():
        for channel in channels:
            yield access_point(band=band, channel=channel).model_dump(), {}
    yield access_point(security="sae").model_dump(), {"ipv6": {"method": "shared"}}
    for eap, phases in (
        ("peap", ("mschapv2", "gtc", "md5")),
        ("ttls", ("mschapv2", "mschap", "chap", "pap", "gtc", "md5")),
    ):
        for phase2 in phases:
            password = {"secret": "password"}
            login = {"eap": eap, "identity": "pi-7", "password": password, "phase2": phase2}
            enterprise = {**login, "allow_any_server": True}
            link = {"type": "wifi", "ssid": "x", "security": "wpa-eap", "enterprise": enterprise}
            yield link, {"state": None}
    for method in ("disabled", "link-local"):
        tunnel_alone = {"type": "wireguard", "interface": "wg0"}
        yield tunnel_alone, {"ipv4": {"method": "disabled"}, "ipv6": {"method": method}}


async def test_an_ipv4_address_within_ipv6_is_the_same_however_it_is_written(
    host: NetworkUnderTest,
) -> None:
    """NetworkManager writes it with dots, Python without."""
    ipv6 = Ipv6(
        method="manual",
        addresses=("::ffff:192.0.2.1/96",),
        gateway="::ffff:192.0.2.2",
        dns=("::ffff:192.0.2.3",),
        routes=(Ipv6Route(to="::ffff:198.51.100.0/120", via="::ffff:192.0.2.2"),),
    )
    desired = profile(Ethernet(interface="eth7"), ipv6=ipv6, state="kept")
    assert (await host.apply_one(desired)).actions == ("created",)
    await stays_as_it_is(host, desired)


async def test_every_choice_that_a_score_offers_is_one_that_networkmanager_knows(
    host: NetworkUnderTest,
) -> None:
    for link, fields in every_choice():
        desired = profile(link, **{"state": "kept", **fields})
        assert (await host.apply_one(desired)).actions == ("created",), link
        assert (await host.look(desired)).actions == (), link
        await host.remove_one("new")


async def test_a_bridge_that_is_kept_comes_up_with_its_first_port(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    """As a bond would: alone, neither is given an address, which comes by the cable of a port."""
    bridge = profile(
        Bridge(interface="br7", stp=False),
        ipv4=Ipv4(method="manual", addresses=(GOOD,)),
        state="kept",
    )
    port = profile(Ethernet(interface=WIRE, bridge="br7"), name="port")
    await host.apply_one(bridge)
    change = await host.apply_one(port)
    assert NetworkConfiguratorContract.CONFIRMED in change.actions
    await host.has("br7", GOOD)
    await host.apply_one(bridge)
    assert await read_all(networks, "connection.autoconnect") == ["yes"]
    for each in (bridge, port):
        await stays_as_it_is(host, each)


async def test_an_ethernet_network_that_is_shared_gives_others_their_addresses(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    """By the cable by which the device is reached: so it is on trial, and the device is reached after it."""
    shared = profile(
        Ethernet(interface=WIRE), ipv4=Ipv4(method="shared", addresses=(GOOD,)), confirm_within_s=20
    )
    change = await host.apply_one(shared)
    assert NetworkConfiguratorContract.CONFIRMED in change.actions
    assert change.after == Connected(interface=WIRE, addresses=(GOOD,), gateway=None)
    assert await read_all(networks, "ipv4.method", "connection.autoconnect") == ["shared", "yes"]
    given = await asyncio.to_thread(ask_for_an_address, find_other_end(networks.bystander.box))
    assert given.startswith("10.79.0.")
    tables = (await networks.bystander.run("nft", "list", "tables")).stdout.decode()
    assert f"nm-shared-{WIRE}" in tables
    await stays_as_it_is(host, shared)
    await networks.bystander.run("sh", "-c", END_DNSMASQ)
    assert "dnsmasq does not run there" in str(await host.expect_failure(shared))
    await networks.bystander.nmcli("connection", "up", "new")
    await host.apply_one(shared)
    await stays_as_it_is(host, shared)
    await host.remove_one("new")
    await host.wait_used(WIRE, "start")
    tables = (await networks.bystander.run("nft", "list", "tables")).stdout.decode()
    assert f"nm-shared-{WIRE}" not in tables


async def test_without_dnsmasq_what_would_be_shared_is_told_before_anything_is_touched(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    """NetworkManager would try for half a minute, and then say nothing."""
    bystander = networks.bystander
    identity = await bystander.identity("start")
    await bystander.run("mv", "/usr/sbin/dnsmasq", "/usr/sbin/dnsmasq.away")
    try:
        shared = profile(Ethernet(interface=WIRE), ipv4=Ipv4(method="shared"))
        error = await host.expect_failure(shared)
        assert isinstance(error, NetworkFailed)
        assert "apt-get install dnsmasq-base" in error.message
        assert isinstance((await host.network.converge([shared], apply=False))[0], NetworkFailed)
        assert await bystander.profiles() == {"start"}
        assert await bystander.identity("start") == identity
    finally:
        await bystander.run("mv", "/usr/sbin/dnsmasq.away", "/usr/sbin/dnsmasq")


TAKE = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 53)); time.sleep(999)"


async def test_a_network_whose_addresses_nobody_can_give_is_no_success(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    """NetworkManager calls it connected all the same."""
    run = networks.bystander.run
    await run("systemd-run", "--collect", "--unit=taker", "python3", "-c", TAKE)
    shared = profile(
        Ethernet(interface=WIRE), ipv4=Ipv4(method="shared", addresses=(GOOD,)), confirm_within_s=20
    )
    error = await host.expect_failure(shared)
    assert isinstance(error, NetworkFailed)
    assert "port 53 or 67" in error.message
    await run("systemctl", "stop", "taker.service")
    await networks.bystander.nmcli("connection", "up", "new")
    await host.apply_one(shared)
    await stays_as_it_is(host, shared)
    await asyncio.to_thread(ask_for_an_address, find_other_end(networks.bystander.box))


async def test_what_lets_in_other_servers_or_keeps_a_secret_for_one_user_is_put_right(
    networks: NetworksOfABox, host: NetworkUnderTest
) -> None:
    make_login_files(networks.bystander.box)
    desired = by_login(eap="peap", password={"secret": "password"})
    await host.apply_one(desired)
    for setting, value in (
        ("802-1x.system-ca-certs", "yes"),
        ("802-1x.domain-match", "other.example.org"),
        ("802-1x.altsubject-matches", "DNS:other.example.org"),
    ):
        await networks.bystander.nmcli("connection", "modify", "new", setting, value)
        assert (await host.apply_one(desired)).actions == (f"changed {setting}",)
    await networks.bystander.nmcli("connection", "modify", "new", "802-1x.password-flags", "1")
    assert (await host.apply_one(desired)).actions == ("changed 802-1x.password",)
    assert await read_all(networks, "802-1x.password") == [SECRET]
    await stays_as_it_is(host, desired)
