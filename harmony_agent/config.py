"""agent.toml: who this device is, where its bus is, whom it trusts.

Written by ``harmony-agent enroll``; holds the device's own key, so it must be readable by its owner alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harmony_core.errors import ConfigError, RootRejected
from harmony_core.wire.envelope import SigningKey, VerifyKey
from harmony_core.wire.jwt import Claims
from harmony_core.wire.model_fields import AgentId, ScoreId
from harmony_core.wire.names import JWT_PATTERN, MAILBOX_PATTERN, SERVER_NAME
from harmony_core.wire.tls import verifying_context

from .policy_toml import PolicyTable, refuse_foreign

__all__ = ["AgentConfig", "TopologyTable", "load"]


_USUAL_HEARTBEAT_S = 30.0
_SERVER = re.compile(r"tls://[^\s/@]+(:[0-9]{1,5})?/?")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class NatsTable(_Table):
    """Where the bus is, by what it is known, and the nkey seed with which this device proves who it is."""

    servers: Annotated[tuple[str, ...], Field(min_length=1)]
    seed: Annotated[str, Field(pattern=r"^SU[A-Z2-7]{56}$", repr=False)]
    mailbox: Annotated[str, Field(pattern=MAILBOX_PATTERN, repr=False)]
    """The part that nobody can guess of the subjects on which the device is sent something."""
    jwt: Annotated[str, Field(pattern=JWT_PATTERN)] | None = None
    """What lets the key in, to a server that does not know keys themselves."""
    ca: str
    """The certificate of who vouches for the server, in PEM. Nobody else is believed."""
    tls_server_name: str = SERVER_NAME
    """The name that the server's certificate must have, whatever its address is."""
    site: AgentId | None = None
    """The site whose server passes on what is said: it may itself have lost the fleet's, and not say so."""

    @field_validator("servers")
    @classmethod
    def _addresses(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            if _SERVER.fullmatch(server) is None:
                raise ValueError(f"{server!r} is no address of a server; write tls://HOST:PORT")
        return servers

    @field_validator("ca")
    @classmethod
    def _is_a_certificate(cls, ca: str) -> str:
        try:
            verifying_context(ca)
        except ConfigError as error:
            raise ValueError(error.message) from error
        return ca


class TrustTable(_Table):
    """Whose signatures count here: one of both."""

    operator_keys: tuple[str, ...] = ()
    """Of a fleet without a root document: the public keys of its operators."""
    root: str | None = None
    """The fleet's root document as it was enrolled; the device finds the versions since by itself."""

    @field_validator("operator_keys")
    @classmethod
    def _parseable(cls, keys: tuple[str, ...]) -> tuple[str, ...]:
        for key in keys:
            try:
                VerifyKey.from_text(key)
            except ConfigError as error:
                raise ValueError(error.message) from error
        return keys

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.root is None) == (not self.operator_keys):
            raise ValueError("trust: give operator_keys, or else root")
        return self


class ReportTable(_Table):
    """With what the device signs all that it says."""

    key: Annotated[str, Field(repr=False)]
    """A key of its own: with the one for the bus it signs whatever a server sends it to log in."""

    @field_validator("key")
    @classmethod
    def _parseable(cls, key: str) -> str:
        try:
            SigningKey.from_text(key)
        except ConfigError as error:
            raise ValueError(error.message) from error
        return key


class TopologyTable(_Table):
    """What of the device is offered, and by whom."""

    root: Path = Path("/")
    """Another directory than / makes this a folder device: files and directories only, no root needed."""
    secrets_directory: Path = Path("/etc/harmony/secrets")
    podman_url: str = "unix:///run/podman/podman.sock"
    use: Mapping[str, str] = Field(default_factory=dict[str, str])
    """The package from which a capability is to come, by the capability's name. Where nothing is said, it is
    Harmony's own, or else the first that offers it."""


