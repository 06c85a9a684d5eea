"""A key in a hardware token, which signs there and never leaves it, by the PKCS#11 library of its maker.

    URI  ->  library  ->  the one token  ->  its PIN, once  ->  the one key  ->  CKM_EDDSA  ->  verified

A signature counts only once it was verified with the public half: what the token has made is not believed
because it says so. A PIN that was refused is not sent again by this process to that token, whichever URI
names it, since a few wrong ones lock the token.

Every library is called in one thread, which does nothing else: a library may bear no two at a time, and one
that uses OpenSSL leaves errors in its queue, of which each thread has one. In the caller's, TLS would take
them for its own, and end the connection to the bus. Only a PIN is asked for where the caller is.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs

from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.envelope import VerifyKey, is_valid_signature

from .access import refuse_others
from .token_uri import TokenUri, format_id

if TYPE_CHECKING:
    from pkcs11 import Attribute, Object, ObjectClass, Session, SignMixin, Token
    from pkcs11._pkcs11 import lib

__all__ = ["TokenKey", "create_token_key", "forget_sessions", "read_token_key"]

_Result = TypeVar("_Result")

_ED25519: Final = bytes.fromhex("06032b6570")
"""Its object identifier, 1.3.101.112, as DER has it."""
_ED448: Final = bytes.fromhex("06032b6571")
_POINT_PREFIXES: Final = (b"", b"\x04\x20", b"\x03\x21\x00")
"""Before the 32 bytes of a public key stands nothing, or the head of a DER octet string or bit string."""
_ID_BYTES = 8
_PIN_FILE_MOST: Final = 1024
"""Bytes."""

_lock = threading.RLock()
_thread = ThreadPoolExecutor(1, "pkcs11")
_sessions: dict[tuple[Path, bytes], Session] = {}
"""By library and serial number: logged in once, for as long as the process runs."""
_refused: dict[tuple[Path, bytes, bytes], str] = {}
"""By library, serial number and the hash of a PIN: what was said of that PIN."""

_TAKEN_OUT = (
    "the token, or the key in it, is not there any more; put it in again, and do this once more"
)
_NO_EDDSA = (
    "it does not sign as devices verify, with Ed25519 (CKM_EDDSA); use a token, or a newer firmware and "
    "library, of which `pkcs11-tool --list-mechanisms` lists EDDSA"
)
_WRONG_PIN = (
    "the PIN is wrong; look which one it has before you try again, since a few wrong ones lock it"
)
_REMEDIES: Final = {
    "PinIncorrect": _WRONG_PIN,
    "PinInvalid": _WRONG_PIN,
    "PinLenRange": _WRONG_PIN,
    "PinLocked": "its PIN is locked, after too many wrong ones; unlock it by its maker's program",
    "PinExpired": "its PIN has expired; set another one by its maker's program",
    "UserPinNotInitialized": "it has no PIN yet; set one by its maker's program",
    "UserNotLoggedIn": "it asks for a PIN in a way that is not known here; use another token",
    "TokenNotPresent": _TAKEN_OUT,
    "TokenNotRecognised": _TAKEN_OUT,
    "DeviceRemoved": _TAKEN_OUT,
    "SlotIDInvalid": _TAKEN_OUT,
    "SessionHandleInvalid": _TAKEN_OUT,
    "SessionClosed": _TAKEN_OUT,
    "ObjectHandleInvalid": _TAKEN_OUT,
    "KeyHandleInvalid": _TAKEN_OUT,
    "MechanismInvalid": _NO_EDDSA,
    "KeyTypeInconsistent": _NO_EDDSA,
    "DomainParamsInvalid": _NO_EDDSA,
    "TokenWriteProtected": "it is write-protected; make the key by its maker's program",
    "SessionReadOnly": "it is write-protected; make the key by its maker's program",
}
"""By what the library says: the names of python-pkcs11, which are those of PKCS#11."""
_UNKNOWN = (
    "take it out, put it in again, and do this once more; else see what its maker says of that"
)
_PIN_REFUSED: Final = frozenset({"PinIncorrect", "PinInvalid", "PinLenRange", "PinLocked"})


