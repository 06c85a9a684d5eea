"""``harmony secret``: the fleet's secrets, which Scores have by ``${secret.NAME}``."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from harmony_control.store.secrets import FleetSecrets
from harmony_core.errors import UsageError

from .common import home_of, out
from .exits import CONVERGED
from .text import count_of

__all__ = ["run"]

_READ_MOST = 1024 * 1024


def run(options: argparse.Namespace) -> int:
    """Set one secret, list all, seal all again, remove one, or accept a device's new key. Print no value."""
    secrets = FleetSecrets(home_of(options))
    match options.verb:
        case "set":
            _set(options, secrets)
        case "list":
            _list(options, secrets)
        case "share":
            _share(options, secrets)
        case "accept-key":
            secrets.accept_key(options.agent, options.key)
            out(
                options,
                {"event": "accepted-key", "device": options.agent, "key": options.key},
                f"secrets of {options.agent} are sealed to {options.key} from now on; push its Scores again",
            )
        case _:
            secrets.remove(options.secret)
            out(
                options,
                {"event": "removed", "secret": options.secret},
                f"{options.secret} is removed here; a device has it until its Score is pushed without it",
            )
    return CONVERGED


def _set(options: argparse.Namespace, secrets: FleetSecrets) -> None:
    operators = secrets.set(options.secret, _read_value(options))
    out(
        options,
        {"event": "set", "secret": options.secret, "operators": list(operators)},
        f"{options.secret} is set, for {count_of(len(operators), 'operator')}; devices have it with the next "
        "push",
    )
    _name_left_out(secrets)


def _name_left_out(secrets: FleetSecrets) -> None:
    for each in secrets.find_left_out():
        print(
            f"warning: not sealed to {each[:16]}…, which may push nothing by the root document",
            file=sys.stderr,
        )


def _name_strange_files(secrets: FleetSecrets) -> None:
    for each in secrets.find_strange_files():
        print(
            f"warning: {secrets.home.secrets / each} can be no secret by its name; remove it, or give it "
            "back the name it had",
            file=sys.stderr,
        )


def _read_value(options: argparse.Namespace) -> str:
    """Return the value, from a file, a terminal or standard input. Strip the newline at its end, except from
    a file."""
    try:
        if options.file is not None:
            return Path(options.file).read_bytes()[:_READ_MOST].decode()
        if sys.stdin.isatty():
            value = getpass.getpass(f"{options.secret}: ")
            if getpass.getpass("the same once more: ") != value:
                raise UsageError("the two are not the same; nothing was set")
            return value
        return sys.stdin.buffer.read(_READ_MOST).decode().removesuffix("\n")
    except OSError as error:
        raise UsageError(f"{options.file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            "the value is not UTF-8 text; put what is not text into the device's own secrets directory"
        ) from error


def _list(options: argparse.Namespace, secrets: FleetSecrets) -> None:
    names = secrets.names()
    if not names and not options.json:
        print("there is no secret; set one: harmony secret set NAME")
    _name_strange_files(secrets)
    for name in names:
        kept = secrets.read(name)
        document = {
            "secret": name,
            "version": kept.version,
            "set_at": kept.set_at,
            "operators": list(kept.boxes),
        }
        told = f"{name:<20} set {kept.set_at}, for {count_of(len(kept.boxes), 'operator')}"
        out(options, document, told)


def _share(options: argparse.Namespace, secrets: FleetSecrets) -> None:
    for name, operators in secrets.share().items():
        out(
            options,
            {"event": "shared", "secret": name, "operators": list(operators)},
            f"{name:<20} sealed for {count_of(len(operators), 'operator')}",
        )
    _name_left_out(secrets)
    _name_strange_files(secrets)