class AgentConfig(_Table):
    """Everything the agent is told before it starts."""

    agent_id: AgentId
    fleet: ScoreId
    path: Path
    """agent.toml; not to be set there."""
    state_directory: Path = Path("/var/lib/harmony")
    floor_directory: Path | None = None
    """Where the copy of the floor is, if not beside agent.toml: on a device that has it on a disk that cannot
    be written."""
    runtime_directory: Path = Path("/run/harmony")
    heartbeat_s: Annotated[float, Field(gt=0, le=600)] = _USUAL_HEARTBEAT_S
    assets_max_mib: Annotated[int, Field(ge=64, le=64 * 1024)] = 512
    """How much of `state_directory` all assets may take."""
    nats: NatsTable
    report: ReportTable
    trust: TrustTable
    topology: TopologyTable = Field(default_factory=TopologyTable)
    policy: PolicyTable = Field(default_factory=partial(PolicyTable, preset="open"))
    """From policy.toml beside it; not to be set here."""

    @model_validator(mode="after")
    def _trusts_a_whole_document(self) -> Self:
        if self.trust.root is not None:
            from harmony_core.wire.root import open_pinned_root  # noqa: PLC0415 - most fleets have none

            try:
                open_pinned_root(self.trust.root.encode(), fleet=self.fleet)
            except RootRejected as error:
                raise ValueError(f"trust.root: {error.message}") from error
        return self

    @property
    def copy_directory(self) -> Path:
        """The directory of the copy of the floor."""
        return self.floor_directory or self.path.parent

    @property
    def slowness(self) -> float:
        """How many times more seldom than others this device speaks without need, as it beats."""
        return max(1.0, self.heartbeat_s / _USUAL_HEARTBEAT_S)

    @property
    def renewed_jwt(self) -> Path:
        """The file with the JWT that the agent was given last, where its server wants one that expires."""
        return self.state_directory / "bus.jwt"

    @property
    def report_key(self) -> SigningKey:
        """The key with which this device signs what it says."""
        return SigningKey.from_text(self.report.key)


def _with_newest_jwt(config: AgentConfig) -> AgentConfig:
    """Return *config* with the JWT that the agent has got since it was enrolled, if that is newer."""
    first = config.nats.jwt
    if first is None:
        return config
    # A device with a new key has a JWT for that one in agent.toml, and the other counts no more.
    with suppress(OSError, ValueError):
        renewed = config.renewed_jwt.read_text("ascii").strip()
        ours, newer = Claims.of(first), Claims.of(renewed)
        if (newer.subject, True) == (ours.subject, newer.issued_at_s > ours.issued_at_s):
            nats = config.nats.model_copy(update={"jwt": renewed})
            return config.model_copy(update={"nats": nats})
    return config


def load(path: Path) -> AgentConfig:
    """Read *path*, or raise `ConfigError` with the field and the remedy."""
    try:
        found = path.stat()
        if found.st_mode & 0o077:
            raise ConfigError(
                f"{path} holds this device's key and others may read it; run: chmod 600 {path}"
            )
        refuse_foreign(path, found, "choose whom this device trusts")
        tables = tomllib.loads(path.read_text("utf-8"))
        policy = path.with_name("policy.toml")
        if "policy" in tables:
            raise ConfigError(
                f"{path}: [policy] is a file of its own now; move it to {policy}, as docs/policy.md has it: "
                'preset = "open", jobs as it is, and what was in allow in paths and in units'
            )
        if "path" in tables:
            raise ConfigError(f"{path}: path is not a field; remove it")
        config = AgentConfig.model_validate(
            {**tables, "path": path.absolute(), "policy": PolicyTable.read(policy)}
        )
        return _with_newest_jwt(config)
    except FileNotFoundError:
        raise ConfigError(
            f"{path} does not exist; let this device in with: harmony enroll root@HOST"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; run this as root, or check its owner"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not TOML: {error}; correct it, or make it anew on the control plane with: harmony "
            "add-agent ID --replace"
        ) from error
    except ValidationError as error:
        if any(each["loc"] == ("report",) for each in error.errors()):
            raise ConfigError(
                f"{path} has no key with which this device signs what it says: it was enrolled by an earlier "
                "version; let it in again with: harmony enroll root@HOST --replace"
            ) from error
        from harmony_core.resources import first_problem  # noqa: PLC0415 - at start nobody waits for it

        raise ConfigError(f"{path}: {first_problem(error)}") from error
