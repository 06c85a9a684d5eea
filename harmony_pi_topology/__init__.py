"""A Raspberry Pi as a Topology. Importing this needs neither D-Bus nor podman."""

from __future__ import annotations

from .topology import PiTopology

__all__ = ["PiTopology"]
