"""What the device refuses an agent at its start: it is told in a line, and the agent ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from harmony_core.wire.envelope import generate_key
from tests.authority import AUTHORITY


def test_what_the_device_refuses_at_the_start_is_told_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "file").touch()
    toml = tmp_path / "agent.toml"
    toml.write_text(
        f'agent_id = "pi-1"\nfleet = "home"\nstate_directory = "{tmp_path / "state"}"\n'
        f'runtime_directory = "{tmp_path / "file/run"}"\n[nats]\nservers = ["tls://127.0.0.1:1"]\n'
        f'seed = "SU{"A" * 56}"\nmailbox = "{"a" * 26}"\nca = """{AUTHORITY}"""\n'
        f'[topology]\nroot = "{tmp_path / "root"}"\n'
        f'[report]\nkey = "{generate_key().to_text()}"\n'
        f'[trust]\noperator_keys = ["{generate_key().public.to_text()}"]\n'
    )
    toml.chmod(0o600)
    command = [sys.executable, "-m", "harmony_agent.cli", "run", "--config", str(toml)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("harmony-agent: [Errno 20] Not a directory")
    assert "; look at the kernel's log" in last
    assert "Traceback" not in ended.stderr
