"""ComposeScore on fakes: services in order, each by its condition; and one that fails keeps back no other."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from harmony_core import Failure, Noop, Outcome, Success
from harmony_core import Running as Pending
from harmony_core.interpretation import Verdict, interpret
from harmony_core.resources import Completed, Resource, Running
from harmony_core.testing import (
    AllowAll,
    FakePi,
    interpret_once,
    interpret_twice,
    inventory,
    make_stage,
)
from harmony_pi_topology.testing.fake_containers import FakeContainers, Program
from harmony_scores import ComposeScore

IMAGE = "registry.test/app:1"
MIGRATE = ("migrate",)


def service(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": f"shop-{name}-1", "image": IMAGE, "settle_s": 1.0, **fields}


def project(services: dict[str, dict[str, Any]], **parts: Any) -> ComposeScore:
    made = {name: service(name, **each) for name, each in services.items()}
    return ComposeScore.model_validate({"services": made, **parts})


def shop(**web: Any) -> ComposeScore:
    """A web service after an app, which comes after a migration and a database."""
    return project(
        {
            "web": {"depends_on": {"app": {}}, "networks": [{"network": "shop_default"}], **web},
            "app": {
                "depends_on": {
                    "migrate": {"condition": "service_completed_successfully"},
                    "db": {"condition": "service_healthy"},
                }
            },
            "migrate": {
                "command": MIGRATE,
                "runs": "once",
                "restart": "no",
                "depends_on": {"db": {"condition": "service_healthy"}},
            },
            "db": {
                "command": ("db",),
                "healthcheck": {"command": ["pg_isready"]},
                "volumes": [{"volume": "shop_data", "target": "/data"}],
            },
        },
        networks=[{"name": "shop_default"}],
        volumes=[{"name": "shop_data"}],
        files=[{"path": "/etc/harmony-apps/shop/app.conf", "content": "a"}],
    )


@pytest.fixture
def pi() -> FakePi:
    device = FakePi()
    device.containers = FakeContainers(patient=False)
    device.containers.files = device.files.contents
    device.volumes = type(device.volumes)(device.containers.attachments)
    device.container_networks = type(device.container_networks)(device.containers.attachments)
    device.containers.programs[MIGRATE] = Program(exit_code=0, runs_for_s=30.0)
    device.containers.programs["db",] = Program(healthy_after_s=20.0)
    return device


async def there(pi: FakePi) -> set[str]:
    names = ("web", "app", "migrate", "db", "other")
    found = {name: await pi.containers.observe(f"shop-{name}-1") for name in names}
    return {name for name, state in found.items() if isinstance(state, Running | Completed)}


async def settle(score: ComposeScore, pi: FakePi, seconds: float = 2.0) -> Verdict:
    await interpret_once(score, pi.offers)
    await pi.containers.pass_time(seconds)
    return await interpret_once(score, pi.offers)


async def test_interpreted_twice_it_is_success_then_noop() -> None:
    device = FakePi()
    device.containers.programs[MIGRATE] = Program(exit_code=0)
    first, second = await interpret_twice(shop(), device.offers)
    assert isinstance(first, Success), first
    assert second == Noop()


async def test_a_dry_run_of_what_is_not_there_tells_all_of_it(pi: FakePi) -> None:
    stage = make_stage(pi.offers, apply=False)
    verdict = await interpret(shop(), inventory(), stage)
    assert isinstance(verdict.outcome, Success)
    changed = [each.resource for each in stage.changes]
    assert set(changed[:3]) == {
        "container-network:shop_default",
        "volume:shop_data",
        "file:/etc/harmony-apps/shop/app.conf",
    }
    assert changed[3:] == [
        "container:shop-db-1",
        "container:shop-migrate-1",
        "container:shop-app-1",
        "container:shop-web-1",
    ]
    assert await there(pi) == set()


async def test_each_service_waits_for_what_it_depends_on_and_says_so(pi: FakePi) -> None:
    verdict = await settle(shop(), pi)
    assert await there(pi) == {"db"}
    assert isinstance(verdict.outcome, Pending)
    assert verdict.outcome.message == (
        "it does not answer yet; migrate waits for db to be healthy; app waits for migrate to end well; "
        "web waits for app to be started"
    )
    await pi.containers.pass_time(20)
    verdict = await settle(shop(), pi)
    assert await there(pi) == {"db", "migrate"}
    assert verdict.outcome.message == (
        "app waits for migrate to end well; web waits for app to be started"
    )
    assert verdict.look_again_s == 10
    await pi.containers.pass_time(30)
    await settle(shop(), pi)
    assert await there(pi) == {"db", "migrate", "app", "web"}
    assert (await settle(shop(), pi)).outcome == Noop()


async def test_what_is_started_and_settles_or_is_unhealthy_counts_as_started(pi: FakePi) -> None:
    score = project(
        {
            "web": {"depends_on": {"db": {}}},
            "db": {"command": ("db",), "healthcheck": {"command": ["x"]}},
        }
    )
    await interpret_once(score, pi.offers)
    assert await there(pi) == {"db", "web"}


async def test_one_that_fails_keeps_back_those_that_depend_on_it_and_no_others(pi: FakePi) -> None:
    pi.containers.programs["boom",] = Program(exit_code=3, log=("out of cheese",))
    score = project(
        {
            "db": {"command": ("boom",)},
            "web": {"depends_on": {"db": {}}},
            "other": {},
            "app": {"image": "registry.test/none:1"},
            "lax": {"depends_on": {"db": {"required": False}}},
        }
    )
    pi.containers.missing_images = {"registry.test/none:1"}
    verdict = await settle(score, pi)
    assert await there(pi) == {"other"}
    assert await pi.containers.observe("shop-lax-1") is not None
    assert isinstance(verdict.outcome, Failure)
    assert verdict.outcome.message == (
        "container shop-db-1 exited with code 3; its last lines:; "
        "container:shop-app-1: the registry has no image registry.test/none:1; "
        "web waits for db to be started"
    )
    assert "out of cheese" in verdict.outcome.error.message
    assert not verdict.permanent


async def test_a_migration_that_fails_keeps_its_service_back_and_is_run_again(pi: FakePi) -> None:
    pi.containers.programs[MIGRATE] = Program(exit_code=2, runs_for_s=5.0)
    score = project(
        {
            "app": {"depends_on": {"migrate": {"condition": "service_completed_successfully"}}},
            "migrate": {"command": MIGRATE, "runs": "once", "restart": "no"},
        }
    )
    verdict = await settle(score, pi, 6.0)
    assert isinstance(verdict.outcome, Failure)
    assert verdict.outcome.message.endswith("app waits for migrate to end well")
    pi.containers.programs[MIGRATE] = Program(exit_code=0)
    assert await there(pi) == set()
    changed = score.model_copy(
        update={
            "services": {
                **score.services,
                "migrate": score.services["migrate"].model_copy(update={"environment": {"A": "1"}}),
            }
        }
    )
    await settle(changed, pi)
    assert await there(pi) == {"app", "migrate"}


async def test_what_the_device_forbids_of_one_does_not_keep_the_others_from_being_made(
    pi: FakePi,
) -> None:
    class NoDatabase(AllowAll):
        def refusal(self, resource: Resource) -> str | None:
            return "no databases here" if resource.key == "shop-db-1" else None

    score = project({"db": {}, "other": {}})
    planned = make_stage(pi.offers, policy=NoDatabase(), apply=False)
    verdict = await interpret(score, inventory(), planned)
    assert (verdict.permanent, verdict.went_on) == (False, True)
    verdicts = [
        await interpret(score, inventory(), make_stage(pi.offers, policy=NoDatabase()))
        for _ in range(2)
    ]
    assert await there(pi) == {"other"}
    await pi.containers.pass_time(2)
    verdicts.append(await interpret(score, inventory(), make_stage(pi.offers, policy=NoDatabase())))
    assert [each.permanent for each in verdicts] == [False, False, True]
    assert verdicts[-1].outcome.message == "container:shop-db-1: no databases here"


async def test_a_volume_that_cannot_be_made_is_told_beside_what_needs_it(pi: FakePi) -> None:
    score = project(
        {"db": {"volumes": [{"volume": "harmony", "target": "/data"}]}, "other": {}},
        volumes=[{"name": "harmony"}],
    )

    class NoVolumes(AllowAll):
        def refusal(self, resource: Resource) -> str | None:
            return "no volumes here" if resource.resource_type == "volume" else None

    stage = make_stage(pi.offers, policy=NoVolumes())
    outcome: Outcome = (await interpret(score, inventory(), stage)).outcome
    assert isinstance(outcome, Failure)
    assert outcome.message.startswith("volume:harmony: no volumes here; ")
    assert "volume harmony is not there" in outcome.message
    assert await there(pi) == {"other"}


async def test_a_change_of_one_service_makes_only_that_anew(pi: FakePi) -> None:
    pi.containers.programs[MIGRATE] = Program(exit_code=0)
    pi.containers.programs["db",] = Program()
    for _ in range(4):
        await settle(shop(), pi)
    before = {name: await pi.containers.identity(f"shop-{name}-1") for name in await there(pi)}
    assert len(before) == 4
    await settle(shop(environment={"MODE": "b"}), pi)
    after = {name: await pi.containers.identity(f"shop-{name}-1") for name in await there(pi)}
    assert {name for name in before if before[name] != after[name]} == {"web"}


@pytest.mark.parametrize(
    ("services", "said"),
    [
        ({"web": {"depends_on": {"db": {}}}}, "db is no service of this project"),
        (
            {
                "web": {"depends_on": {"db": {"condition": "service_completed_successfully"}}},
                "db": {},
            },
            "db never ends; write runs: once",
        ),
        (
            {"web": {"depends_on": {"db": {"condition": "service_healthy"}}}, "db": {}},
            "db has no healthcheck and no ready",
        ),
        (
            {"a": {"depends_on": {"b": {}}}, "b": {"depends_on": {"a": {}}}},
            "back to where it began",
        ),
        ({"a": {"name": "x"}, "b": {"name": "x"}}, "the container x is named twice"),
    ],
)
def test_what_cannot_be_met_is_refused_with_what_to_do(
    services: dict[str, dict[str, Any]], said: str
) -> None:
    made = {name: {**service(name), **each} for name, each in services.items()}
    with pytest.raises(ValidationError, match=said):
        ComposeScore.model_validate({"services": made})


def test_what_runs_once_is_not_always_started_again() -> None:
    with pytest.raises(ValidationError, match="restart: what runs once is not started again"):
        project({"migrate": {"runs": "once"}})


def test_it_is_read_as_it_was_written() -> None:
    score = shop()
    assert ComposeScore.model_validate_json(score.model_dump_json()) == score
