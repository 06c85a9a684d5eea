"""What a login at a Wi-Fi network is proven by: certificates and keys in PEM.

NetworkManager takes any file, and whoever connects with it then fails with no word of why.
"""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from typing import Final

from harmony_core.resources import Enterprise

__all__ = ["find_login_problem"]

_MOST_BYTES: Final = 4 * 1024 * 1024
_ANY_STRENGTH: Final = "DEFAULT:@SECLEVEL=0"
"""How strong they have to be, the server says."""
_NOT_OF_ONE_ANOTHER: Final = frozenset(
    # The last two: one is of an elliptic curve, the other is not.
    {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}
)


def find_login_problem(root: Path, login: Enterprise, password: str | None) -> str | None:
    """Return why nobody can log in with the files of *login* below *root*; None where nothing is wrong.

    *password* is the one for its private key.
    """
    try:
        return _find_problem(root, login, password)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}; see why on the device"


def _find_problem(root: Path, login: Enterprise, password: str | None) -> str | None:
    for path in (login.ca_certificate, login.client_certificate):
        if path is not None and (problem := _find_certificate_problem(root, path)) is not None:
            return problem
    if login.client_certificate is None or login.private_key is None:
        return None
    return _find_key_problem(root, login.client_certificate, login.private_key, password)


def _find_certificate_problem(root: Path, path: str) -> str | None:
    place = root / path.lstrip("/")
    if (problem := _find_odd_file(place, path)) is not None:
        return problem
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(place)
        is_one = context.cert_store_stats()["x509"] > 0  # else what was loaded revokes some
    except ssl.SSLError:
        is_one = False
    if is_one:
        return None
    return f"{path} holds no certificate; give one in PEM, which begins with BEGIN CERTIFICATE"


def _find_key_problem(root: Path, certificate: str, key: str, password: str | None) -> str | None:
    place = root / key.lstrip("/")
    if (problem := _find_odd_file(place, key)) is not None:
        return problem
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(_ANY_STRENGTH)
    try:
        # Without a password, OpenSSL would ask for it at the terminal.
        context.load_cert_chain(root / certificate.lstrip("/"), place, lambda: password or "")
    except (
        ssl.SSLError,
        ValueError,
    ) as error:  # the latter for a password of more than 1,024 bytes
        if isinstance(error, ssl.SSLError) and error.reason in _NOT_OF_ONE_ANOTHER:
            return (
                f"the key {key} is not that of the certificate {certificate}; give both of one pair"
            )
        if password is None:
            return (
                f"{key} is no private key in PEM, or it is locked; correct it, or give its "
                "private_key_password"
            )
        return (
            f"{key} is no private key in PEM, or private_key_password does not unlock it; correct one "
            "of them"
        )
    return None


def _find_odd_file(place: Path, path: str) -> str | None:
    found = place.stat()
    if not stat.S_ISREG(found.st_mode):
        return f"{path} is no file; give the path of one"
    if found.st_size > _MOST_BYTES:
        return (
            f"{path} has more than 4 MiB, and is no certificate or key; give the path of one in PEM"
        )
    return None