@attrs.frozen
class TokenKey:
    """Signs as *uri* says, with the key whose public half is *public*. The token is asked when it signs."""

    public: VerifyKey
    uri: TokenUri

    @classmethod
    def load(cls, uri: TokenUri, public: VerifyKey | None = None) -> Self:
        """Find the key, and its public half, in the token. A *public* that is given must be the same one; a
        token that keeps no public half needs it. Raise `UsageError`, `ConfigError`."""
        with _explaining(uri):
            session = _log_in(uri)
            found = _call(lambda: _find_public(session, uri, _find_private(session, uri)))
        half = found or public
        if half is None:
            raise UsageError(
                f"{uri.text}: the token keeps no public half of {uri.key_name}; name its file, with --public"
            )
        if public is not None and public != half:
            raise ConfigError(
                f"{uri.text}: the key in the token is {half.id[:16]}…, and not the one that was named; name "
                f"the file with the public half of this key: {half.to_text()}"
            )
        return cls(half, uri)

    def sign(self, message: bytes) -> bytes:
        """Sign *message*. Raise `ConfigError` if the token is gone, or its signature is wrong."""
        with _explaining(self.uri):
            session = _log_in(self.uri)
            key, wants_pin = _call(lambda: _find_signing(session, self.uri))
            pin = _read_pin(self.uri, session.token) if wants_pin else None
            signature = _send_pin(
                self.uri, session.token.serial, pin, lambda: _sign(key, message, pin)
            )
        if len(signature) != 64 or not is_valid_signature(self.public.public, message, signature):
            raise ConfigError(
                f"{self.uri.text}: what the token has signed is not by {self.public.id[:16]}…; if another "
                "key was put in its place, name that one's public half"
            )
        return signature


def read_token_key(uri: TokenUri) -> VerifyKey:
    """Return the public half of the key, which has signed once, so that whoever writes it down can rely on
    it: a public half alone, which the token tells everybody, may be that of another key. `ConfigError`."""
    key = TokenKey.load(uri)
    key.sign(b"")
    return key.public


def create_token_key(uri: TokenUri) -> tuple[VerifyKey, bool]:
    """Return the public half of the key, as `read_token_key`, and whether it was made now, since the token
    had none of that name."""
    with _explaining(uri):
        session = _log_in(uri, is_to_write=True)
        is_made = _call(lambda: _generate_where_none(session, uri))
    return read_token_key(uri), is_made


def _call(function: Callable[[], _Result]) -> _Result:
    """Return what *function*, which calls a library, returns in the thread for that."""
    return _thread.submit(function).result()


def _send_pin(
    uri: TokenUri, serial: bytes, pin: str | object | None, function: Callable[[], _Result]
) -> _Result:
    """Return what *function* returns, which sends *pin* to the token with that *serial*. `ConfigError` for a
    PIN that was refused before, whoever names it."""
    from pkcs11 import PKCS11Error

    if not isinstance(pin, str):
        return _call(function)
    sent = uri.module, serial, hashlib.sha256(pin.encode()).digest()
    if sent in _refused:
        raise ConfigError(
            f"{uri.text}: {_refused[sent]}. This PIN is not sent again until this program is started anew"
        )
    try:
        return _call(function)
    except PKCS11Error as error:
        if (name := type(error).__name__) in _PIN_REFUSED:
            _refused[sent] = _explain(name)
        raise


def _explain(name: str) -> str:
    """Return what the library says by *name*, with what to do."""
    return f"the token refuses ({name}): {_REMEDIES.get(name, _UNKNOWN)}"


def _find_signing(session: Session, uri: TokenUri) -> tuple[SignMixin, bool]:
    """Return the key, and whether it wants the PIN for each signature."""
    from pkcs11 import Attribute

    key = _find_private(session, uri)
    return key, bool(_get(key, Attribute.ALWAYS_AUTHENTICATE))


def _sign(key: SignMixin, message: bytes, pin: Any) -> bytes:
    from pkcs11 import Mechanism

    return key.sign(message, mechanism=Mechanism.EDDSA, pin=pin)


def _generate_where_none(session: Session, uri: TokenUri) -> bool:
    """Make the key, unless the token has one of that name. Return whether it was made."""
    from pkcs11 import Attribute, KeyType, Mechanism

    if _list_private(session, uri):
        return False
    if uri.label is None:
        raise UsageError(f"{uri.text}: say how the key is to be called, by object=LABEL")
    parameters = session.create_domain_parameters(
        KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: _ED25519}, local=True
    )
    parameters.generate_keypair(
        mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
        store=True,
        label=uri.label,
        id=uri.id or secrets.token_bytes(_ID_BYTES),
        public_template={Attribute.PRIVATE: False},
        private_template={Attribute.EXTRACTABLE: False},
    )
    return True


def _find_token(uri: TokenUri) -> Token:
    """Return the one token that *uri* means. `ConfigError` for none, and for several."""
    tokens = _list_tokens(uri)
    fitting = [each for each in tokens if _fits(each, uri.token)]
    if len(fitting) == 1:
        return fitting[0]
    there = ", ".join(f"{each.label!r} (serial {_serial_of(each)})" for each in tokens) or "none"
    if fitting:
        raise ConfigError(
            f"{uri.text}: {len(fitting)} tokens are there that are {uri.token_name}; say which, by serial=: "
            f"{there}"
        )
    raise ConfigError(
        f"{uri.text}: there is no token that is {uri.token_name}; put it in, or name another. There now: "
        f"{there}"
    )


