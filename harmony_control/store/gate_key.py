"""The key that signs gates, and nothing else: for whoever controls rollouts without a person beside."""

from __future__ import annotations

from pathlib import Path

from harmony_core.errors import ConfigError
from harmony_core.wire.envelope import SigningKey, generate_key

from .home import Home, write_whole

__all__ = ["gate_key_path", "load_gate_key", "make_gate_key"]


def gate_key_path(home: Home) -> Path:
    """Return where it is kept."""
    return home.root / "gate.key"


def load_gate_key(home: Home) -> SigningKey | None:
    """Return it; None where there is none. `ConfigError` for what is no key."""
    path = gate_key_path(home)
    try:
        return SigningKey.from_text(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def make_gate_key(home: Home) -> SigningKey:
    """Make one, unless there is one."""
    found = load_gate_key(home)
    if found is None:
        found = generate_key()
        write_whole(gate_key_path(home), found.to_text() + "\n")
    return found
