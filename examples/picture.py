"""``make picture``: the demo, run in a terminal of its own and drawn as docs/demo.svg."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

TARGET = Path(__file__).parents[1] / "docs" / "demo.svg"
COLUMNS, FIRST, LAST = 108, "A web application", "And this is how things stand"


def main() -> int:
    said = bytearray()

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 4096)
        said.extend(data)
        return data

    os.environ["COLUMNS"] = str(COLUMNS)
    status = pty.spawn([sys.executable, "-m", "examples.demo", "--no-wait"], read)
    if status:
        return os.waitstatus_to_exitcode(status)
    console = Console(record=True, width=COLUMNS, file=Path(os.devnull).open("w"))  # noqa: SIM115
    console.print(Text.from_ansi("\n".join(_final_lines(said.decode(errors="replace")))))
    TARGET.write_text(console.export_svg(title="make demo", unique_id="demo"))
    print(f"drawn: {TARGET.name}")
    return 0


def _final_lines(text: str) -> list[str]:
    """Return what a person sees in the end: a live display overwrites its own lines."""
    lines: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        # rich moves up and erases each line that it draws again.
        for _ in range(line.count("\x1b[1A\x1b[2K")):
            if lines:
                lines.pop()
        visible = line.rpartition("\x1b[2K")[2]
        lines.append(re.sub(r"\x1b\[\?25[lh]|\r", "", visible))
    shown = "\n".join(lines)
    start = shown.find(FIRST)
    end = shown.find(LAST)
    return shown[max(start, 0) : end if end > 0 else None].rstrip().split("\n")


if __name__ == "__main__":
    sys.exit(main())
