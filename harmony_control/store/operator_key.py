"""The operator's signing key, made once and kept on the operator's machine alone; and whom it trusts.

Several operators may push to one device: each signs with a key of their own, and what another has signed is
built upon only where that one's public key lies in ``operators/``.
"""

from __future__ import annotations

import stat
from pathlib import Path

from harmony_core.errors import ConfigError, UsageError
from harmony_core.wire.envelope import SigningKey, VerifyKey, generate_key

from .home import Home, write_whole

__all__ = ["create", "load", "load_public", "load_trusted"]


def create(home: Home) -> VerifyKey:
    """Make the key of *home*. UsageError if there is one: devices already trust it."""
    if home.operator_key.exists():
        raise UsageError(
            f"{home.operator_key} exists and devices may trust it; keep it, or set HARMONY_HOME to "
            "another directory for another key"
        )
    home.make()
    key = generate_key()
    write_whole(home.operator_key, key.to_text() + "\n")
    write_whole(home.operator_pub, key.public.to_text() + "\n", mode=0o644)
    return key.public


def load(home: Home) -> SigningKey:
    """Return the key, to sign with. ConfigError when it is missing, damaged, or readable by others."""
    path = home.operator_key
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError(f"there is no signing key {path}; run `harmony keygen` first") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}; put back a copy of it") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others can read {path}, so it may be known; run `chmod 600 {path}`")
    try:
        return SigningKey.from_text(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error


def load_public(home: Home) -> VerifyKey:
    """Return its public half: what devices pin."""
    return load(home).public


def load_trusted(home: Home) -> tuple[VerifyKey, ...]:
    """Return whose signatures count here: the operator's own first, then those in ``operators/``, each
    once."""
    others = (_read_public(path) for path in sorted(home.operators.glob("*.pub")))
    return tuple(dict.fromkeys((load_public(home), *others)))


def _read_public(path: Path) -> VerifyKey:
    try:
        return VerifyKey.from_text(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}; put the operator's key there again"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from error