def _list_tokens(uri: TokenUri) -> list[Token]:
    """Return the tokens that are there and can be used. A broken one does not prevent the use of others."""
    from pkcs11 import PKCS11Error, TokenFlag

    found: list[Token] = []
    for slot in _load_library(uri).get_slots(token_present=True):
        with suppress(PKCS11Error, UnicodeDecodeError):
            found.append(slot.get_token())
    return [each for each in found if each.flags & TokenFlag.TOKEN_INITIALIZED]


def _load_library(uri: TokenUri) -> lib:
    import pkcs11

    if not uri.module.is_file():
        raise ConfigError(
            f"{uri.text}: there is no library {uri.module}; install the one of the token's maker, or name "
            "where it is"
        )
    refuse_others(uri.module, uri.module.stat(), "have a program of theirs run here")
    try:
        return pkcs11.lib(str(uri.module))
    except pkcs11.PKCS11Error as error:
        raise ConfigError(
            f"{uri.text}: {uri.module} is no PKCS#11 library that can be used here: {error}; name the one of "
            "the token's maker"
        ) from error


def _fits(token: Token, wanted: dict[str, str]) -> bool:
    has = {
        "token": token.label,
        "serial": _serial_of(token),
        "manufacturer": token.manufacturer_id,
        "model": token.model,
    }
    return all(has[name] == value for name, value in wanted.items())


def _serial_of(token: Token) -> str:
    return token.serial.decode(errors="replace")


def _log_in(uri: TokenUri, *, is_to_write: bool = False) -> Session:
    """Return the session with the token, in which its PIN was given; *is_to_write* where a key is made."""
    found = _call(lambda: _find_session(uri, is_to_write=is_to_write))
    if not isinstance(found, tuple):
        return found
    place, token = found
    pin = _read_pin(uri, token)
    session = _sessions[place] = _send_pin(
        uri, token.serial, pin, lambda: token.open(rw=is_to_write, user_pin=pin)
    )
    return session


def _find_session(
    uri: TokenUri, *, is_to_write: bool
) -> Session | tuple[tuple[Path, bytes], Token]:
    """Return the session that there is; else the token, and under what its session is to be kept."""
    token = _find_token(uri)
    place = uri.module, token.serial
    found = _sessions.get(place)
    if found is not None and _is_open(found) and (found.rw or not is_to_write):
        return found
    if found is not None:
        _close_sessions(uri.module)
    return place, token


def _is_open(session: Session) -> bool:
    """Return whether the token has not been taken out since. Asked by what harms nothing; a token that makes
    no random numbers is open all the same."""
    from pkcs11 import exceptions

    try:
        session.generate_random(64)
    except (
        exceptions.SessionHandleInvalid,
        exceptions.SessionClosed,
        exceptions.DeviceRemoved,
        exceptions.TokenNotPresent,
    ):
        return False
    except exceptions.PKCS11Error:
        return True
    return True


def _read_pin(uri: TokenUri, token: Token) -> str | object:
    """Return the PIN: from the file that is named, else from whoever sits here."""
    from pkcs11 import PROTECTED_AUTH, TokenFlag

    if token.flags & TokenFlag.USER_PIN_LOCKED:
        raise ConfigError(f"{uri.text}: {_REMEDIES['PinLocked']}")
    if token.flags & TokenFlag.PROTECTED_AUTHENTICATION_PATH:
        return PROTECTED_AUTH  # typed at the token itself
    is_last = bool(token.flags & TokenFlag.USER_PIN_FINAL_TRY)
    if uri.pin_file is not None:
        if is_last:
            raise ConfigError(
                f"{uri.text}: one wrong PIN more locks the token, so none is sent out of a file; type the "
                "right one once: harmony trust key URI, without pin-source"
            )
        return _read_pin_file(uri.pin_file)
    if not sys.stdin.isatty():
        raise UsageError(
            f"{uri.text}: nobody is here to type the PIN; put it into a file, and add pin-source=file:/PATH"
        )
    warning = " (one wrong one more locks it)" if is_last else ""
    if pin := getpass.getpass(f"PIN of the token {token.label}{warning}: "):
        return pin
    raise UsageError(f"{uri.text}: no PIN was typed, and nothing was signed; do this once more")


def _read_pin_file(path: Path) -> str:
    try:
        # A pipe would have its reader wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _refuse_odd_file(path, os.fstat(descriptor))
            pin = file.read(_PIN_FILE_MOST).decode().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the PIN in {path}: {error}; put it there") from error
    if not pin or "\n" in pin:
        raise ConfigError(f"{path} is not one line with a PIN; put it there")
    return pin


