"""``harmony invite``: let devices come by themselves."""

from __future__ import annotations

import argparse
from datetime import timedelta
from pathlib import Path

from harmony_control.first_boot import first_boot_text, read_own_part, write_user_data
from harmony_control.invitations import invite, withdraw_all
from harmony_control.package import find_package
from harmony_control.store.home import write_whole
from harmony_control.times_typed import lasting
from harmony_core.errors import UsageError
from harmony_core.wire.enrolment import Invitation

from .common import home_of, out, try_address, warn_of_loopback
from .exits import CONVERGED

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Print an invitation, or write it to a file, or into one for a first boot."""
    if options.withdraw:
        count = withdraw_all(home_of(options))
        out(options, {"event": "withdrawn", "count": count}, f"{count} invitations are withdrawn")
        return CONVERGED
    if options.wheel and not options.first_boot:
        raise UsageError(
            "--wheel is for what a first boot installs; give --first-boot FILE with it"
        )
    if options.first_boot:
        return _write_first_boot(options, Path(options.first_boot))
    made = _invite(options)
    text = made.to_text()
    document = _document(options, made)
    if options.out:
        path = Path(options.out)
        write_whole(path, text + "\n")
        out(
            options,
            {**document, "file": str(path)},
            f"{path} is the invitation: carry it to the device, and run there as root\n"
            f"/opt/harmony/bin/harmony-agent enroll @{path.name}",
        )
    else:
        out(
            options,
            {**document, "invitation": text},
            f"on the device, as root, run this and paste the line below it\n"
            f"/opt/harmony/bin/harmony-agent enroll -\n{text}",
        )
    warn_of_loopback(options, ",".join(made.servers))
    return CONVERGED


def _write_first_boot(options: argparse.Namespace, path: Path) -> int:
    # Whatever cannot be read is told before there is an invitation.
    package = find_package(options.wheel)
    own = read_own_part(path)
    made = _invite(options)
    write_user_data(path, first_boot_text(package, made, own))
    out(
        options,
        {**_document(options, made), "file": str(path)},
        f"{path} is the user-data{', with what it said before' if own is not None else ''}: copy it, as "
        f"user-data, onto the boot partition of {_whose(options)}",
    )
    warn_of_loopback(options, ",".join(made.servers))
    return CONVERGED


def _whose(options: argparse.Namespace) -> str:
    if options.count > 1:
        return f"{options.count} cards, which all may have the same one"
    return f"the card of {options.agent}" if options.agent else "one card"


def _document(options: argparse.Namespace, made: Invitation) -> dict[str, object]:
    return {"event": "invite", "agent": options.agent, "servers": list(made.servers)}


def _invite(options: argparse.Namespace) -> Invitation:
    home = home_of(options)
    try_address(options, home, options.url)
    return invite(
        home,
        agent_id=options.agent,
        url=options.url,
        count=options.count,
        expires_in=lasting(options.expires_in) or timedelta(days=1),
        asks=options.ask,
        replaces=options.replace,
    )
