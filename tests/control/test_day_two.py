"""What docs/running.md says of backups, as it stands there: all is lost, put back, and pushed on."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest

from harmony_agent.config import load
from harmony_agent.enroll import enroll
from harmony_control.bus.connection import admin
from harmony_control.enrol import add_agent
from harmony_control.invitations import invite
from harmony_control.server.doorkeeper import keeping_the_door
from harmony_control.server.process import running
from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.outcome import Success
from tests.nats import connected
from tests.ports import free_address

from .ground import Said, harmony
from .scripted_device import ScriptedDevice, page

PAGE = (Path(__file__).parents[2] / "docs" / "running.md").read_text()
(MAKE, PUT_BACK) = re.findall(r"^(tar -C ~ .*)$", PAGE, re.MULTILINE)
SCORE = "- {{id: {0}, kind: FileScore, spec: {{path: /etc/{0}, content: x}}}}\n"


@attrs.frozen
class Operator:
    """Who has a home directory with a fleet's home in it, and a device that is elsewhere."""

    root: Path
    address: str

    @property
    def home(self) -> Home:
        return Home(self.root / ".harmony")

    async def type(self, line: str) -> None:
        """Run *line* in a shell of theirs."""
        process = await asyncio.create_subprocess_shell(
            line, cwd=self.root, env={"HOME": str(self.root), "PATH": "/usr/bin:/bin"}
        )
        assert await process.wait() == 0

    async def push(self, *arguments: str, stdin: str = "") -> Said:
        return await harmony(self.home, "push-score", "pi-1", *arguments, "--no-wait", stdin=stdin)

    async def pushed(self, *arguments: str, stdin: str = "") -> int:
        """Return the generation that a push has got."""
        said = await self.push(*arguments, "--json", stdin=stdin)
        assert said.status == 0, said.err
        return int(next(each["generation"] for each in said.documents if "generation" in each))

    @asynccontextmanager
    async def device(self, configuration: Path) -> AsyncGenerator[ScriptedDevice]:
        """The device, which keeps its agent.toml whatever becomes of the operator's home."""
        path = self.home.agent_toml("pi-1")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(configuration, path)
        async with connected(self.home, "pi-1") as device:
            yield ScriptedDevice(device)


@pytest.fixture
def ada(tmp_path: Path) -> Operator:
    made = Operator(tmp_path, free_address())
    operator_key.create(made.home)
    return made


async def test_all_is_put_back_from_a_backup_and_pushed_on(ada: Operator, tmp_path: Path) -> None:
    configuration, late = tmp_path / "agent.toml", tmp_path / "late" / "agent.toml"
    async with running(ada.home, listen=ada.address):
        await asyncio.to_thread(lambda: add_agent(ada.home, "pi-1", out=configuration))
        for name in ("motd", "issue"):
            said = await ada.push("-", stdin=SCORE.format(name))
            assert said.status == 0, said.err
        await ada.type(MAKE)
        # What came after it: one more push, which the device has taken in, and one more device.
        assert (await ada.push("-", stdin=SCORE.format("late"))).status == 0
        async with ada.device(configuration) as pi:
            await pi.report(pi.state(3, {"late": page(Success(), 3)}))
        async with admin(ada.home) as client, keeping_the_door(ada.home, client):
            invitation = await asyncio.to_thread(lambda: invite(ada.home, agent_id="late"))
            await enroll(late, invitation.to_text(), agent_id=None, waits_s=0)
    shutil.rmtree(ada.home.root)

    (made,) = ada.root.glob("harmony-*.tar.gz")
    assert made.stat().st_size < 100_000, "without what the server holds"
    await ada.type(re.sub(r"harmony-\S+\.tar\.gz", made.name, PUT_BACK))
    assert ada.home.operator_key.stat().st_mode & 0o777 == 0o600
    async with running(ada.home):
        async with ada.device(configuration) as pi:
            # The server is empty, and the device has not said yet what it is.
            assert await ada.pushed("--all") == 3
            # That number was given before, so the device has refused it. Nothing is undone unseen.
            taken = attrs.evolve(
                pi.state(3, {"late": page(Success(), 3)}), manifest_sha256="f" * 64
            )
            await pi.report(taken)
            said = await ada.push("-", stdin=SCORE.format("more"))
            assert said.status == 3
            assert "has taken in generation 3, and what is known here under that number" in said.err
            assert await ada.pushed("--all", "--force") == 4
            assert await ada.pushed("-", stdin=SCORE.format("more")) == 5
            wanted = await harmony(ada.home, "history", "pi-1", "--json")
            assert sorted(wanted.documents[0]["scores"]) == ["issue", "more", "motd"]
        before = load(late).nats.seed
        async with admin(ada.home) as client, keeping_the_door(ada.home, client):
            invitation = await asyncio.to_thread(lambda: invite(ada.home, agent_id="late"))
            await enroll(late, invitation.to_text(), agent_id=None, waits_s=0)
        assert load(late).nats.seed == before
