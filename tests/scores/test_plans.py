"""A plan says what the deed does, also what follows from a file that is only going to be changed."""

from __future__ import annotations

import pytest

from harmony_core import Inventory, Outcome, Score, outcome_of
from harmony_core.interpretation import interpret
from harmony_core.resources import File, SystemdUnit
from harmony_core.score import AnyScore
from harmony_core.stage import Stage
from harmony_core.testing import FakePi, interpret_once, inventory, make_stage
from harmony_scores import SysctlScore, WebAppScore
from harmony_scores.sysctl import HasSettings

APP = WebAppScore(
    name="web",
    image="registry.local/web:1",
    config="one",
    config_path="/etc/web.conf",
    port=80,
)
SETTING = SysctlScore(name="net", settings={"net.ipv4.ip_forward": "0"})


class Service(Score[HasSettings]):
    text: str = "one"
    program: str = "/bin/true"

    async def interpret(self, inventory: Inventory, topology: HasSettings) -> Outcome:
        file = File(path="/etc/web.conf", content=self.text.encode())
        unit = SystemdUnit(
            name="web.service",
            content=f"[Service]\nExecStart={self.program}\n",
            enabled=None,
            uses=("/etc/web.conf",),
        )
        return outcome_of(await topology.files.ensure(file), await topology.systemd.ensure(unit))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (APP, APP.model_copy(update={"config": "two"})),
        (APP, APP.model_copy(update={"config": "two", "port": 81})),
        (SETTING, SETTING.model_copy(update={"settings": {"net.ipv4.ip_forward": "1"}})),
        (Service(), Service(text="two")),
        (Service(), Service(text="two", program="/bin/false")),
        (Service(), Service(program="/bin/false")),
        (None, APP),
        (None, Service()),
    ],
)
async def test_a_plan_is_the_deed(before: AnyScore | None, after: AnyScore) -> None:
    pi = FakePi()
    if before is not None:
        await interpret_once(before, pi.offers)
    plan, deed = make_stage(pi.offers, apply=False), make_stage(pi.offers)
    for stage in (plan, deed):
        await interpret(after, inventory(), stage)
    assert deed.changes
    assert told(plan) == told(deed)


def told(stage: Stage) -> list[tuple[str, tuple[str, ...]]]:
    return [(each.resource, each.actions) for each in stage.changes]
