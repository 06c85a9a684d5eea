"""The alert rules and the dashboard that come with Harmony: checked by Prometheus' own tool, and true."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from ruamel.yaml import YAML

from harmony_control.cli.parser import parser
from harmony_control.fleet import DeviceRow, Fleet
from harmony_control.fleet_view.where import parse_where
from harmony_control.web.board import Board
from harmony_control.web.live import Live
from harmony_control.web.metrics import FleetCollector, make_registry
from harmony_control.web.readings import Readings
from tests.control.ground import harmony
from tests.control.light_fleet import light_fleet
from tests.nats import Bus, serving
from tests.prometheus import run_promtool
from tests.web.ground import Rows, read_rollouts

TREE = Path(__file__).parents[2]
MONITORING = TREE / "deploy" / "monitoring"
RULES = MONITORING / "harmony.rules.yml"
DASHBOARD = MONITORING / "harmony-fleet.grafana.json"
CASES = Path(__file__).with_name("harmony.rules.test.yml")


def _load(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())  # pyright: ignore[reportUnknownMemberType] - half typed there


def _rules() -> list[dict[str, Any]]:
    return [rule for group in _load(RULES)["groups"] for rule in group["rules"]]


def _dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def _queries() -> Iterator[str]:
    for panel in _dashboard()["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for each in _dashboard()["templating"]["list"]:
        if "definition" in each:
            yield each["definition"]


@pytest.fixture(scope="module")
def expressions() -> list[str]:
    return [*(each["expr"] for each in _rules()), *_queries()]


def test_the_rules_are_rules() -> None:
    code, said = run_promtool("check", "rules", str(RULES))
    assert code == 0, said
    assert f"{len(_rules())} rules found" in said


def test_each_alert_comes_when_it_must_and_only_then(tmp_path: Path) -> None:
    for each in (RULES, CASES):
        shutil.copy(each, tmp_path)
    code, said = run_promtool("test", "rules", CASES.name, cwd=tmp_path)
    assert code == 0, said


def test_each_alert_has_a_case_in_which_it_comes_and_one_in_which_it_does_not() -> None:
    cases = [case for test in _load(CASES)["tests"] for case in test["alert_rule_test"]]
    names = {each["alert"] for each in _rules()}
    assert {each["alertname"] for each in cases if each["exp_alerts"]} == names
    assert {each["alertname"] for each in cases if not each["exp_alerts"]} == names


async def test_every_metric_that_is_asked_for_is_told(
    expressions: list[str], tmp_path: Path
) -> None:
    """And has the labels and values that are asked for."""
    async with light_fleet(tmp_path, 2) as devices, serving(tmp_path / "other") as other:
        await devices.publish("one", ["100%"])
        told = await _tell(devices.bus, other)
    assert len(expressions) > 20
    for expression in expressions:
        named = re.findall(r"\b(harmony_\w+)(?:\{([^}]*)\})?", expression)
        assert named, expression
        for name, matchers in named:
            assert name in told, f"{name}, in: {expression}"
            for label, sign, wanted in re.findall(r"(\w+)(=~|!=|=)\"([^\"]*)\"", matchers):
                if label in {"job", "class"}:
                    continue  # Prometheus' own; a class is whatever it is called
                values = told[name].get(label)
                assert values is not None, f"{name} has no label {label}: {expression}"
                asked = set(wanted.split("|")) if sign == "=~" else {wanted}
                assert asked <= values, f"{name}: {asked - values}"


async def _tell(bus: Bus, other: Bus) -> dict[str, dict[str, set[str]]]:
    """Each metric, of a fleet that has everything, with the values of each of its labels; the root document
    is that of another one, which has no devices to wait for."""
    live = Live(Rows([]), Board("home"))
    live.read_at = now = datetime.now(UTC)
    one = DeviceRow(id="pi-1", device="Online", update="UpToDate", workloads="Healthy", reason="")
    live.board.take([attrs.evolve(one, agent_version="1.0.0", last_seen=now)])
    said = await harmony(other.home, "trust", "init", "--expires-in", "90d")
    assert said.status == 0, said.err
    live.rollouts.take(await read_rollouts(Fleet(bus.home, bus.admin)))
    readings = Readings(Fleet(other.home, other.admin))
    await readings.read()
    registry = make_registry(FleetCollector(live, readings, is_connected=lambda: True))
    found: dict[str, dict[str, set[str]]] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def test_the_dashboard_is_whole(expressions: list[str]) -> None:
    panels = _dashboard()["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    assert len({each["title"] for each in panels}) == len(panels)
    variables = {each["name"] for each in _dashboard()["templating"]["list"]}
    assert {
        name for each in expressions for name in re.findall(r"\$(\w+)", each) if name != "value"
    } <= variables
    places = [each["gridPos"] for each in panels]
    cells = [
        (x, y)
        for each in places
        for x in range(each["x"], each["x"] + each["w"])
        for y in range(each["y"], each["y"] + each["h"])
    ]
    assert len(cells) == len(set(cells))
    assert {x for x, _ in cells} == set(range(24))


def test_prometheus_understands_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [
        each.replace("$job", "harmony").replace("$class", "kiosk")
        for each in _queries()
        if not each.startswith("label_values")
    ]
    rules = [{"record": f"a:b{at}", "expr": each} for at, each in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    code, said = run_promtool("check", "rules", str(file))
    assert code == 0, said


@pytest.mark.parametrize("rule", _rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_type(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}
    text = " ".join(rule["annotations"].values()).replace("{{ $labels.class }}", "kiosk")
    for typed in re.findall(r"`harmony ([^`]+)`", text):
        words = shlex.split(typed)
        if words == ["server", "--check"]:
            words.append("tls://nats.lan:4222")
        found = parser().parse_args(words)
        if where := getattr(found, "where", None):
            parse_where(where)


def test_they_are_in_the_wheel() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["deploy/monitoring"] == "harmony_control/deploy/monitoring"
    page = (TREE / "docs" / "monitoring.md").read_text()
    named = re.findall(r"harmony_control/deploy/monitoring/([\w.-]+)", page)
    assert {each.name for each in MONITORING.iterdir()} == set(named)
