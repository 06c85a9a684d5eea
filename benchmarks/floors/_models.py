"""Ten pydantic models of the size of Harmony's own, which any agent of its kind needs in some form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

__all__ = ["MODELS"]

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class Policy(BaseModel):
    drift: Literal["enforce", "report"] = "enforce"
    on_failure: Literal["keep", "rollback"] = "keep"
    deadline_s: int | None = None


class Entry(BaseModel):
    id: Name
    kind: str
    version: int
    spec: dict[str, Any]
    after: tuple[Name, ...] = ()
    policy: Policy = Policy()


class Manifest(BaseModel):
    fleet: Name
    target: str
    generation: Annotated[int, Field(ge=1)]
    labels: dict[str, str] = {}
    scores: tuple[Entry, ...]


class Mount(BaseModel):
    source: str
    target: str
    read_only: bool = True


class Published(BaseModel):
    host: Port
    container: Port
    protocol: Literal["tcp", "udp"] = "tcp"


class Probe(BaseModel):
    port: Port
    path: str = "/"
    within_s: float = 60.0


class FileSpec(BaseModel):
    path: str
    content: str
    mode: Annotated[int, Field(ge=0, le=0o777)] = 0o644
    owner: str = "root"
    group: str = "root"


class UnitSpec(BaseModel):
    name: str
    content: str | None = None
    enabled: bool | None = True
    state: Literal["running", "stopped"] = "running"
    probe: Probe | None = None


class ContainerSpec(BaseModel):
    name: str
    image: str
    command: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    ports: tuple[Published, ...] = ()
    mounts: tuple[Mount, ...] = ()
    probe: Probe | None = None


class Settings(BaseModel):
    agent_id: Name
    fleet: Name
    servers: tuple[str, ...]
    seed: str
    heartbeat_s: float = 30.0


MODELS = (
    Policy,
    Entry,
    Manifest,
    Mount,
    Published,
    Probe,
    FileSpec,
    UnitSpec,
    ContainerSpec,
    Settings,
)
