"""The network of a whole device: reached by the very cable whose profile is changed, and by no other way."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import Callable
from functools import partial

import pytest
from nacl.public import PrivateKey

from harmony_control.device import Device
from harmony_core.outcome import Failure, Noop, Success
from harmony_core.resources import Ethernet, Ipv4, Wireguard, WireguardPeer
from harmony_core.wire.actual_state import ActualState
from harmony_pi_topology import PiTopology
from harmony_scores import NetworkConfigScore
from tests.box import Bed, Box
from tests.fleet.ground import AGENT, ControlPlane, heard_again, pushed, until
from tests.topology.box_network import BUS, WIRE, BoxNetwork, cabled

FIRST, GOOD, BAD = "10.79.0.9/24", "10.79.0.2/24", "10.80.0.2/24"


def office(address: str, confirm_within_s: int = 10) -> NetworkConfigScore:
    return NetworkConfigScore(
        name="office",
        link=Ethernet(interface=WIRE),
        ipv4=Ipv4(method="manual", addresses=(address,)),
        confirm_within_s=confirm_within_s,
    )


def repaired(state: ActualState, *, times: int) -> bool:
    score = state.scores["net"]
    return score.drift_count >= times and isinstance(score.outcome, Success | Noop)


@pytest.fixture(scope="module")
def network(
    boot: Callable[[], Box], bed: Bed, tmp_path_factory: pytest.TempPathFactory
) -> BoxNetwork:
    """A Pi whose network is NetworkManager's business, with a profile that somebody made."""
    box = boot()
    cabled(box, bed.name)
    network = BoxNetwork(box, tmp_path_factory.mktemp("secrets"))
    asyncio.run(network.make_strange("start", WIRE, FIRST))
    return network


@pytest.fixture(scope="module")
def pi(network: BoxNetwork, plane: ControlPlane) -> Box:
    """Enrolled, by the second cable."""
    box = network.box
    plane.enrol(box)
    config = box.read("/etc/harmony/agent.toml").decode().replace("10.77.0.1", BUS)
    box.write("/etc/harmony/agent.toml", config, mode=0o600)
    box.run(["systemctl", "restart", AGENT])
    return box


async def test_a_profile_is_brought_up_and_confirmed_and_pushed_again_it_is_untouched(
    device: Device[PiTopology], network: BoxNetwork
) -> None:
    state, seen = await pushed(device, {"net": office(GOOD)})
    assert isinstance(state.scores["net"].outcome, Success)
    assert state.scores["net"].resources["network:office"]["addresses"] == [GOOD]
    # Of what goes on meanwhile not all is heard: its own cable is what is being changed.
    told = {each.scores["net"].outcome.status for each in seen if each.scores}
    assert told <= {"RUNNING", "SUCCESS"}
    identity = await network.identity("office")
    state, _ = await pushed(device, {"net": office(GOOD)})
    assert isinstance(state.scores["net"].outcome, Noop)
    assert await network.identity("office") == identity
    assert await network.is_on_disk("office")


async def test_a_change_that_keeps_the_device_reached_is_confirmed(
    device: Device[PiTopology], network: BoxNetwork
) -> None:
    await pushed(device, {"net": office(GOOD)})
    state, _ = await pushed(device, {"net": office("10.79.0.3/24")})
    assert isinstance(state.scores["net"].outcome, Success)
    assert await network.addresses(WIRE) == {"10.79.0.3/24"}
    await heard_again(device)


async def test_a_change_that_cuts_the_device_off_is_taken_back_and_told(
    device: Device[PiTopology], network: BoxNetwork
) -> None:
    await pushed(device, {"net": office(GOOD)})
    state, _ = await pushed(device, {"net": office(BAD)})
    outcome = state.scores["net"].outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NetworkRolledBack"
    assert outcome.error.retry_at is None
    assert "cut this device off" in outcome.error.message
    assert await network.addresses(WIRE) == {GOOD}
    state, _ = await pushed(device, {"net": office(GOOD)})
    assert isinstance(state.scores["net"].outcome, Noop)


