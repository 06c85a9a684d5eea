"""The agent without what its security costs, to have something to compare with. Never to be run elsewhere.

    python -c "from benchmarks.unguarded import main; main()" run --config …

It takes every signature for good and makes none, asks no policy, chains no events, and keeps no floor
beside its database. TLS stays: the server has nothing else. Nothing else about it is different.
"""

from __future__ import annotations

import sys

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.cli import main as agent
from harmony_agent.store import event_chain
from harmony_agent.store.floor import FloorFiles
from harmony_core.wire import device_signature, envelope

__all__ = ["main"]

_WITHOUT: tuple[tuple[object, str, object], ...] = (
    (envelope, "is_valid_signature", True),
    (device_signature, "is_valid_signature", True),
    (envelope.SigningKey, "sign", bytes(64)),
    (DevicePolicy, "refusal", None),
    (DevicePolicy, "kind_refusal", None),
    (DevicePolicy, "removal_refusal", None),
    (event_chain, "hash_event", "00" * 32),
    (FloorFiles, "write", None),
    (FloorFiles, "write_copy", None),
)
"""What is replaced, and what is answered at once in its place."""


def main() -> None:
    for place, name, answer in _WITHOUT:
        setattr(place, name, _answering(answer))
    sys.exit(agent(sys.argv[1:]))


def _answering(answer: object) -> object:
    def at_once(*_: object, **__: object) -> object:
        return answer

    return at_once
