"""NATS keys (nkeys): with what one logs in, or signs JWTs. The seed is secret."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs
import nkeys as _untyped  # type: ignore[import-untyped] # pyright: ignore[reportMissingTypeStubs] - it has no types

from harmony_core.errors import ConfigError

__all__ = ["AccountKeys", "Issuer", "Nkey"]

_nkeys: Any = _untyped

_SEED_BYTES = 32


@attrs.frozen(repr=False)
class Nkey:
    """A user's key pair in NATS' text forms: seed ``SU…``, public ``U…``."""

    seed: str
    public: str

    @classmethod
    def new(cls) -> Nkey:
        return cls.of_seed(
            _nkeys.encode_seed(secrets.token_bytes(_SEED_BYTES), _nkeys.PREFIX_BYTE_USER).decode()
        )

    @classmethod
    def read(cls, path: Path, *, made_by: str = "harmony server") -> Nkey:
        """Return the pair whose seed is in *path*; ConfigError, naming the file, where there is none."""
        try:
            return cls.of_seed(path.read_text())
        except OSError as error:
            raise ConfigError(
                f"cannot read {path}: {error.strerror}; `{made_by}` makes it"
            ) from error
        except (UnicodeDecodeError, ConfigError) as error:
            raise ConfigError(
                f"{path}: not an nkey seed, which begins with SU and has 58 characters; put back a "
                f"copy of it, or remove it and run `{made_by}`, which makes a new one"
            ) from error

    @classmethod
    def of_seed(cls, seed: str) -> Nkey:
        """Return the pair of *seed*, white space around it ignored; ConfigError if it is not a user's
        seed."""
        text = seed.strip()
        try:
            pair = _nkeys.from_seed(bytearray(text.encode()))
            public: str = pair.public_key.decode()
        except (_nkeys.NkeysError, ValueError) as error:
            raise ConfigError(
                "not an nkey seed; it begins with SU and has 58 characters"
            ) from error
        if not public.startswith("U"):
            raise ConfigError("an nkey seed, but not a user's; it begins with SU")
        return cls(text, public)


_Kind: TypeAlias = Literal["operator", "account"]
_PREFIXES: dict[_Kind, int] = {
    "operator": _nkeys.PREFIX_BYTE_OPERATOR,
    "account": _nkeys.PREFIX_BYTE_ACCOUNT,
}


@attrs.frozen(repr=False)
class Issuer:
    """The key pair of who signs JWTs: an operator's (seed ``SO…``, public ``O…``) or an account's (``SA…``,
    ``A…``)."""

    seed: str
    public: str

    @classmethod
    def new(cls, kind: _Kind) -> Issuer:
        seed = _nkeys.encode_seed(secrets.token_bytes(_SEED_BYTES), _PREFIXES[kind])
        return cls.of_seed(seed.decode())

    @classmethod
    def of_seed(cls, seed: str) -> Issuer:
        """Return the pair of *seed*; ConfigError if it is not one of an operator or an account."""
        try:
            public: str = _nkeys.from_seed(bytearray(seed.encode())).public_key.decode()
        except (_nkeys.NkeysError, ValueError) as error:
            raise ConfigError(
                "not an nkey seed; an account's begins with SA, and has 58 characters"
            ) from error
        if public[0] not in "OA":
            raise ConfigError("an nkey seed, but not an operator's or an account's")
        return cls(seed, public)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of *data*."""
        signature: bytes = _nkeys.from_seed(bytearray(self.seed.encode())).sign(data)
        return signature


@attrs.frozen
class AccountKeys:
    """Who an account is, and with what its users are let in."""

    identity: Issuer
    signing: Issuer
