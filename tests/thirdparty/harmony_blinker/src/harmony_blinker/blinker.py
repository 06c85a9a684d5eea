"""BlinkerScore: a program, its configuration, and the service that runs the one with the other."""

from __future__ import annotations

import json
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from harmony_core import (
    File,
    HasFiles,
    HasSystemd,
    Inventory,
    Outcome,
    Score,
    SystemdUnit,
    outcome_of,
)

__all__ = ["BlinkerHost", "BlinkerScore"]

PROGRAM_PATH = "/usr/local/lib/harmony-blinker/blink.py"
PROGRAM = '''\
"""Switches an LED on and off. Written by harmony-blinker; changes here are put right."""

import json
import sys
import time
from pathlib import Path

config = json.loads(Path(sys.argv[1]).read_text())
led = Path("/sys/class/leds") / config["led"] / "brightness"
if not led.exists():
    print(f"this device has no LED {config['led']}; blinking in the dark", flush=True)
lit = False
while True:
    lit = not lit
    if led.exists():
        led.write_text("1" if lit else "0")
    time.sleep(config["period_s"] / 2)
'''


class BlinkerHost(HasFiles, HasSystemd, Protocol):
    """What blinking needs: files to write, and a systemd to keep the program running."""


class BlinkerScore(Score[BlinkerHost]):
    """The LED ``led`` blinks, once in ``period_s`` seconds."""

    led: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,32}$")] = Field(
        default="ACT", description="The LED's name, as below /sys/class/leds."
    )
    period_s: Annotated[float, Field(ge=0.1, le=60)] = Field(
        default=1.0, description="How long once on and off takes, in seconds."
    )

    async def interpret(self, inventory: Inventory, topology: BlinkerHost) -> Outcome:
        program = File(path=PROGRAM_PATH, content=PROGRAM.encode())
        config = File(path=f"/etc/harmony-blinker/{self.led}.json", content=self._config())
        wrote = await topology.files.ensure(program, config)
        ran = await topology.systemd.ensure(
            SystemdUnit(
                name=f"harmony-blinker-{self.led}.service",
                content=_unit_file(self.led, program.path, config.path),
                uses=(program.path, config.path),
            )
        )
        return outcome_of(wrote, ran)

    def _config(self) -> bytes:
        return json.dumps({"led": self.led, "period_s": self.period_s}).encode()


def _unit_file(led: str, program: str, config: str) -> str:
    return f"""\
[Unit]
Description=Blinks the LED {led}

[Service]
Type=exec
ExecStart=/usr/bin/python3 {program} {config}
Restart=on-failure
NoNewPrivileges=yes
PrivateNetwork=yes
ProtectSystem=strict
ProtectHome=yes

[Install]
WantedBy=multi-user.target
"""
