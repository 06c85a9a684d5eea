"""``harmony-agent load FILE``: hand a bundle to the agent that runs here, and show what becomes of it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from harmony_agent import config as configuration
from harmony_core.errors import BundleRefused, ConfigError
from harmony_core.outcome import Outcome
from harmony_core.outcome_words import describe_outcome, indent, status_word
from harmony_core.visible import word
from harmony_core.wire.actual_state import score_from_json

from .socket_path import find_socket

__all__ = ["load"]


def load(config: Path, file: Path, *, timeout_s: float) -> int:
    """Return 0 once all is in order; 1 where a Score failed, 2 for a file that is no bundle of this device, 3
    where what is in it is refused, 4 while a Score is still under way after *timeout_s*.

    `ConfigError` where no agent runs, `BundleRefused` where the file cannot be opened.
    """
    directory = configuration.load(config).runtime_directory
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BundleRefused(f"{file} cannot be read: {error.strerror}; correct the name") from error
    try:
        connection = _ask(directory, descriptor, timeout_s)
    except OSError as error:
        raise _no_agent(error) from error
    finally:
        os.close(descriptor)
    with connection:
        return _show(connection)


def _ask(directory: Path, descriptor: int, timeout_s: float) -> socket.socket:
    """Return the connection to the agent, which has the file now."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        with find_socket(directory) as path:
            connection.connect(path)
        request = json.dumps({"timeout_s": timeout_s}).encode()
        socket.send_fds(connection, [request], [descriptor])
    except OSError:
        connection.close()
        raise
    return connection


def _no_agent(error: OSError) -> ConfigError:
    if isinstance(error, PermissionError):
        return ConfigError("only root may load a bundle; run: sudo harmony-agent load FILE")
    return ConfigError(
        f"the agent does not answer ({error.strerror or error}); start it: systemctl start harmony-agent, "
        "and load the bundle again"
    )


def _show(connection: socket.socket) -> int:
    with suppress(ConnectionError), connection.makefile("rb") as lines:
        for line in lines:
            told = cast("Mapping[str, Any]", json.loads(line))
            _show_one(told)
            if (ends := told.get("exit")) is not None:
                return int(ends)
    raise ConfigError(
        "the agent has ended meanwhile; what it had accepted by then stays so. Load the bundle again"
    )


def _show_one(told: Mapping[str, Any]) -> None:
    match told["event"]:
        case "checking" if sys.stderr.isatty():
            done = 100 * told["done_bytes"] // max(told["size_bytes"], 1)
            print(f"\rchecking the bundle: {done} %", end="\r", file=sys.stderr, flush=True)
        case "loaded":
            count = told["scores"]
            scores = f"{count} Score{'s' * (count != 1)}"
            print(f"loaded: generation {told['generation']}, {scores}", flush=True)
        case "outcome":
            outcome = score_from_json(told["status"]).outcome
            print(_describe(word(told["id"]), outcome), flush=True)
        case "removed":
            print(f"{word(told['id']):<20} gone", flush=True)
        case "refused":
            print(f"harmony-agent: {indent(told['message'])}", file=sys.stderr, flush=True)
        case "end" if told["exit"] == 4:
            print(
                "harmony-agent: not all is in order yet. The device goes on with what it has; for what is "
                "still to come from the bundle, load it again, with a longer --timeout",
                file=sys.stderr,
            )
        case _:
            pass


def _describe(score: str, outcome: Outcome) -> str:
    return f"{score:<20} {status_word(outcome):<9} {describe_outcome(outcome)}".rstrip()
