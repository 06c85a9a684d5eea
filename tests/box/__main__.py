"""By hand: ``python -m tests.box up [NAME…] | enter NAME [COMMAND…] | run COMMAND… | build | down``.

``up`` leaves a bed running in the background, with an image in its registry; a box that is rebooted or goes
off boots again. ``enter`` opens a shell in one, ``run`` runs a command on this machine inside the bed's
network, and ``down`` ends all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .bed import Bed
from .layers import Unobtainable, layers

STATE = Path(os.environ.get("HARMONY_BED", "/run/harmony-bed.json"))
"""What a bed that was left running is; several can be, each with a file of its own."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.box", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="boot boxes and leave them running")
    up.add_argument("names", nargs="*", default=["pi-1"], metavar="NAME")
    up.set_defaults(command=_up)
    enter = commands.add_parser("enter", help="a shell, or a command, in a box")
    enter.add_argument("name")
    enter.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    enter.set_defaults(command=_enter)
    run = commands.add_parser("run", help="a command of this machine, in the bed's network")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    run.set_defaults(command=_run)
    commands.add_parser("build", help="make the layers that boxes stand on").set_defaults(
        command=_build
    )
    commands.add_parser("down", help="end the boxes").set_defaults(command=_down)
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("boxes need root: they are made of namespaces and mounts")
    return int(options.command(options))


def _up(options: argparse.Namespace) -> int:
    if STATE.exists() and Path(f"/proc/{_state()['owner']}").exists():
        sys.exit("a bed is up already; end it with: python -m tests.box down")
    STATE.unlink(missing_ok=True)
    layers()  # here, where its progress is seen
    owner = os.fork()
    if owner == 0:
        os.setsid()
        _hold(options.names)
    while not STATE.exists():
        if os.waitpid(owner, os.WNOHANG)[0]:
            sys.exit("the bed did not come up")
        time.sleep(0.05)
    for name, box in _state()["boxes"].items():
        print(f"{name}  {box['address']}  pid {box['pid']}")
    print(f"registry  {_state()['registry']}  with {_state()['image']}")
    return 0


def _ended(_: int, __: object) -> None:
    sys.exit(0)


def _hold(names: list[str]) -> None:
    """The owner of the bed, until it is told to end."""
    signal.signal(signal.SIGTERM, _ended)
    with Bed() as bed:
        for name in names:
            bed.boot(name)
        image = bed.registry.push_busybox("web", "1", page="hello from a Pi\n").split("@")[0]
        try:
            _write_state(bed, image)
            _let_go_of_the_terminal()
            while True:
                for box in bed.boxes.values():
                    if box.has_ended:
                        box.power_cut()
                        box.power_on()
                        _write_state(bed, image)
                time.sleep(0.5)
        finally:
            STATE.unlink(missing_ok=True)


def _write_state(bed: Bed, image: str) -> None:
    state = {
        "owner": os.getpid(),
        "network": bed.name,
        "registry": bed.registry.host,
        "registry_ca": str(bed.registry.ca),
        "image": image,
        "boxes": {
            name: {"pid": box.pid, "address": box.address} for name, box in bed.boxes.items()
        },
    }
    draft = STATE.with_suffix(".new")
    draft.write_text(json.dumps(state))
    draft.rename(STATE)


def _let_go_of_the_terminal() -> None:
    # Whoever reads what `up` prints would else wait for the bed's end.
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _enter(options: argparse.Namespace) -> int:
    box = _state()["boxes"].get(options.name)
    if box is None:
        sys.exit(f"no box {options.name!r}; there are: {', '.join(_state()['boxes'])}")
    if not Path(f"/proc/{box['pid']}").exists():
        sys.exit(f"{options.name} is booting; try again in a moment")
    argv = options.argv or ["bash"]
    inside = ["env", "-i", "PATH=/opt/harmony/bin:/usr/sbin:/usr/bin", "HOME=/root", "TERM=xterm"]
    return subprocess.call(["nsenter", "-t", str(box["pid"]), "-a", *inside, *argv])


def _run(options: argparse.Namespace) -> int:
    state = _state()
    # So that `harmony push-score` reaches the bed's registry, and examples/web.py names an image in it.
    environment = {"HARMONY_REGISTRY_CA": state["registry_ca"], "IMAGE": state["image"]}
    return subprocess.call(
        ["ip", "netns", "exec", state["network"], *options.argv], env=environment | os.environ
    )


def _build(_: argparse.Namespace) -> int:
    try:
        for path in layers():
            print(path)
    except Unobtainable as error:
        print(f"no Pi in a box here: {error}", file=sys.stderr)
        return 1
    return 0


def _down(_: argparse.Namespace) -> int:
    if STATE.exists():
        owner = _state()["owner"]
        os.kill(owner, signal.SIGTERM)
        while STATE.exists() and Path(f"/proc/{owner}").exists():
            time.sleep(0.05)
    return 0


def _state() -> dict[str, Any]:
    if not STATE.exists():
        sys.exit("no bed is up; start one with: python -m tests.box up")
    state: dict[str, Any] = json.loads(STATE.read_text())
    return state


if __name__ == "__main__":
    sys.exit(main())
