"""A stranger reads what is true on a device: nats-py, json, and what docs/wire.md says. Nothing of Harmony.

::

    python examples/stranger.py pi-1 tls://127.0.0.1:4222 ~/.harmony/server
"""

# pyright: reportUnknownMemberType=false

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import nats


async def read(device: str, url: str, keys: Path) -> dict[str, Any]:
    """Return the device's actual state: one request, answered by the newest message of its key."""
    connection = await nats.connect(
        url,
        nkeys_seed_str=(keys / "admin.nk").read_text().strip(),
        tls=ssl.create_default_context(cafile=keys / "ca.pem"),
        tls_hostname="harmony-server",
        tls_handshake_first=True,
    )
    try:
        key = f"$KV.actual-state.{device}"
        answer = await connection.request(
            f"$JS.API.DIRECT.GET.KV_actual-state.{key}", b"", timeout=5
        )
        if status := (answer.headers or {}).get("Status"):
            sys.exit(f"{device} has never reported ({status})")
        state: dict[str, Any] = json.loads(answer.data)
        return state
    finally:
        await connection.close()


def tell(state: dict[str, Any]) -> None:
    """One line for each Score, and one for each thing that it made."""
    current = state["observed_generation"] == state["generation"]
    print(state["agent_id"], "is up to date" if current else "has not finished yet")
    for name, score in sorted(state["scores"].items()):
        outcome = score["outcome"]
        code = outcome["error"]["code"] if outcome["error"] else ""
        print(f"{name}: {outcome['status']}", code)
        for resource, found in score["resources"].items():
            facts = " ".join(f"{field}={value}" for field, value in found.items() if value != "")
            print(f"  {resource} {facts}")


if __name__ == "__main__":
    _, device, url, keys = sys.argv
    tell(asyncio.run(read(device, url, Path(keys))))
