"""The key that signs gates, and nothing else: for whoever controls rollouts without a person beside."""

from __future__ import annotations

from pathlib import Path

from harmony_core.wire.envelope import Signer, generate_key

from .home import Home, write_whole
from .operator_key import read_signing_key

__all__ = ["gate_key_path", "load_gate_key", "make_gate_key"]


def gate_key_path(home: Home) -> Path:
    """Return where it is kept."""
    return home.root / "gate.key"


def load_gate_key(home: Home) -> Signer | None:
    """Return it; None where there is none. `ConfigError` for what is no key, or may be read by others."""
    path = gate_key_path(home)
    home.refuse_open(path)
    return read_signing_key(path, made_by="harmony rollout key") if path.exists() else None


def make_gate_key(home: Home) -> Signer:
    """Make one, unless there is one."""
    found = load_gate_key(home)
    if found is not None:
        return found
    made = generate_key()
    write_whole(gate_key_path(home), made.to_text() + "\n")
    return made
