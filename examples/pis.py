"""``python -m examples.pis pi-1 pi-2``: devices on this machine, each of which is a folder, until Ctrl-C.

Each is let into the fleet of ``$HARMONY_HOME``, whose server must run here, and has an agent of its own: the
same one as on a Pi, over a topology that has files and directories only. The folders are below ``pis/`` where
it is called. What a device remembers lies there, too: run again, it is the same device.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

__all__ = ["as_folder", "main", "running"]

BIN = Path(sys.executable).parent


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.pis", description="Pis as folders")
    parser.add_argument("names", nargs="+", metavar="NAME", help="what to call each, such as pi-1")
    names: list[str] = parser.parse_args().names
    signal.signal(signal.SIGTERM, _ended)
    with ExitStack() as stack, suppress(KeyboardInterrupt):
        for name in names:
            place = Path("pis", name).absolute()
            toml = place / "agent.toml"
            if not toml.exists() and not _let_in(name, place):
                return 1
            said = stack.enter_context((place / "log").open("a"))
            command: list[str | Path] = [BIN / "harmony-agent", "run", "--config", toml]
            stack.enter_context(running(command, said.fileno()))
            print(f"{name} runs: its folder is {place / 'root'}", flush=True)
        signal.pause()
    return 0


def _ended(*_: int | FrameType | None) -> None:
    """End in order, so that every block is left."""
    raise KeyboardInterrupt


def _let_in(name: str, place: Path) -> bool:
    """Make a device of *place*; False, and told why, where the fleet does not take it."""
    place.mkdir(parents=True, exist_ok=True)
    toml = place / "agent.toml"
    command: list[str | Path] = [BIN / "harmony", "add-agent", name, "--out", toml]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, end="", file=sys.stderr)
        return False
    toml.write_text(as_folder(toml.read_text(), place))
    return True


def as_folder(toml: str, place: Path) -> str:
    """Return the agent's configuration *toml* for a device that is ``root`` in *place*, which is made."""
    (place / "root/etc").mkdir(parents=True, exist_ok=True)
    places = f'state_directory = "{place}/state"\nruntime_directory = "{place}/run"\n'
    return f'{places}{toml}\n[topology]\nroot = "{place}/root"\n'


@contextmanager
def running(
    command: Sequence[str | Path], output: int | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """Run a process that ends with the block."""
    process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
