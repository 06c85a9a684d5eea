"""A download on a Pi as it is installed: confined by systemd, by its own authorities, from a real server."""

from __future__ import annotations

import asyncio
import ssl
from typing import TypeAlias

import httpx

from harmony_control.device import Device
from harmony_core.resources import Download
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore
from tests.box import Bed, Box
from tests.fleet.ground import code_of

Pi: TypeAlias = Device[PiTopology]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OURS = "/usr/local/share/ca-certificates/bed.crt"


def layer_of_an_image(bed: Bed) -> Download:
    """Put an image into the registry; return its largest part, which has its own hash in its address."""
    image = bed.registry.push_busybox("downloaded", "1", ballast_bytes=3 * 1024**2)
    digest = image.rpartition("@")[2]
    context = ssl.create_default_context(cafile=str(bed.registry.ca))
    where = f"https://{bed.registry.host}/v2/downloaded/manifests/{digest}"
    with httpx.Client(verify=context, trust_env=False, headers={"Accept": MANIFEST}) as client:
        manifest = client.get(where).raise_for_status().json()
    layer = manifest["layers"][0]
    url = f"https://{bed.registry.host}/v2/downloaded/blobs/{layer['digest']}"
    return Download(
        url=url, sha256=layer["digest"].removeprefix("sha256:"), size_bytes=layer["size"]
    )


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
