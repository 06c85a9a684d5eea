"""Pis in boxes: real systemd, a real bus and real podman, booted in a second in Linux namespaces.

::

    with Bed() as bed:                     # a network of its own; this process joins it
        pi = bed.boot("pi-1")
        pi.run(["systemctl", "is-system-running"])

Needs root. What is slow to make (a Debian root file system, the agent's dependencies) is made once and
kept in `$HARMONY_CACHE`, else /var/cache/harmony. Ending a bed, also by force, leaves nothing behind.
"""

from __future__ import annotations

from .bed import Bed
from .box import Box
from .registry import Registry

__all__ = ["Bed", "Box", "Registry"]
