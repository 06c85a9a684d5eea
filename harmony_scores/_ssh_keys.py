"""Public keys of ssh, as lines of authorized_keys: read as sshd(8) reads them, so that none is ignored there.

    [options] type base64 [comment]

What is refused is told without the text itself, which may be a private key.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

__all__ = ["check_line", "key_in"]

_TYPES: Final = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
"""Of each type of key, how many parts it has behind the name of its type."""
_FLAGS: Final = frozenset(
    {
        *("agent-forwarding", "cert-authority", "no-agent-forwarding", "no-port-forwarding"),
        *("no-pty", "no-user-rc", "no-x11-forwarding", "port-forwarding", "pty", "restrict"),
        *("user-rc", "x11-forwarding", "no-touch-required", "verify-required"),
    }
)
_VALUED: Final = frozenset(
    {
        "command",
        "environment",
        "expiry-time",
        "from",
        "permitlisten",
        "permitopen",
        "principals",
        "tunnel",
    }
)
_OPTION: Final = re.compile(r'([A-Za-z0-9-]+)(?:=("(?:[^"\\]|\\.)*"))?(,|$)')
_ED25519_BYTES: Final = 32
_RSA_MIN_BITS: Final = 2048
_MOST: Final = 16 * 1024


def check_line(line: str) -> None:
    """Raise ValueError, with what to write, unless *line* is one that sshd accepts."""
    if "PRIVATE KEY" in line or line.startswith("PuTTY-User-Key-File"):
        raise ValueError(
            "is a private key, which nobody else may ever have; take it out, count it as known to others "
            "(make a new one by ssh-keygen), and write the line in the file that ends in .pub"
        )
    if "BEGIN SSH2 PUBLIC KEY" in line:
        raise ValueError("is not as OpenSSH has it; write what `ssh-keygen -i -f FILE` prints")
    if not line.isprintable() or line != line.strip() or len(line) > _MOST:
        raise ValueError(
            "is no single line of plain text; write the line in the file that ends in .pub"
        )
    options, key_type, blob = _split(line)
    if key_type in {"ssh-dss", "ssh-dsa"}:
        raise ValueError(
            "is a DSA key, which no sshd takes any more; make one by: ssh-keygen -t ed25519"
        )
    if "-cert-v0" in key_type:
        raise ValueError(
            "is a certificate; write the key of who signs them, with cert-authority before it"
        )
    if key_type not in _TYPES:
        raise ValueError(
            "is no public key of ssh; write the line in the file that ends in .pub, as it is"
        )
    _check_options(options)
    _check_blob(key_type, blob)


def key_in(line: str) -> str:
    """Return what two lines of one key have in common."""
    return _split(line)[2]


def _split(line: str) -> tuple[str, str, str]:
    """Return the options, the type and the key, each empty where it is missing."""
    words = line.split(" ")
    if words[0] in _TYPES or words[0].startswith(("ssh-", "ecdsa-", "sk-")):
        options, rest = "", line
    else:
        end = _end_of_options(line)
        options, rest = line[:end], line[end:].lstrip(" ")
    key_type, _, rest = rest.partition(" ")
    return options, key_type, rest.lstrip(" ").partition(" ")[0]


def _end_of_options(line: str) -> int:
    is_quoted = is_escaped = False
    for at, character in enumerate(line):
        if is_escaped:
            is_escaped = False
        elif character == "\\" and is_quoted:
            is_escaped = True
        elif character == '"':
            is_quoted = not is_quoted
        elif character == " " and not is_quoted:
            return at
    return len(line)


def _check_options(options: str) -> None:
    at = 0
    while at < len(options):
        found = _OPTION.match(options, at)
        name = "" if found is None else found[1].lower()
        is_known = found is not None and name in (_VALUED if found[2] else _FLAGS)
        if found is None or not is_known or (found[3] == "," and found.end() == len(options)):
            known = ", ".join(sorted({*_FLAGS, *(f'{each}="…"' for each in _VALUED)}))
            raise ValueError(
                f"has an option that sshd does not know, so that it would ignore the key; allowed: {known}"
            )
        at = found.end()


def _check_blob(key_type: str, blob: str) -> None:
    cut = ValueError(
        "is not whole, or has been changed; copy the line in the file that ends in .pub anew"
    )
    try:
        key = base64.b64decode(blob, validate=True)
    except (binascii.Error, ValueError):
        raise cut from None
    parts: list[bytes] = []
    while key:
        size = int.from_bytes(key[:4], "big")
        if len(key) < 4 + size:
            raise cut
        parts.append(key[4 : 4 + size])
        key = key[4 + size :]
    if not parts or parts[0] != key_type.encode() or len(parts) != _TYPES[key_type] + 1:
        raise cut
    if key_type == "ssh-ed25519" and len(parts[1]) != _ED25519_BYTES:
        raise cut
    if key_type == "ssh-rsa":
        bits = int.from_bytes(parts[2], "big").bit_length()
        if bits < _RSA_MIN_BITS:
            raise ValueError(
                f"has {bits} bits, which is too short to be safe; make one by: ssh-keygen -t ed25519"
            )
