"""``harmony-agent reset-floor``: let the next signed manifest be accepted, however old it is.

For whoever is root on the device, and for nobody else: no message from outside lowers the floor. Needed when
what was accepted last is not known any more, or when a key that was stolen has used up the generations.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harmony_core.errors import ConfigError
from harmony_core.wire.times import rfc3339

from . import config as configuration
from .config import AgentConfig
from .single_instance import alone
from .store.database import Database
from .store.floor import NO_FLOOR, FloorFiles, Found

__all__ = ["reset_floor"]


async def reset_floor(path: Path, *, is_confirmed: bool) -> int:
    """Remove the floor, after asking unless *is_confirmed*. Return 0, or 1 when the answer is no.

    Raise `ConfigError` while the agent runs, and where there is nobody to ask.
    """
    config = configuration.load(path)
    files = FloorFiles.of(config)
    with alone(config.state_directory):
        print(_told(files.read()))
        print(
            "Without it, whoever holds the bus can make this device go back to any manifest that an "
            "operator trusted in agent.toml has ever signed for it."
        )
        if not is_confirmed and not _says_yes():
            print("nothing was changed")
            return 1
        await _reset(config, files)
    print(
        "the next manifest that an operator has signed is accepted, however old; start the agent: "
        "systemctl start harmony-agent"
    )
    return 0


def _told(found: Found) -> str:
    floor = found.floor
    if floor is None:
        return "what was accepted here last is not known"
    if floor == NO_FLOOR:
        return "nothing was accepted here yet, or since the floor was reset before"
    return (
        f"accepted last: generation {floor.generation} of epoch {floor.epoch}, "
        f"issued {rfc3339(floor.issued_at)}, sha256 {floor.payload_sha256}"
    )


def _says_yes() -> bool:
    if not sys.stdin.isatty():
        raise ConfigError(
            "there is nobody to ask; run it in a terminal, or with --yes: harmony-agent reset-floor --yes"
        )
    return input("Take the floor away? Type yes: ").strip() == "yes"


async def _reset(config: AgentConfig, files: FloorFiles) -> None:
    """Reset the floor, first in the database: if this is killed in between, the files are still there."""
    async with await Database.open(config.state_directory / "agent.db") as database:
        await database.write(("DELETE FROM floor", ()))
        try:
            # Who may sign is another matter: no older root document counts again.
            root = (await database.aside(files.read)).root
            await database.aside(files.write_both, NO_FLOOR, root)
        except OSError as error:
            raise ConfigError(
                f"{error.filename or config.state_directory} cannot be written: {error.strerror}; make room "
                "there, or make it writable"
            ) from error
