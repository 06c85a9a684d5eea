"""A port whose rules somebody took away is published anew by the agent, which may not read those rules."""

from __future__ import annotations

from harmony_control.device import Device
from harmony_core.resources import PublishedPort
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerScore
from tests.box import Bed
from tests.fleet.ground import SERVE, Host, pushed, statuses

GET = ("busybox", "wget", "-T", "2", "-qO-", "http://127.0.0.1:8090/")


async def test_after_a_firewall_was_loaded_anew_a_published_port_is_answered_again(
    device: Device[PiTopology], host: Host, bed: Bed
) -> None:
    bed.registry.make_known_to(host.box)
    shop = ContainerScore(
        name="shop",
        image=bed.registry.push_busybox("shop", "1", page="served\n"),
        command=("sh", "-c", SERVE),
        ports=(PublishedPort(host=8090, container=80),),
        stop_timeout_s=0,
        settle_s=0.2,
    )
    state, _ = await pushed(device, {"shop": shop})
    assert statuses(state)["shop"] == "SUCCESS"
    before = host.identities(containers=("shop",))
    host.box.run(["nft", "flush", "ruleset"])
    assert host.box.run(GET, check=False).returncode != 0
    async with device.reconcile("shop") as looks:
        told = [look async for look in looks]
    assert "published anew: port 8090 led nowhere" in str(told)
    assert host.box.run(GET).stdout == b"served\n"
    assert host.identities(containers=("shop",)) == before
    await device.remove("shop")
