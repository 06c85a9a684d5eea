"""What is to be done about one container. Pure: nothing is asked here, and nothing is done.

desired, found, mounts that have been replaced, ports that lead nowhere
                                               -> ContainerSteps: pull, create or recreate or start, publish
found                                          -> what removing it does
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import attrs

from harmony_core.steps import (
    Created,
    Did,
    KeptVolume,
    Pulled,
    Recreated,
    Removed,
    Started,
    Step,
    Stopped,
    list_due,
)

from .attachments import has_its_networks
from .podman_reply import FoundContainer
from .spec import DesiredContainer, has_completed
from .volumes import find_kept_volumes

__all__ = ["ContainerSteps", "plan_removal", "plan_steps"]


@attrs.frozen(kw_only=True)
class ContainerSteps:
    """What is to be done, in this order. Whatever is made is started, too."""

    pull: bool = False
    make: Literal["create", "recreate"] | None = None
    changed: frozenset[str] = frozenset()
    """For which fields and files it is made anew; empty where a removal was cut short."""
    kept_volumes: tuple[KeptVolume, ...] = ()
    """Which volumes of the old one stay on the device without being seen by the new one."""
    start: bool = False
    republish: frozenset[int] = frozenset()
    """Which ports of the device led nowhere: podman is to publish all of them anew."""

    def __bool__(self) -> bool:
        return self.start or bool(self.republish)

    @property
    def only_starts(self) -> bool:
        """Whether the container is as desired, and is only to be started."""
        return self.start and self.make is None

    @property
    def in_order(self) -> tuple[Step, ...]:
        steps: dict[Step, bool] = {
            Pulled(): self.pull,
            Created(): self.make == "create",
            Recreated(fields=self.changed, is_removal_cut_short=not self.changed): (
                self.make == "recreate"
            ),
            Started(): self.start,
            Did(
                f"published anew: port {', '.join(map(str, sorted(self.republish)))} led nowhere"
            ): (bool(self.republish)),
        }
        return (*list_due(steps), *self.kept_volumes)


def plan_steps(
    desired: DesiredContainer,
    found: FoundContainer | None,
    replaced: Collection[str],
    *,
    altered: Collection[str] = (),
    dead_ports: frozenset[int] = frozenset(),
    has_just_failed: bool = False,
) -> ContainerSteps:
    """Plan the steps that make *found* match *desired*. Do not look whether the image is here.

    *replaced* are the sources of mounts whose present state the container does not see, *altered* the fields
    that somebody else has changed while it runs, *dead_ports* the ports of the device that do not lead into
    it. With *has_just_failed*, a container that has ended is not started, since its failure has not been
    reported yet. Neither is one that runs once and has completed.
    """
    if found is None:
        return ContainerSteps(make="create", start=True)
    # What is made anew sees its mounts as they are: so those are a reason only where nothing else is.
    changed = set(desired.differences_from(found.labels)) or {*replaced, *altered}
    wants_ipv6 = any(port.is_ipv6 for port in desired.container.ports)
    is_cut_off = found.is_cut_off or not has_its_networks(desired.container, found)
    if is_cut_off or (found.running and not found.ipv6 and wants_ipv6):
        changed.add("networks")
    if changed:
        seen = {*desired.container.targets}
        return ContainerSteps(
            make="recreate",
            changed=frozenset(changed),
            kept_volumes=find_kept_volumes(found, seen),
            start=True,
        )
    if found.status == "removing":
        return ContainerSteps(make="recreate", start=True)
    rests = found.running or has_just_failed or has_completed(found)
    return ContainerSteps(start=not rests, republish=dead_ports)


def plan_removal(found: FoundContainer | None) -> tuple[Step, ...]:
    """Return the steps that remove *found*, in order."""
    if found is None:
        return ()
    stopped = (Stopped(),) if found.running else ()
    return (*stopped, Removed(), *find_kept_volumes(found))