async def test_an_agent_that_is_killed_in_the_middle_leaves_a_device_that_is_reached(
    device: Device[PiTopology], network: BoxNetwork
) -> None:
    await pushed(device, {"net": office(GOOD)})
    await device.put({"net": office(BAD)})
    while await network.addresses(WIRE) != {BAD}:
        await asyncio.sleep(0.05)
    await network.run("systemctl", "kill", "--signal=KILL", AGENT)
    await network.run("systemctl", "stop", AGENT)
    while await network.addresses(WIRE) != {GOOD}:
        await asyncio.sleep(0.1)  # NetworkManager does it by itself
    await network.run("systemctl", "start", AGENT)
    state = await until(device, lambda it: isinstance(it.scores["net"].outcome, Failure))
    outcome = state.scores["net"].outcome
    assert isinstance(outcome, Failure)
    assert outcome.error.code == "NetworkRolledBack"


async def test_what_somebody_takes_down_by_hand_comes_back_without_the_control_plane(
    device: Device[PiTopology], network: BoxNetwork
) -> None:
    await pushed(device, {"net": office(GOOD)})
    await network.delete("start")
    try:
        await network.take_down("office")  # and with it the only way to the control plane
        while await network.addresses(WIRE) != {GOOD}:
            await asyncio.sleep(0.1)
        state = await until(device, lambda it: repaired(it, times=1))
        assert state.scores["net"].last_drift is not None
    finally:
        await network.make("start", WIRE, FIRST)


@pytest.mark.parametrize(
    "deed",
    [
        "nmcli connection modify office ipv4.addresses 10.79.0.7/24",
        f"nmcli device modify {WIRE} ipv4.addresses 10.79.0.7/24",
        f"ip address del {GOOD} dev {WIRE}",
    ],
    ids=["in the profile", "of the interface", "past NetworkManager"],
)
async def test_an_address_that_somebody_changes_is_put_right_and_counted(
    device: Device[PiTopology], network: BoxNetwork, deed: str
) -> None:
    await pushed(device, {"net": office(GOOD)})
    for count in (1, 2):
        await network.run("sh", "-c", deed)
        state = await until(device, partial(repaired, times=count))
        assert state.scores["net"].drift_count == count
        assert await network.addresses(WIRE) == {GOOD}
        assert await network.read("office", "ipv4.addresses") == (GOOD,)


async def test_a_score_that_goes_takes_its_profile_with_it(
    device: Device[PiTopology], network: BoxNetwork
) -> None:
    await pushed(device, {"net": office(GOOD)})
    await device.remove("net")
    await until(device, lambda it: not it.scores)
    assert await network.profiles() == {"start"}
    assert await network.addresses(WIRE) == {FIRST}


async def test_the_key_of_a_tunnel_never_leaves_the_device_and_its_public_half_is_told(
    device: Device[PiTopology], network: BoxNetwork
) -> None:
    peer = WireguardPeer(
        public_key=b64encode(bytes([1] * 32)).decode(),
        endpoint=f"{BUS}:51820",
        allowed_ips=("10.8.0.0/24",),
    )
    tunnel = NetworkConfigScore(
        name="vpn",
        link=Wireguard(interface="wg0", peers=(peer,)),
        ipv4=Ipv4(method="manual", addresses=("10.8.0.2/24",)),
        state="kept",
    )
    state, seen = await pushed(device, {"net": office(GOOD), "vpn": tunnel})
    assert isinstance(state.scores["vpn"].outcome, Success)
    own = "/etc/harmony/secrets/.own"
    (name,) = network.box.text("ls", own).split()
    assert network.box.text("stat", "-c", "%a %U", f"{own}/{name}").strip() == "600 root"
    private = network.box.read(f"{own}/{name}").decode().strip()
    public = b64encode(bytes(PrivateKey(b64decode(private)).public_key)).decode()
    assert state.scores["vpn"].resources["network:vpn"]["public_key"] == public
    assert private not in f"{state}{seen}"
    kept = network.box.run(["grep", "-raFl", private, "/var/lib/harmony"], check=False)
    assert (kept.returncode, kept.stdout) == (1, b""), "neither in agent.db nor beside it"
    journal = network.box.text("journalctl", "-u", AGENT, "--no-pager")
    assert private not in journal
    state, _ = await pushed(device, {"net": office(GOOD), "vpn": tunnel})
    assert isinstance(state.scores["vpn"].outcome, Noop)
    await device.remove("vpn")
    await until(device, lambda it: "vpn" not in it.scores)
    assert "vpn" not in await network.profiles()
    assert network.box.text("ls", own) == ""


def test_what_the_agent_says_of_its_network(pi: Box) -> None:
    said = pi.run(["/opt/harmony/bin/harmony-agent", "check"], check=False).stdout.decode()
    assert "NetworkConfigurator offered\n" in said
