"""Is an image of an archive made for the device? A laptop builds for its own processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from harmony_control.assets.image import PLATFORMS_READ
from harmony_control.bundle.images import Platform
from harmony_control.bus.reports import Reports
from harmony_core.errors import MissingCapability
from harmony_core.images import parse_image
from harmony_core.wire.bundle import find_pinned_images
from harmony_core.wire.manifest import SerializedScore

__all__ = ["check_platforms", "refuse_other_platforms"]

_RUN_TOO: Mapping[str, frozenset[str]] = {
    "arm64": frozenset({"arm"}),
    "amd64": frozenset({"386"}),
}
"""What a processor runs beside its own."""


async def check_platforms(
    reports: Reports,
    agent_ids: Iterable[str],
    entries: Mapping[str, SerializedScore],
    *,
    otherwise: str = "push with --force",
) -> None:
    """Check the images for each of the devices *agent_ids* that has reported its platform, as
    `refuse_other_platforms` does."""
    for agent_id in agent_ids:
        said = await reports.read_inventory(agent_id)
        if said is not None and said.value is not None:
            machine = said.value.architecture
            refuse_other_platforms(agent_id, machine, entries, otherwise=otherwise)


def refuse_other_platforms(
    agent_id: str,
    machine: str,
    entries: Mapping[str, SerializedScore],
    *,
    otherwise: str = "push with --force",
) -> None:
    """Raise `MissingCapability` for an image from an archive, read here, that does not run on *machine*, the
    kernel's name for the device's platform. Accept a platform that is not known here. *otherwise* says what
    to do where the image cannot be built for it."""
    platform = Platform.of_machine(machine)
    if platform is None:
        return
    own = platform.architecture
    runs = {f"linux/{each}" for each in (own, *_RUN_TOO.get(own, ()))}
    for name, entry in entries.items():
        for image in find_pinned_images(entry.spec):
            made_for = PLATFORMS_READ.get(parse_image(image).digest or "")
            if made_for is not None and not made_for & runs:
                raise MissingCapability(
                    f"{name}: its image is made for {', '.join(sorted(made_for))}, and {agent_id} is "
                    f"{platform}; build it for that (podman build --platform {platform} …), or {otherwise}"
                )
