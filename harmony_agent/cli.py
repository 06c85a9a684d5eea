"""``harmony-agent run | check | enroll | load | reset-floor | version``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main", "parser"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return 0; 1 when `check` finds an obstacle, or the answer was no; 2 on a wrong
    configuration. `load` ends as `harmony push-score` does."""
    options = parser().parse_args(arguments)
    from harmony_core.errors import HarmonyError

    try:
        return int(options.command(options))
    except HarmonyError as error:
        print(f"harmony-agent: {error.message}", file=sys.stderr)
        return 2
    except OSError as error:
        # Once the agent runs nothing ends it; but at the start the device may refuse what it needs.
        print(
            f"harmony-agent: {error}; look at the kernel's log, and at what limits its files and memory; as "
            "a service it is started again",
            file=sys.stderr,
        )
        return 2


def parser() -> argparse.ArgumentParser:
    """Return the whole command line. ``options.command`` runs it."""
    top = argparse.ArgumentParser(
        prog="harmony-agent", description="Interprets Scores on this device."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument(
        "--config",
        type=Path,
        default=Path("/etc/harmony/agent.toml"),
        help="the file that `harmony-agent enroll` wrote (default: %(default)s)",
    )
    run = commands.add_parser("run", parents=[config], help="run the agent until it is stopped")
    run.add_argument("--verbose", action="store_true", help="also log decisions, not only changes")
    run.set_defaults(command=_run)
    check = commands.add_parser(
        "check",
        parents=[config],
        help="show what this device offers; exit with 1 if it finds a problem, else with 0",
    )
    check.set_defaults(command=_check)
    enroll = commands.add_parser(
        "enroll", parents=[config], help="enrol this device with an invitation"
    )
    enroll.add_argument(
        "invitation",
        metavar="INVITATION",
        help="the invitation: @FILE, as `harmony invite` writes it; - reads it from standard input",
    )
    enroll.add_argument("--id", metavar="ID", help="the device's id (default: its host name)")
    enroll.add_argument(
        "--wait-s",
        type=float,
        default=3_600.0,
        metavar="SECONDS",
        help="how long to wait for the network, the server and `harmony accept` (default: %(default)g)",
    )
    enroll.add_argument(
        "--replace", action="store_true", help="make a new key, if the device is in a fleet already"
    )
    enroll.set_defaults(command=_enroll)
    load = commands.add_parser(
        "load",
        parents=[config],
        help="accept and apply a bundle that `harmony bundle` has written; needs no network",
    )
    load.add_argument(
        "file", type=Path, metavar="FILE", help="the bundle, for instance on a USB stick"
    )
    load.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to wait until all is in order (default: %(default)g)",
    )
    load.set_defaults(command=_load)
    reset = commands.add_parser(
        "reset-floor",
        parents=[config],
        help="accept the next signed manifest, however old; only while the agent is stopped",
    )
    reset.add_argument("--yes", action="store_true", help="do not ask")
    reset.set_defaults(command=_reset_floor)
    commands.add_parser("version", help="print the version").set_defaults(command=_version)
    return top


def _run(options: argparse.Namespace) -> int:
    # Looking for plug-ins of pydantic's reads the metadata of every package; a device has none of them.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from . import config, startup
    from .log_lines import begin_logging

    begin_logging(sys.stderr, verbose=options.verbose)
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    asyncio.run(startup.run(config.load(options.config)))
    return 0


def _check(options: argparse.Namespace) -> int:
    from . import check

    return asyncio.run(check.check(options.config))


def _enroll(options: argparse.Namespace) -> int:
    from harmony_core.errors import ConfigError

    from . import enroll

    text: str = options.invitation
    try:
        if text == "-":
            text = sys.stdin.readline()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text()
        else:
            raise ConfigError(
                "an invitation is secret, and others can read the words of a command; write it to a file and "
                "give @FILE, or give - and paste it"
            )
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{text[1:]} cannot be read: {error}") from error
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    return asyncio.run(
        enroll.enroll(
            options.config,
            text,
            agent_id=options.id,
            waits_s=options.wait_s,
            replaces=options.replace,
        )
    )


def _load(options: argparse.Namespace) -> int:
    from .loading import command

    return command.load(options.config, options.file, timeout_s=options.timeout)


def _reset_floor(options: argparse.Namespace) -> int:
    from . import reset_floor

    return asyncio.run(reset_floor.reset_floor(options.config, is_confirmed=options.yes))


def _version(_: argparse.Namespace) -> int:
    from .facts import agent_version

    print(agent_version())
    return 0


if __name__ == "__main__":
    sys.exit(main())
