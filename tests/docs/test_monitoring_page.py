"""docs/monitoring.md: its commands can be typed, its files are taken, and its tables are whole."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest

from harmony_control.alerts.channels import sign
from harmony_control.alerts.find import Kind
from harmony_control.alerts.settings import Settings, read_settings
from harmony_control.cli.parser import parser
from harmony_control.fleet_view.where import parse_where
from tests.prometheus import run_promtool

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "monitoring.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TYPED = [
    shlex.split(line, comments=True)
    for kind, block in BLOCKS
    if not kind
    for line in block.splitlines()
    if line.startswith("harmony ")
]
SAID = [shlex.split(each) for each in re.findall(r"`(harmony agents [^`]*)`", PAGE)]
COMMANDS = [*TYPED, *SAID]


def block(wanted: str) -> str:
    (found,) = (str(text) for kind, text in BLOCKS if kind == wanted)
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=shlex.join)
def test_every_command_can_be_typed(command: list[str]) -> None:
    found = parser().parse_args(command[1:])
    if where := getattr(found, "where", None):
        parse_where(where)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 6


def test_the_alerts_file_is_one_and_shows_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "hook.secret").write_text("x" * 16)
    (tmp_path / "smtp.password").write_text("secret")
    file = tmp_path / "alerts.toml"
    file.write_text(block("toml"))
    settings = read_settings(file)
    defaults = {
        name: Settings.model_fields[name].default
        for name in ("group_by", "wait_s", "root_expires_days", "kinds")
    }
    assert {name: getattr(settings, name) for name in defaults} == defaults
    assert settings.webhook[0].secret_file == tmp_path / "hook.secret"


def test_every_kind_of_alert_is_told() -> None:
    told = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert {each for each in told if not each.startswith("harmony")} == set(get_args(Kind))


def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "harmony.token").write_text("x" * 32)
    rules = TREE / "deploy" / "monitoring" / "harmony.rules.yml"
    (tmp_path / "harmony.rules.yml").write_text(rules.read_text())
    file = tmp_path / "prometheus.yml"
    file.write_text(block("yaml").replace("/etc/prometheus", str(tmp_path)))
    code, said = run_promtool("check", "config", str(file))
    assert code == 0, said
    assert "rules found" in said


def test_every_metric_is_in_the_table_and_no_other() -> None:
    source = (TREE / "harmony_control" / "web" / "metrics.py").read_text()
    made = set(re.findall(r'"(harmony_\w+)"', source))
    made = {f"{each}_total" if each == "harmony_alerts_messages" else each for each in made}
    rows = re.findall(r"^\| (`harmony_[^|]*)\|", PAGE, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(harmony_[a-z_]+)`", row)}
    assert told == made


def test_what_a_receiver_looks_at_is_what_is_sent() -> None:
    names: dict[str, Callable[[bytes, str, str], bool]] = {}
    exec(block("python"), names)
    is_from_harmony, now_s = names["is_from_harmony"], int(time.time())
    header = sign(b"{}", "a secret", now_s)
    assert is_from_harmony(b"{}", header, "a secret")
    assert not is_from_harmony(b"{ }", header, "a secret")
    assert not is_from_harmony(b"{}", header, "another")
    assert not is_from_harmony(b"{}", sign(b"{}", "a secret", now_s - 301), "a secret")
    assert not is_from_harmony(b"{}", header.replace(f"t={now_s}", f"t={now_s + 1}"), "a secret")