def _refuse_odd_file(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_size > _PIN_FILE_MOST:
        raise ConfigError(f"{path} is not a file of one line with a PIN; put it there")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(f"others can read {path}, and with it the PIN; run `chmod 600 {path}`")
    refuse_others(path, found, "have a wrong PIN lock the token")


def _list_private(session: Session, uri: TokenUri) -> list[Object]:
    from pkcs11 import ObjectClass

    return _list_keys(session, ObjectClass.PRIVATE_KEY, uri.label, uri.id)


def _list_public(session: Session, label: str | None, id: bytes | None) -> list[Object]:
    from pkcs11 import ObjectClass

    return _list_keys(session, ObjectClass.PUBLIC_KEY, label, id)


def _list_keys(
    session: Session, kind: ObjectClass, label: str | None, id: bytes | None
) -> list[Object]:
    from pkcs11 import Attribute

    wanted = {Attribute.CLASS: kind, Attribute.LABEL: label, Attribute.ID: id}
    return list(
        session.get_objects({name: value for name, value in wanted.items() if value is not None})
    )


def _find_private(session: Session, uri: TokenUri) -> SignMixin:
    """Return the one private key that *uri* means, which is Ed25519. `ConfigError` otherwise."""
    from pkcs11 import Attribute, KeyType, SignMixin

    found = _list_private(session, uri)
    if not found:
        raise ConfigError(
            f"{uri.text}: the token {session.token.label!r} has no private key {uri.key_name}; name one that "
            f"it has, or make it: harmony trust key '{uri.text}'"
        )
    if len(found) > 1:
        ids = ", ".join(format_id(_get(each, Attribute.ID) or b"") or "none" for each in found)
        raise ConfigError(
            f"{uri.text}: the token {session.token.label!r} has {len(found)} private keys {uri.key_name}; "
            f"say which, by id=: {ids}"
        )
    (key,) = found
    kind = _get(key, Attribute.KEY_TYPE)
    curve = _get(key, Attribute.EC_PARAMS)
    if kind != KeyType.EC_EDWARDS or curve == _ED448:
        name = getattr(kind, "name", kind)
        raise ConfigError(
            f"{uri.text}: {uri.key_name} is a key of the kind {name}, and devices verify Ed25519 alone; make "
            "such a key, under another name: harmony trust key URI"
        )
    if not isinstance(key, SignMixin):
        raise ConfigError(
            f"{uri.text}: {uri.key_name} may not sign, by what the token says; use another"
        )
    return key


def _find_public(session: Session, uri: TokenUri, key: Object) -> VerifyKey | None:
    """Return the public half of *key*; None where the token keeps none. The two have one id, or one name."""
    from pkcs11 import Attribute

    own_id: bytes | None = _get(key, Attribute.ID) or None
    found = _list_public(session, None if own_id else uri.label, own_id)
    points = {point for each in (*found, key) if (point := _decode_point(each)) is not None}
    if len(points) > 1:
        raise ConfigError(
            f"{uri.text}: the token has {len(points)} public keys with the id of {uri.key_name}; take away "
            "the one that is not its half, or give each key an id of its own"
        )
    return points.pop() if points else None


def _decode_point(key: Object) -> VerifyKey | None:
    from pkcs11 import Attribute, KeyType

    if _get(key, Attribute.KEY_TYPE) != KeyType.EC_EDWARDS:
        return None
    point = _get(key, Attribute.EC_POINT)
    if not isinstance(point, bytes) or point[:-32] not in _POINT_PREFIXES or len(point) < 32:
        return None
    return VerifyKey(point[-32:])


def _get(key: Object, name: Attribute) -> Any:
    """Return an attribute of *key*; None where the token does not tell it."""
    from pkcs11 import PKCS11Error

    try:
        return key[name]
    except (PKCS11Error, ValueError, NotImplementedError):
        return None


@contextmanager
def _explaining(uri: TokenUri) -> Generator[None]:
    """Raise what the library says as a `ConfigError`, with what to do. For one caller at a time."""
    try:
        from pkcs11 import PKCS11Error
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{uri.text}: keys in a token need {error.name}, which is not installed here; install Harmony "
            "with pkcs11.lock as well"
        ) from error
    with _lock:
        try:
            yield
        except PKCS11Error as error:
            forget_sessions(uri.module)
            raise ConfigError(f"{uri.text}: {_explain(type(error).__name__)}") from error


def forget_sessions(module: Path) -> None:
    """Have the next caller log in again: a token that was taken out forgets the login."""
    _call(lambda: _close_sessions(module))


def _close_sessions(module: Path) -> None:
    from pkcs11 import PKCS11Error

    for place in [each for each in _sessions if each[0] == module]:
        with suppress(PKCS11Error):
            _sessions.pop(place).close()
