"""A download on a Pi as it is installed: confined by systemd, by its own authorities, from a real server."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from harmony_control.device import Device
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.box import Bed, Box
from tests.fleet.downloaded import layer_of_an_image
from tests.fleet.ground import code_of

Pi: TypeAlias = Device[PiTopology]

OURS = "/usr/local/share/ca-certificates/bed.crt"


async def test_a_pi_believes_its_own_authorities_and_keeps_what_it_has_fetched(
    device: Pi, pi: Box, bed: Bed
) -> None:
    download = layer_of_an_image(bed)
    score = FileScore(path="/srv/layer", download=download)
    state = await device.put_and_wait({"layer": score})
    assert code_of(state, "layer") == "DownloadFailed"
    failed = state.scores["layer"].outcome
    assert "is not believed: unable to get local issuer certificate" in str(failed)

    pi.write(OURS, bed.registry.ca.read_bytes())
    pi.run(["update-ca-certificates"])
    await device.remove("layer")
    state = await device.put_and_wait({"layer": score})
    assert code_of(state, "layer") == "SUCCESS", state.scores["layer"]
    assert pi.text("sha256sum", "/srv/layer").split()[0] == download.sha256
    assert (
        pi.text("stat", "-c", "%a %U", f"/var/lib/harmony/assets/{download.sha256}") == "600 root"
    )

    bed.registry.stop()
    try:
        pi.run(["rm", "/srv/layer"])
        async with asyncio.timeout(30):
            while pi.run(["test", "-e", "/srv/layer"], check=False).returncode:
                await asyncio.sleep(0.1)
        assert pi.text("sha256sum", "/srv/layer").split()[0] == download.sha256
    finally:
        bed.registry.start()
