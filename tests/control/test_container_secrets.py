"""Secrets of containers and of compose projects, from `harmony secret set` to what runs, and in no report."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import attrs
import pytest

from harmony_core.plugins import Registry
from harmony_core.testing import (
    FakeContainerNetworks,
    FakeContainers,
    FakeFiles,
    FakeVolumes,
)
from harmony_scores import ComposeScore, ContainerScore
from tests.control.ground import Said, harmony
from tests.device import running_agent
from tests.nats import Bus, serving

VALUE, NEW_VALUE = "hunter2-and-more", "correct-horse-and-more"
IMAGE = f"registry.test/web:1@sha256:{'1' * 64}"
COMPOSE = f"""\
name: shop
services:
  web:
    image: {IMAGE}
    restart: always
    environment:
      DATABASE_URL: postgres://shop:${{secret.db.password}}@db/shop
      TOKEN: ${{TOKEN}}
    secrets:
      - db.password
      - {{source: token, target: /etc/token, uid: "1000", mode: 0400}}
secrets:
  db.password: {{external: true}}
  token: {{external: true, name: shop.token}}
"""


@attrs.frozen
class Place:
    """An operator's home, a device with containers in memory, and a compose file."""

    bus: Bus
    containers: FakeContainers
    root: Path

    async def harmony(self, *arguments: str, stdin: str = "") -> Said:
        return await harmony(self.bus.home, *arguments, stdin=stdin)

    async def push(self, text: str, name: str) -> Said:
        (self.root / name).write_text(text)
        return await self.harmony("push-score", "pi-1", str(self.root / name))

    def holders_of(self, value: str) -> list[str]:
        return [
            str(path)
            for path in self.root.rglob("*")
            if path.is_file() and value.encode() in path.read_bytes()
        ]


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    files, containers = FakeFiles(), FakeContainers()
    containers.secret_values = files.secret_values
    async with (
        serving(tmp_path, "pi-1") as bus,
        running_agent(
            bus.home,
            "pi-1",
            tmp_path / "agent",
            registry=Registry([ComposeScore, ContainerScore]),
            offers={
                "FileSystemHost": files,
                "ContainerRuntime": containers,
                "VolumeHost": FakeVolumes(containers.attachments),
                "ContainerNetworkHost": FakeContainerNetworks(containers.attachments),
            },
            missing={},
            secret_values=files.secret_values,
        ),
    ):
        yield Place(bus, containers, tmp_path)


async def test_a_project_has_its_secrets_and_nobody_else_is_told(place: Place) -> None:
    (place.root / ".env").write_text("TOKEN=${secret.shop.token}\n")
    await place.harmony("secret", "set", "db.password", stdin=VALUE)
    await place.harmony("secret", "set", "shop.token", stdin=f"{VALUE}-too")
    told = [await place.push(COMPOSE, "compose.yaml")]
    assert told[0].status == 0, told[0].err

    async def expect(value: str) -> None:
        containers, name = place.containers, "shop-web-1"
        url = f"postgres://shop:{value}@db/shop"
        assert await containers.read_environment(name, "DATABASE_URL") == url
        assert await containers.read_environment(name, "TOKEN") == f"{VALUE}-too"
        assert await containers.read_inside(name, "/run/secrets/db.password") == value
        assert await containers.read_inside(name, "/etc/token") == f"{VALUE}-too"

    await expect(VALUE)
    file = str(place.root / "compose.yaml")
    told.append(await place.harmony("diff", "pi-1", file))
    assert "nothing would change" in told[-1].out, told[-1].out
    await place.harmony("secret", "set", "db.password", stdin=NEW_VALUE)
    told.append(await place.harmony("diff", "pi-1", file))
    assert "recreated: environment, secrets changed" in told[-1].out
    told.append(await place.push(COMPOSE, "compose.yaml"))
    assert told[-1].status == 0, told[-1].err
    await expect(NEW_VALUE)
    kept = await place.containers.list_secrets()
    told += [
        await place.harmony(*command)
        for command in (
            ("events", "pi-1"),
            ("remove-score", "pi-1", "shop"),
        )
    ]
    for each in told:
        assert VALUE not in each.out + each.err
        assert NEW_VALUE not in each.out + each.err
    assert place.holders_of(VALUE) == place.holders_of(NEW_VALUE) == []
    assert len(kept) == 3  # two of one text are one
    assert await place.containers.list_secrets() == []


async def test_where_all_could_read_it_none_is_put(place: Place) -> None:
    await place.harmony("secret", "set", "key", stdin=VALUE)
    field = "command: ['--password=${secret.key}']"
    text = f"- {{id: web, kind: ContainerScore, spec: {{name: web, image: '{IMAGE}', {field}}}}}"
    said = await place.push(text, "scores.yaml")
    assert said.status != 0
    assert "of a container, environment, login, secrets can have one" in said.out
    assert VALUE not in said.out + said.err
    assert await place.containers.observe("web") is None
    assert await place.containers.list_secrets() == []
