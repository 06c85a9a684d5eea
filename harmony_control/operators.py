"""Other operators: who lets them in, and how they come in.

    bob:   harmony keygen -> operator.pub --by hand--> alice, where the server runs
    alice: harmony add-operator bob operator.pub -> operators/bob.pub, nats.conf -> bob.fleet --by hand--> bob
    bob:   harmony join bob.fleet -> control.toml, ca.pem

Who may push is trusted, too: what such a one signs is built upon, and devices enrolled later take it. Who may
only look is let into the bus, to read, and trusted by nobody.

The file that comes back holds no secret, but says which server to believe: it is worth as much as the way on
which it came.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

from harmony_core.close_names import did_you_mean
from harmony_core.errors import ConfigError, RootRejected, UsageError
from harmony_core.wire.envelope import VerifyKey
from harmony_core.wire.names import is_id
from harmony_core.wire.tls import verifying_context

from .bus.connection import close, connect
from .bus_url import bus_url
from .enrol import device_url
from .server.accounts import issue_operator, issue_reader
from .server.apply import changing, local_listen
from .store import operator_key
from .store.home import ControlConfig, Home, put_back, remove_file, write_toml, write_whole
from .store.nkey import Nkey
from .store.operator_key import PublicKeys
from .store.roots import read_chain, read_pins, save_root

if TYPE_CHECKING:
    from harmony_core.wire.root import Root

__all__ = ["Access", "FleetFile", "add_operator", "join", "remove_operator"]


Access: TypeAlias = Literal["push", "look"]
"""What another operator may do: all that one can who runs the server, or read what stands in the buckets."""


@attrs.frozen(kw_only=True)
class FleetFile:
    """What another operator must know of a fleet."""

    fleet: str
    url: str
    server_name: str
    ca: str
    operator_keys: tuple[str, ...] = ()
    """Of those who push, and say who a device is, in a fleet without a root document."""
    root: str | None = None
    """The root document, which says it."""
    jwt: str = ""
    """What lets this operator in; empty where the key alone does."""

    def write(self, path: Path) -> None:
        """Replace *path*. `ConfigError`."""
        table = {name: each for name, each in attrs.asdict(self).items() if each}
        write_toml(path, table, mode=0o644)

    @classmethod
    def read(cls, path: Path) -> FleetFile:
        """Return what *path* says. `ConfigError` where it is no such file."""
        try:
            table = tomllib.loads(path.read_text())
            found = cls(**table)
            verifying_context(found.ca)
            keys = tuple(VerifyKey.from_text(each).to_text() for each in found.operator_keys)
            found = attrs.evolve(found, url=bus_url(found.url), operator_keys=keys)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path} does not describe a fleet: {error}; `harmony add-operator` makes it, where the "
                "server runs"
            ) from error
        if (found.root is None) == (not found.operator_keys):
            raise ConfigError(f"{path} must have operator_keys, or else root; have it sent again")
        return found


def add_operator(
    home: Home, name: str, public: Path, *, access: Access = "push", url: str | None = None
) -> FleetFile:
    """Let the operator whose ``operator.pub`` is *public* use the bus; one who may push is trusted, too.

    Return what to send back. A running server accepts the key, with *access* and no more, when this returns.
    *url* is how the operator reaches it. Raise `UsageError` for a name or a key that another has;
    `ConfigError` for a file without both keys. Idempotent; also changes the access of an operator.
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
            "keygen` again, which adds one, and send operator.pub"
        )
    places = {each: path / f"{name}.pub" for each, path in _places(home).items()}
    with changing(home, *places.values()):
        config = home.control()
        reached = device_url(home, url)
        _refuse_taken(home, name, keys)
        issue = {"push": issue_operator, "look": issue_reader}[access]
        jwt = issue(home, keys.bus, name)
        for each, path in places.items():
            if each == access:
                keys.write(path)
            else:
                remove_file(path)
    pins = read_pins(home)
    return FleetFile(
        fleet=config.fleet,
        url=reached,
        server_name=config.server_name,
        ca=home.read_authority(config),
        operator_keys=pins.operator_keys,
        root=pins.root,
        jwt=jwt or "",
    )


