"""How the agent asks whether something that runs is also ready to serve."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

__all__ = ["HttpProbe", "Port", "Probe", "Seconds", "TcpProbe"]

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class _Probe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    port: Port
    """A port on the device itself (for a container: a published one)."""
    within_s: Seconds = 60.0
    """Counted from the thing's own start; not ready by then is a FAILURE with its last log lines."""
    every_s: Seconds = 1.0
    """Seconds between two questions."""
    timeout_s: Seconds = 2.0
    """How long one answer may take, in seconds."""


class HttpProbe(_Probe):
    """Ready when a GET answers with a status from 200 to 399."""

    probe: Literal["http"] = "http"
    """Which question it is."""
    path: Annotated[str, StringConstraints(pattern=r"^/[\x21-\x7e]*$", max_length=2048)] = "/"
    """What is asked for."""


class TcpProbe(_Probe):
    """Ready when a connection is accepted. A container's port is reached as from outside, through podman's
    rules in the device's firewall; where something else has thrown these away, it is podman that accepts,
    and nothing answers: an `HttpProbe` finds that out."""

    probe: Literal["tcp"] = "tcp"
    """Which question it is."""


Probe = Annotated[HttpProbe | TcpProbe, Field(discriminator="probe")]
