"""Something on a real server over TLS that a device can download."""

from __future__ import annotations

import ssl

import httpx

from harmony_core.resources import Download
from tests.box import Bed

__all__ = ["layer_of_an_image"]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


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
