"""The operator's keys, made once and kept on the operator's machine alone; and whom it trusts.

    operator.key       one line with the key to sign with; or two, the URI of a key in a token
                       (`.token_key`), and its public half

Each operator has two: one to sign with, which devices trust, and one for the bus, which the server lets in.
Their public halves are the two lines of ``operator.pub``. Several operators may push to one device; what
another has signed is built upon only where that one's ``operator.pub`` lies in ``operators/``.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

import attrs

from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.envelope import Signer, SigningKey, VerifyKey, generate_key
from harmony_core.wire.names import is_public_nkey

from .home import Home, write_whole
from .nkey import Nkey
from .token_key import TokenKey, create_token_key
from .token_uri import TokenUri, is_token_uri

__all__ = [
    "PublicKeys",
    "create",
    "load",
    "load_all_public",
    "load_bus_keys",
    "load_public",
    "load_to_open",
    "load_trusted",
    "read_public",
    "read_signing_key",
    "trust",
]


def create(home: Home, *, token: str | None = None) -> VerifyKey:
    """Make the keys of *home* that are missing: an earlier version made only the one to sign with. With
    *token*, a URI, that one is in a token, which makes it where it has none.

    Raise UsageError if both are there: devices trust the one, the server the other.
    """
    is_signing, is_on_bus = home.operator_key.exists(), home.bus_seed.exists()
    if is_signing and (token or (is_on_bus and home.operator_pub.exists())):
        raise UsageError(
            f"{home.operator_key} exists and devices may trust it; keep it, or set HARMONY_HOME to "
            "another directory for another key"
        )
    public, text = _make_signing_key(token) if not is_signing else (load(home).public, "")
    home.make()
    bus = Nkey.read(home.bus_seed, made_by="harmony keygen") if is_on_bus else Nkey.new()
    if not is_on_bus:
        write_whole(home.bus_seed, bus.seed + "\n")
    if not is_signing:
        write_whole(home.operator_key, text)
    PublicKeys(public, bus.public).write(home.operator_pub)
    return public


def _make_signing_key(token: str | None) -> tuple[VerifyKey, str]:
    """Return the public half of a new key, and the content of operator.key."""
    if token is None:
        key = generate_key()
        return key.public, key.to_text() + "\n"
    uri = TokenUri.parse(token)
    public, _ = create_token_key(uri)
    return public, f"{uri.with_module()}\n{public.to_text()}\n"


def load(home: Home) -> Signer:
    """Return the key, to sign with. Raise ConfigError when it is missing, damaged, or readable by others."""
    home.refuse_open(home.operator_key)
    return read_signing_key(home.operator_key, made_by="harmony keygen")


def load_to_open(home: Home) -> SigningKey:
    """Return the key, to open what is sealed to it. Raise `ConfigError`, also where it is in a token: a token
    only signs."""
    key = load(home)
    if not isinstance(key, SigningKey):
        raise ConfigError(
            f"the fleet's secrets are opened by a key in a file, and {home.operator_key} names one in a "
            "token, which only signs; have another operator, whose key is a file, do this"
        )
    return key


def read_signing_key(path: Path, *, made_by: str) -> Signer:
    """Return the key in *path*, which the command *made_by* makes, or the one in a token that it names.

    `ConfigError` when it is missing, damaged, or readable by others.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"there is no signing key {path}; run `{made_by}` first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}; put back a copy of it") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others can read {path}, so it may be known; run `chmod 600 {path}`")
    try:
        return _read_token_key(text) if is_token_uri(text) else SigningKey.from_text(text)
    except UsageError as error:
        raise ConfigError(f"{path}: {error.message}") from error


def _read_token_key(text: str) -> TokenKey:
    uri, *public = text.splitlines()
    if len(public) != 1:
        raise ConfigError(
            "after the URI of a key in a token, a second line must be its public half, as `harmony trust key "
            "URI` prints it; add that"
        )
    return TokenKey(VerifyKey.from_text(public[0]), TokenUri.parse(uri))


def load_public(home: Home) -> VerifyKey:
    """Return its public half: what devices pin."""
    return load(home).public


def load_trusted(home: Home) -> tuple[VerifyKey, ...]:
    """Return whose signatures count here: the operator's own first, then those in ``operators/``, each once.
    A home that only opens waves for others has no key of its own."""
    others = [each.signing for each in load_all_public(home, home.operators).values()]
    own = [] if others and not home.operator_key.exists() else [load_public(home)]
    return tuple(dict.fromkeys((*own, *others)))


def trust(home: Home, keys: Iterable[VerifyKey]) -> None:
    """Accept the signatures of *keys* here too. Idempotent."""
    known = set(load_trusted(home))
    for key in keys:
        if key not in known:
            PublicKeys(key, None).write(home.operators / f"{key.id[:16]}.pub")


@attrs.frozen
class PublicKeys:
    """What an ``operator.pub`` says."""

    signing: VerifyKey
    bus: str | None
    """The public nkey; None in a file of an earlier version."""

    def write(self, path: Path) -> None:
        """Replace *path*. `ConfigError`."""
        lines = [self.signing.to_text(), *([self.bus] if self.bus else [])]
        write_whole(path, "".join(f"{line}\n" for line in lines), mode=0o644)


def load_bus_keys(home: Home, directory: Path) -> dict[str, str]:
    """Return the public nkeys of the operators in *directory*, by their names there; each key once.

    Who has renewed the key to sign with is there under several names, with one key for the bus.
    """
    names = {each.bus: name for name, each in load_all_public(home, directory).items()}
    return {name: key for key, name in names.items() if key is not None}


def load_all_public(home: Home, directory: Path) -> dict[str, PublicKeys]:
    """Return what each ``operator.pub`` in *directory*, of *home*, says, by its name there."""
    for each in (directory, *directory.glob("*.pub")):
        home.refuse_open(each)
    return {path.stem: read_public(path) for path in sorted(directory.glob("*.pub"))}


def read_public(path: Path) -> PublicKeys:
    """Return what *path*, an ``operator.pub``, says. `ConfigError` where it cannot be read."""
    try:
        signing, *rest = path.read_text().split()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}; put the operator's key there again"
        ) from error
    bus = rest[0] if rest else None
    if len(rest) > 1 or (bus is not None and not is_public_nkey(bus)):
        raise ConfigError(
            f"{path}: its second line is not the public key for the bus, which begins with U; have the "
            "operator send operator.pub again"
        )
    try:
        return PublicKeys(VerifyKey.from_text(signing), bus)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error