def remove_operator(home: Home, name: str) -> Access:
    """Stop trusting that operator, and end the connection. Return what that one could do.

    All entries with the same key for the bus are removed, under whatever name. Raise `UsageError` where there
    is none of that name.
    """
    local_listen(home, home.control())  # else the key cannot be revoked from here
    let_in: dict[str, tuple[Access, PublicKeys]] = {
        each: (access, keys) for access, each, keys in _let_in(home)
    }
    if name not in let_in:
        there_are = f"; there are: {', '.join(sorted(let_in))}" if let_in else "; there is none"
        raise UsageError(f"there is no operator {name!r}{did_you_mean(name, let_in) or there_are}")
    access, keys = let_in[name]
    places = _places(home)
    doomed = [
        places[its] / f"{each}.pub"
        for its, each, theirs in _let_in(home)
        if each == name or (keys.bus is not None and theirs.bus == keys.bus)
    ]
    with changing(home, *doomed):
        for path in doomed:
            remove_file(path)
    return access


def _places(home: Home) -> dict[Access, Path]:
    return {"push": home.operators, "look": home.readers}


def _let_in(home: Home) -> Iterator[tuple[Access, str, PublicKeys]]:
    for access, directory in _places(home).items():
        for name, keys in operator_key.load_all_public(home, directory).items():
            yield access, name, keys


def _refuse_taken(home: Home, name: str, keys: PublicKeys) -> None:
    """Raise `UsageError` if the name is another operator's, or the key is known under another name."""
    for _, other, theirs in _let_in(home):
        # Of an earlier version, or put there by hand: only the key to sign with.
        is_same = theirs.signing == keys.signing and theirs.bus in {keys.bus, None}
        if other == name and not is_same:
            raise UsageError(
                f"there is another operator {name}; choose another name, or run `harmony remove-operator "
                f"{name}`"
            )
        if other != name and theirs.bus == keys.bus:
            raise UsageError(
                f"that key is let in as {other}; use that name, or run `harmony remove-operator {other}`"
            )


async def join(home: Home, path: Path) -> FleetFile:
    """Use the bus that the file *path* describes, from *home*, and trust the operators that it names.

    Nothing is written unless the bus accepts us. Raise `UsageError` where *home* has a server of its own, or
    is of another fleet; `BusUnreachable` where the server is not reached, is not the right one, or does not
    know our key yet.
    """
    fleet = FleetFile.read(path)
    if home.control_toml.exists():
        before = home.control()
        if before.listen is not None or before.fleet != fleet.fleet:
            raise UsageError(
                f"{home.root} is the home of the fleet {before.fleet!r}"
                f"{' and of its server' if before.listen else ''}; set HARMONY_HOME to another directory"
            )
    if not home.bus_seed.exists():
        raise ConfigError(
            f"there is no {home.bus_seed}; run `harmony keygen`, and have the one who runs the server let "
            "operator.pub in, with `harmony add-operator`"
        )
    root = None if fleet.root is None else _open_root(path, fleet)
    key = Nkey.read(home.bus_seed)
    client = await connect(
        fleet.url,
        seed=key.seed,
        jwt=fleet.jwt or None,
        authority=fleet.ca,
        server_name=fleet.server_name,
    )
    await close(client)
    write_whole(home.joined_authority, fleet.ca)
    operator_key.trust(home, map(VerifyKey.from_text, fleet.operator_keys))
    config = ControlConfig(
        fleet=fleet.fleet,
        url=fleet.url,
        admin_seed=home.bus_seed,
        authority=home.joined_authority,
        server_name=fleet.server_name,
    )
    if root is not None and fleet.root is not None and not read_chain(home):
        save_root(home, root.version, fleet.root.encode())
    put_back(config.jwt, f"{fleet.jwt}\n".encode() if fleet.jwt else None)
    home.save_control(config)
    return fleet


def _open_root(path: Path, fleet: FleetFile) -> Root:
    from harmony_core.wire.root import open_pinned_root

    assert fleet.root is not None
    try:
        return open_pinned_root(fleet.root.encode(), fleet=fleet.fleet)
    except RootRejected as error:
        raise ConfigError(f"{path}: {error.message}; have it sent again") from error
