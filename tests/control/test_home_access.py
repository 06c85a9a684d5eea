"""What others may write is not believed: as ssh does of its files, it is said what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from harmony_control.store import operator_key, roots
from harmony_control.store.gate_key import load_gate_key, make_gate_key
from harmony_control.store.home import Home
from harmony_control.web.users import Users
from harmony_core.errors import ConfigError
from harmony_core.wire.envelope import generate_key
from tests.nats import home_without_server

NOBODY = 65534


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = home_without_server(tmp_path)
    operator_key.trust(made, [generate_key().public])
    for each in (made.admin_seed, made.authority):
        each.parent.mkdir(exist_ok=True)
        each.write_text("")
    made.save_agents({})
    make_gate_key(made)
    made.trust.mkdir()
    (made.trust / "1.json").write_text("{}")
    (made.root / "web-users.toml").write_text("")
    return made


READ: dict[str, Callable[[Home], object]] = {
    "": operator_key.load_trusted,
    "operators": operator_key.load_trusted,
    "operators/*.pub": operator_key.load_trusted,
    "operator.key": operator_key.load,
    "gate.key": load_gate_key,
    "control.toml": Home.control,
    "server": Home.control,
    "server/admin.nk": Home.control,
    "server/ca.pem": Home.control,
    "server/agents.json": Home.agents,
    "trust": roots.read_chain,
    "trust/1.json": roots.read_chain,
    "web-users.toml": lambda home: Users(home).read(),
}


def what(home: Home, name: str) -> Path:
    return next(home.root.glob(name)) if "*" in name else home.root / name


@pytest.mark.parametrize("name", READ)
def test_what_others_may_write_is_refused_with_what_to_do(home: Home, name: str) -> None:
    path = what(home, name)
    mode = path.stat().st_mode
    for others in (0o002, 0o020):
        path.chmod(mode | others)
        with pytest.raises(ConfigError, match=f"others may write .*; .* chmod go-w {path}$"):
            READ[name](home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", [each for each in READ if each])
def test_what_belongs_to_somebody_else_is_refused_with_what_to_do(home: Home, name: str) -> None:
    path = what(home, name)
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(ConfigError, match=f"number {NOBODY}, .* chown 0 {path}$"):
        READ[name](home)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_believes_what_the_owner_of_the_home_does(home: Home) -> None:
    """As who looks after a service, whose home belongs to a user of its own."""
    for each in (home.root, *home.root.rglob("*")):
        os.chown(each, NOBODY, NOBODY)
    assert len(operator_key.load_trusted(home)) == 2
    os.chown(home.operator_key, NOBODY - 1, NOBODY - 1)
    with pytest.raises(ConfigError, match=f"chown {NOBODY} "):
        operator_key.load_trusted(home)
