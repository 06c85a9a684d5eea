"""docs/tutorial.md: every command is run, in order, in one terminal, and says what the page says.

Two things are not as on the page: the ports, which others may have here, and the password, which comes from
no keyboard.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs
import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from examples.demo import free_port
from tests.browser import find_chromium

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PASSWORD = "correct horse battery"
_ASKS_AGAIN = ("harmony agents", "cat ")
"""Commands that a reader types again when it is not so yet. They change nothing."""
_WITHIN_S = 60
_MARK = "\x01 "


@attrs.frozen
class Terminal:
    """One bash, for the whole page."""

    bash: subprocess.Popen[str]

    def run(self, command: str) -> tuple[int, str]:
        """Return the exit code of *command*, and all that it has written."""
        assert self.bash.stdin
        assert self.bash.stdout
        self.bash.stdin.write(f"{command}\nprintf '{_MARK}%s\\n' $?\n")
        self.bash.stdin.flush()
        said: list[str] = []
        for line in self.bash.stdout:
            before, mark, code = line.partition(_MARK)
            if mark:
                return int(code), "".join([*said, before])
            said.append(line)
        raise AssertionError(f"bash has ended with {command}: {''.join(said)}")


@contextmanager
def terminal(home: Path) -> Generator[Terminal]:
    """A bash in the tree, as somebody opens it whose home is *home*; what it has begun ends with it."""
    environment = {name: each for name, each in os.environ.items() if name != "HARMONY_HOME"}
    with subprocess.Popen(
        ["bash", "--norc"],
        cwd=TREE,
        env={**environment, "HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as bash:
        opened = Terminal(bash)
        try:
            yield opened
        finally:
            if bash.poll() is None:
                opened.run("kill $(jobs -p); wait")
                bash.communicate("exit\n", timeout=30)


def commands(block: str) -> list[tuple[str, str]]:
    """Return each command of *block*, with what it is to say."""
    _, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    return [(command, said) for command, _, said in (each.partition("\n") for each in parts)]


def is_said(wanted: str, said: str) -> bool:
    """Whether *said* is *wanted*, where … is anything, and spaces between words may be more or fewer."""
    if not wanted:
        return True
    parts = [re.escape(" ".join(each.split())) for each in wanted.split("…")]
    return re.fullmatch(r"\s*.*?\s*".join(parts), " ".join(said.split())) is not None


def carry_out(opened: Terminal, command: str, wanted: str) -> None:
    """Run *command*, again and again if a reader would, until it says what is *wanted*."""
    deadline = time.monotonic() + _WITHIN_S
    while True:
        code, said = opened.run(command)
        if code == 0 and is_said(wanted, said):
            return
        assert command.startswith(_ASKS_AGAIN), f"{command}: {code}, {said}"
        assert time.monotonic() < deadline, f"{command}: {code}, {said}"
        time.sleep(0.2)


def look_at_the_rollout(url: str) -> None:
    """Sign in as the page says, and find the rollout of which it tells."""
    with httpx.Client(base_url=url, headers={"Origin": url}, trust_env=False) as client:
        signed_in = client.post("/api/session", json={"name": "ada", "password": PASSWORD})
        assert signed_in.status_code == 201, signed_in.text
        (rollout,) = client.get("/api/rollouts").json()["rollouts"]
        assert (rollout["name"], rollout["generation"], rollout["state"]) == ("kiosk", 2, "done")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        view = browser.new_page()
        view.goto(url)
        view.get_by_label("Name").fill("ada")
        view.get_by_label("Password").fill(PASSWORD)
        view.keyboard.press("Enter")
        view.get_by_role("link", name="Rollouts").click()
        view.get_by_role("link", name="kiosk").click()
        told = view.get_by_role("region", name="Rollout of kiosk")
        expect(told.get_by_role("status")).to_contain_text("done")
        browser.close()


@pytest.mark.timeout(300)
def test_every_command_says_what_the_page_says(tmp_path: Path) -> None:
    ports = {"server": free_port(), "serve": free_port()}
    ran: list[str] = []
    with terminal(tmp_path) as opened:
        for kind, file, block in BLOCKS:
            if file:
                assert kind == "yaml"
                (tmp_path / "ten-minutes" / file).write_text(block)
                continue
            for shown, wanted in commands(block):
                command = re.sub(
                    r"^harmony (server|serve) ",
                    lambda begin: f"{begin[0]}--listen 127.0.0.1:{ports[begin[1]]} ",
                    shown,
                )
                if command.startswith("harmony serve-user"):
                    command += f" <<< '{PASSWORD}'"
                if command.startswith("kill "):
                    look_at_the_rollout(f"http://127.0.0.1:{ports['serve']}")
                carry_out(opened, command, wanted)
                ran.append(command.split()[0])
    assert ran.count("harmony") > 12
    assert not (tmp_path / "ten-minutes").exists()


def test_what_is_compared_can_differ() -> None:
    assert is_said("a  … c\n", "a b\nc")
    assert not is_said("a … c\n", "a b d")
    assert not is_said("b\n", "a b")
