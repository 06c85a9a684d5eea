"""``harmony add-operator``, ``remove-operator`` and ``join``: several people, each with keys of their own."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from harmony_control.operators import Access, add_operator, join, remove_operator
from harmony_control.store.roots import read_chain

from .common import home_of, out, try_address, warn_of_loopback
from .exits import CONVERGED

__all__ = ["run"]

_MAY: dict[Access, str] = {
    "push": "may push. Devices that are enrolled from now on trust what {name} signs; in agent.toml of "
    "the others, add the key to operator_keys",
    "look": "may look, and change nothing: `harmony status` and `harmony history`. What is pushed can be "
    "read, with the secrets in it",
}
_THEN: dict[Access, str] = {
    "push": ". Devices go on trusting what {name} signs, until the key is taken out of operator_keys in "
    "their agent.toml; and so do devices that come with an invitation made before: harmony invite --withdraw",
    "look": "",
}


def run(options: argparse.Namespace) -> int:
    """Run the command that the options name."""
    return {"add-operator": _add, "remove-operator": _remove, "join": _join}[options.verb](options)


def _add(options: argparse.Namespace) -> int:
    access: Access = "look" if options.read_only else "push"
    home = home_of(options)
    try_address(options, home, options.url)
    fleet = add_operator(home, options.name, Path(options.file), access=access, url=options.url)
    path = Path(options.out or f"{options.name}.fleet")
    fleet.write(path)
    may = _MAY[access].format(name=options.name)
    if access == "push" and fleet.root is not None:
        add = f"harmony trust add {options.name} {options.file}"
        may = f"is let into the bus. To have devices trust what {options.name} signs: {add}"
    out(
        options,
        {
            "event": "add-operator",
            "operator": options.name,
            "access": access,
            "file": str(path),
            "url": fleet.url,
        },
        f"{options.name} {may}\nsend {path} back: harmony join {path.name}",
    )
    warn_of_loopback(options, fleet.url)
    return CONVERGED


def _remove(options: argparse.Namespace) -> int:
    access = remove_operator(home_of(options), options.name)
    then = _THEN[access].format(name=options.name)
    if then and read_chain(home_of(options)):
        then = (
            f". Devices go on trusting what {options.name} signs, until: harmony trust remove NAME"
        )
    out(
        options,
        {"event": "remove-operator", "operator": options.name, "access": access},
        f"{options.name} is cut off from the bus{then}",
    )
    return CONVERGED


def _join(options: argparse.Namespace) -> int:
    fleet = asyncio.run(join(home_of(options), Path(options.file)))
    out(
        options,
        {"event": "join", "fleet": fleet.fleet, "url": fleet.url},
        f"this is an operator of the fleet {fleet.fleet}, at {fleet.url}: harmony status",
    )
    return CONVERGED
