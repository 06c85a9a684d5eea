"""Keys to sign with: a file that Harmony made, a hardware token, or any signer that securesystemslib knows.

    root.key                  one line, as `harmony trust key` and `harmony keygen` write it
    file2:root.pem            PEM (PKCS#8), in a file; beside it root.pub
    hv:NAME/VERSION           HashiCorp Vault's transit engine; the public half with --public; needs hvac
    pkcs11:token=…;object=…   a key in a hardware token (`.store.token_key`)

A device verifies Ed25519 alone, so only such a key is of use, wherever it is kept.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.envelope import Signer, VerifyKey, generate_key

from .store.home import write_whole
from .store.operator_key import read_signing_key
from .store.token_key import TokenKey, create_token_key, read_token_key
from .store.token_uri import TokenUri, is_token_uri

__all__ = [
    "create_key",
    "create_key_in_token",
    "load_signer",
    "public_path",
    "read_public_key",
]


def create_key(path: Path) -> VerifyKey:
    """Make a key in *path* (0600), and its public half beside it, ``.pub``. Raise `UsageError` where it
    exists."""
    for each in (path, public_path(path)):
        if each.exists():
            raise UsageError(f"{each} exists and may be in use; choose another file")
    key = generate_key()
    write_whole(path, key.to_text() + "\n")
    write_whole(public_path(path), key.public.to_text() + "\n", mode=0o644)
    return key.public


def create_key_in_token(text: str, half: Path | None) -> tuple[VerifyKey, bool]:
    """Return the public half of the key with the URI *text*, and whether it was made now, since the token had
    none.

    Write it into the file *half*. Raise `UsageError` where that exists; `ConfigError`.
    """
    if half is not None and half.exists():
        raise UsageError(f"{half} exists and may be in use; choose another file")
    public, is_made = create_token_key(TokenUri.parse(text))
    if half is not None:
        write_whole(half, public.to_text() + "\n", mode=0o644)
    return public, is_made


def public_path(path: Path) -> Path:
    """Return where the public half of the key in *path* is kept."""
    return path.with_name(f"{path.name.removesuffix('.key')}.pub")


def read_public_key(text: str) -> VerifyKey:
    """Return the key in the first line of the file *text*, such as an operator.pub, or the key of a token, by
    its URI. Raise `ConfigError`, `UsageError`."""
    if is_token_uri(text):
        return read_token_key(TokenUri.parse(text))
    path = _to_path(text)
    try:
        return VerifyKey.from_text(path.read_text().split("\n", 1)[0])
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error


def load_signer(text: str, public: Path | None = None) -> Signer:
    """Return the signer named by *text*: a file, or a URI, of a token or of securesystemslib's; *public* is
    its public half.

    Raise `ConfigError` where it is missing, readable by others, or no Ed25519 key; `UsageError`.
    """
    if is_token_uri(text):
        return TokenKey.load(
            TokenUri.parse(text), None if public is None else read_public_key(str(public))
        )
    path = _to_path(text)
    scheme, colon, rest = text.partition(":")
    if not colon or path.exists():
        return read_signing_key(path, made_by="harmony trust key")
    if public is None:
        beside = public_path(Path(rest.removesuffix(".pem")))
        if scheme != "file2" or not beside.exists():
            raise UsageError(f"{text}: name the file with its public half, with --public")
        public = beside
    return _Foreign.load(text, read_public_key(str(public)))


def _to_path(text: str) -> Path:
    if "\0" in text:
        raise UsageError(f"{text!r} has a null character, and no file has; name the file of a key")
    return Path(text)


@attrs.frozen
class _Foreign:
    """A signer of securesystemslib's."""

    public: VerifyKey
    _signer: Any
    _uri: str

    @classmethod
    def load(cls, uri: str, public: VerifyKey) -> _Foreign:
        # Loaded for who keeps keys elsewhere: it is large. Its names are typed in other modules than these.
        known: Any = import_module("securesystemslib.signer")
        key = known.SSlibKey(public.id, "ed25519", "ed25519", {"public": public.public.hex()})
        try:
            return cls(public, known.Signer.from_priv_key_uri(uri, key), uri)
        except Exception as error:  # whatever stands behind the URI
            raise ConfigError(f"{uri} cannot be used: {error}") from error

    def sign(self, message: bytes) -> bytes:
        """Sign *message*. Raise `ConfigError` if the holder of the key does not sign."""
        try:
            return bytes.fromhex(self._signer.sign(message).signature)
        except Exception as error:  # as above
            raise ConfigError(f"{self._uri} did not sign: {error}") from error
