"""Other operators: who lets them in, and how they come in.

    bob:   harmony keygen -> operator.pub --by hand--> alice, where the server runs
    alice: harmony add-operator bob operator.pub -> operators/bob.pub, nats.conf -> bob.fleet --by hand--> bob
    bob:   harmony join bob.fleet -> control.toml, ca.pem

The file that comes back holds no secret, but says which server to believe: it is worth as much as the way on
which it came.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.names import is_id
from harmony_core.wire.tls import verifying_context

from .bus.connection import close, connect
from .bus.url import bus_url
from .enrol import device_url
from .server.apply import changing, local_listen
from .store import operator_key
from .store.home import ControlConfig, Home, write_toml, write_whole
from .store.nkey import Nkey

__all__ = ["FleetFile", "add_operator", "join", "remove_operator"]


@attrs.frozen(kw_only=True)
class FleetFile:
    """What another operator must know of a fleet."""

    fleet: str
    url: str
    server_name: str
    ca: str

    def write(self, path: Path) -> None:
        """Replace *path*. `ConfigError`."""
        write_toml(path, attrs.asdict(self), mode=0o644)

    @classmethod
    def read(cls, path: Path) -> FleetFile:
        """Return what *path* says. `ConfigError` where it is no such file."""
        try:
            table = tomllib.loads(path.read_text())
            found = cls(**table)
            verifying_context(found.ca)
            return attrs.evolve(found, url=bus_url(found.url))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path} does not describe a fleet: {error}; `harmony add-operator` makes it, where the "
                "server runs"
            ) from error


def add_operator(home: Home, name: str, public: Path, *, url: str | None = None) -> FleetFile:
    """Trust the operator whose ``operator.pub`` is *public*, and let that one into the bus.

    Return what to send back. A running server lets the key in when this returns. *url* is how the operator
    reaches it. `UsageError` for a name that another has; `ConfigError` for a file without both keys.
    Idempotent.
    """
    if not is_id(name):
        raise UsageError(
            f"{name!r} cannot be an operator's name; use 1 to 63 lower-case letters, digits and inner "
            "hyphens, such as bob"
        )
    keys = operator_key.read_public(public)
    if keys.bus is None:
        raise ConfigError(
            f"{public} has no key for the bus: it was made by an earlier version. Have {name} run `harmony "
            "keygen` in a new HARMONY_HOME, and send operator.pub"
        )
    path = home.operators / f"{name}.pub"
    with changing(home, path):
        config = home.control()
        reached = device_url(home, url)
        if path.exists() and operator_key.read_public(path) != keys:
            raise UsageError(
                f"there is another operator {name}; choose another name, or run `harmony remove-operator "
                f"{name}`"
            )
        for other in operator_key.find_bus_key(home, keys.bus):
            if other != path:
                raise UsageError(
                    f"that is the key of the operator {other.stem}; run `harmony remove-operator "
                    f"{other.stem}` first"
                )
        write_whole(path, f"{keys.signing.to_text()}\n{keys.bus}\n", mode=0o644)
    return FleetFile(
        fleet=config.fleet,
        url=reached,
        server_name=config.server_name,
        ca=home.read_authority(config),
    )


def remove_operator(home: Home, name: str) -> None:
    """Trust that operator no longer, and cut the connection. `UsageError` where there is none so named.

    What is there with the same key for the bus, under whatever name, goes with it.
    """
    local_listen(home, home.control())  # else the key cannot be revoked from here
    known = [each.stem for each in home.operators.glob("*.pub")]
    if name not in known:
        raise UsageError(f"there is no operator {name!r}{did_you_mean(name, known)}")
    path = home.operators / f"{name}.pub"
    key = operator_key.read_public(path).bus
    doomed = [path] if key is None else operator_key.find_bus_key(home, key)
    with changing(home, *doomed):
        for each in doomed:
            each.unlink(missing_ok=True)


async def join(home: Home, path: Path) -> FleetFile:
    """Use the bus that the file *path* describes, from *home*. Nothing is written unless it lets us in.

    `UsageError` where *home* has a server of its own, or is of another fleet; `BusUnreachable` where the
    server is not reached, is not the one that is meant, or does not know our key yet.
    """
    fleet = FleetFile.read(path)
    if home.control_toml.exists():
        before = home.control()
        if before.listen is not None or before.fleet != fleet.fleet:
            raise UsageError(
                f"{home.root} is the home of the fleet {before.fleet!r}"
                f"{' and of its server' if before.listen else ''}; set HARMONY_HOME to another directory"
            )
    key = Nkey.read(home.bus_seed, made_by="harmony keygen")
    client = await connect(
        fleet.url, seed=key.seed, authority=fleet.ca, server_name=fleet.server_name
    )
    await close(client)
    write_whole(home.joined_authority, fleet.ca)
    home.save_control(
        ControlConfig(
            fleet=fleet.fleet,
            url=fleet.url,
            admin_seed=home.bus_seed,
            authority=home.joined_authority,
            server_name=fleet.server_name,
        )
    )
    return fleet
