"""What every container runtime that Scores act on must do: `ContainerRuntime`, as tests.

::

    class TestMyContainers(ContainerRuntimeContract):
        @pytest.fixture
        def host(self) -> ContainersUnderTest:
            return ContainersUnderTest(containers=MyContainers(…), bystander=…, images=…, reopened=…)

The images have busybox in them, and a page below /www; what the containers run are the commands below,
which a fake knows by `PROGRAMS`. The *bystander* is somebody else on the same device: what Harmony did is
checked with the bystander's eyes, and what it must cope with is done with the bystander's hands.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import attrs
import pytest

from harmony_core.change import Change, NotReady
from harmony_core.errors import (
    ContainerFailed,
    ImageNotFound,
    NotOurs,
    NotReadyInTime,
    RegistryUnreachable,
)
from harmony_core.reconciler import Reconciler
from harmony_core.resources import (
    Completed,
    Container,
    ContainerState,
    Exited,
    HttpProbe,
    Mount,
    PublishedPort,
    Running,
    TcpProbe,
)
from harmony_core.secret_values import SecretValues
from harmony_core.steps import Step

from .containers_device_contract import RECOVERS, SICK, ContainerDeviceContract
from .containers_hold_contract import ContainerHoldContract
from .containers_replacing_contract import POLITE, PORT, ContainerReplacingContract
from .containers_secret_contract import ContainerSecretContract
from .containers_volume_contract import ContainerVolumeContract
from .containers_watch_contract import ContainerWatchContract
from .fake_containers import Program

__all__ = [
    "CLAIMED_LABELS",
    "PROGRAMS",
    "ContainerBystander",
    "ContainerRuntimeContract",
    "ContainersUnderTest",
    "ImagesUnderTest",
]

SLEEP = ("sleep", "1000")
"""As the first process of a container, it does not hear that it is asked to end."""
BOOM = ("sh", "-c", "echo boom; echo bang >&2; exit 3")
CLAIMED_LABELS = {
    "harmony.runs": "once",
    "harmony.max-hold-s": "9" * 15,
    "harmony.secrets": '{"harmony-web-0123456789abcdef":"0123456789abcdef"}',
}
"""What `ImagesUnderTest.with_volume` says of itself, though it is Harmony's to say."""
MIGRATE = ("sh", "-c", "echo migrated; sleep 2")
FAIL_LATE = ("sh", "-c", "echo half; sleep 2; exit 4")
CHATTY = ("sh", "-c", "n=0; while [ $n -lt 100 ]; do n=$((n + 1)); echo $n; done; exit 1")
SERVE = ("httpd", "-f", "-p", "80", "-h", "/www")
SERVE_LATE = ("sh", "-c", f"sleep 3; exec {' '.join(SERVE)}")
SERVE_NOTHING = ("sh", "-c", "echo the database is away; exec sleep 1000")

PROGRAMS: Mapping[tuple[str, ...], Program] = MappingProxyType(
    {
        SLEEP: Program(deaf=True),
        POLITE: Program(),
        BOOM: Program(exit_code=3, log=("boom", "bang")),
        CHATTY: Program(exit_code=1, log=tuple(str(n) for n in range(1, 101))),
        MIGRATE: Program(exit_code=0, runs_for_s=2.0, log=("migrated",)),
        FAIL_LATE: Program(exit_code=4, runs_for_s=2.0, log=("half",)),
        SERVE: Program(),
        SERVE_LATE: Program(ready_after_s=3.0),
        SICK: Program(healthy_after_s=math.inf, log=("feeling sick",)),
        RECOVERS: Program(healthy_after_s=2.0),
        SERVE_NOTHING: Program(ready_after_s=math.inf, log=("the database is away",)),
    }
)
"""The commands above, as `FakeContainers.programs`."""

_LOOKS = 200


class ContainerBystander(Protocol):
    """Somebody else who works on the same device."""

    async def pass_time(self, seconds: float) -> None:
        """Wait for *seconds* of the containers' time."""

    async def identity(self, name: str) -> tuple[str, str] | None:
        """Return the container's id and when it was started; None when there is none."""

    async def make_strange(self, name: str) -> None:
        """Make and start a container that is not Harmony's."""

    async def kill(self, name: str) -> None:
        """Kill the process that it runs."""

    async def stop(self, name: str) -> None:
        """Have it stopped."""

    async def delete(self, name: str) -> None:
        """Remove it by force."""

    async def rename(self, name: str, other: str) -> None:
        """Call it *other* from now on."""

    async def has_image(self, image: str) -> bool:
        """Return whether the image is on the device."""
        ...

    async def hold_port(self, port: int) -> None:
        """Listen there."""

    async def free_port(self, port: int) -> None:
        """Listen there no more."""

    async def volume(self, name: str, target: str) -> str | None:
        """Return the name of the volume that the container sees at *target*; None where it has none."""
        ...

    async def has_volume(self, volume: str) -> bool:
        """Return whether a volume of this name is on the device."""
        ...

    async def write_hold(self, name: str, data: bytes | None) -> None:
        """Write the container's hold, from within it; with None remove the hold."""

    async def plug_in(self, path: str, numbers: str) -> None:
        """Make the node *path* of a device with these numbers, as in ``c 1:3``, in the place of another."""

    async def unplug(self, path: str) -> None:
        """Take the node *path* away, if it is there."""

    async def read_inside(self, name: str, path: str) -> str:
        """Return what the container *name* sees in the file *path*."""
        ...

    async def read_environment(self, name: str, variable: str) -> str | None:
        """Return what the first process of the container *name* has in *variable*; None where it has none."""
        ...

    async def tell_all(self, name: str) -> str:
        """Return all that the runtime reports of the container *name*."""
        ...

    async def list_secrets(self) -> Sequence[str]:
        """Return the names of the secrets in the runtime's own store."""
        ...

    async def make_secret(self, name: str, value: str) -> None:
        """Put one into that store, where there is none of this name."""

    async def delete_secret(self, name: str) -> None:
        """Take one out of that store."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file on the device, and make its directories."""


@attrs.frozen(kw_only=True)
class ImagesUnderTest:
    """References, all with digests. The first three are in a registry, and not on the device."""

    first: str
    second: str
    third: str
    with_volume: str
    """In the registry too: it declares a volume at /data, and `CLAIMED_LABELS`."""
    missing: str
    """In a registry that has no such image."""
    unreachable: str
    """In a registry that does not answer."""

    @property
    def available(self) -> tuple[str, str, str]:
        return (self.first, self.second, self.third)


@attrs.frozen(kw_only=True)
class ContainersUnderTest:
    """A reconciler of containers, and somebody else on the same device."""

    containers: Reconciler[Container, ContainerState]
    bystander: ContainerBystander
    images: ImagesUnderTest
    reopen: Callable[[], Reconciler[Container, ContainerState]]
    """Makes another reconciler with the same records, as an agent does that starts again."""
    secret_values: SecretValues = attrs.field(factory=SecretValues, repr=False)
    """What the words stand for, to both reconcilers."""

    async def look(self, container: Container) -> Change:
        """Converge once. Raise the error that this answers."""
        (result,) = await self.containers.converge([container], apply=True)
        return _change(result)

    async def plan_one(self, container: Container) -> Change:
        (result,) = await self.containers.converge([container], apply=False)
        return _change(result)

    async def apply_one(self, container: Container) -> Change:
        """Look until it has converged: the last Change, with all that was done on the way."""
        steps: tuple[Step, ...] = ()
        for _ in range(_LOOKS):
            change = await self.look(container)
            steps += change.steps
            if change.pending is None:
                return attrs.evolve(change, steps=steps)
            await self.bystander.pass_time(change.pending.look_again_s)
        raise AssertionError(f"{container.name} did not converge in {_LOOKS} looks")

    async def expect_failure(self, container: Container) -> Exception:
        """Look until it fails: its error. On a slow machine, what ends at once may take seconds to."""
        if container.command in (BOOM, CHATTY):
            container = container.model_copy(update={"settle_s": 10.0})
        with pytest.raises(Exception) as raised:  # noqa: PT011 - the caller looks at it
            await self.apply_one(container)
        return raised.value

    async def until(self, state: type[Running | Completed | Exited]) -> None:
        """Let time pass until the container web is seen in *state*."""
        for _ in range(_LOOKS):
            if isinstance(await self.containers.observe("web"), state):
                return
            await self.bystander.pass_time(0.1)
        raise AssertionError(f"web was not {state.__name__} in {_LOOKS} looks")

    async def remove_one(self, name: str) -> Change:
        (result,) = await self.containers.remove([name], apply=True)
        return _change(result)


def _change(result: Change | Exception) -> Change:
    if isinstance(result, Exception):
        raise result
    return result


class ContainerRuntimeContract(
    ContainerWatchContract,
    ContainerHoldContract,
    ContainerReplacingContract,
    ContainerVolumeContract,
    ContainerSecretContract,
    ContainerDeviceContract,
):
    """Subclass with a name that pytest collects, and a fixture `host`."""

    @pytest.fixture
    @abstractmethod
    def host(self) -> ContainersUnderTest:
        """Return a device without containers and images."""

    def container(self, host: ContainersUnderTest, **fields: Any) -> Container:
        """Return a container that sleeps, can be killed, and has settled soon."""
        return Container.model_validate(
            {
                "name": "web",
                "image": host.images.first,
                "command": SLEEP,
                "stop_timeout_s": 0,
                "settle_s": 0.5,
                **fields,
            }
        )

    async def test_what_is_not_there_is_observed_as_none(self, host: ContainersUnderTest) -> None:
        assert await host.containers.observe("web") is None

    async def test_an_image_is_fetched_and_a_container_made_and_started(
        self, host: ContainersUnderTest
    ) -> None:
        change = await host.apply_one(self.container(host))
        assert change.actions == ("pulled", "created", "started")
        assert isinstance(change.after, Running)
        assert change.after.restarts == 0
        assert change.after.image.partition("@")[2] == host.images.first.partition("@")[2]
        assert await host.containers.observe("web") == change.after

    async def test_one_that_is_right_is_untouched(self, host: ContainersUnderTest) -> None:
        desired = self.container(host)
        await host.apply_one(desired)
        identity = await host.bystander.identity("web")
        for _ in range(3):
            change = await host.look(desired)
            assert change.actions == ()
            assert change.pending is None
        assert await host.bystander.identity("web") == identity

    async def test_an_agent_that_starts_again_finds_it_as_it_was(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host)
        await host.apply_one(desired)
        identity = await host.bystander.identity("web")
        change = await attrs.evolve(host, containers=host.reopen()).look(desired)
        assert change.actions == ()
        assert change.pending is None
        assert await host.bystander.identity("web") == identity

    async def test_a_dry_run_changes_nothing_and_says_what_applying_then_does(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host)
        planned = await host.plan_one(desired)
        assert isinstance(planned.after, Running)
        assert await host.bystander.identity("web") is None
        assert (await host.apply_one(desired)).actions == planned.actions
        identity = await host.bystander.identity("web")
        changed = self.container(host, environment={"MODE": "quiet"})
        planned = await host.plan_one(changed)
        assert await host.bystander.identity("web") == identity
        assert (await host.apply_one(changed)).actions == planned.actions
        assert (await host.plan_one(changed)).actions == ()

    async def test_it_must_stay_up_for_a_while_first(self, host: ContainersUnderTest) -> None:
        desired = self.container(host, settle_s=2.0)
        await host.apply_one(self.container(host, name="other"))  # the image is there now
        change = await host.look(desired)
        assert change.actions == ("created", "started")
        assert isinstance(change.pending, NotReady)
        assert change.pending.reason == "NotReady"
        assert 0 < change.pending.look_again_s <= 2.0
        assert (await host.apply_one(desired)).actions == ()

    @pytest.mark.parametrize(
        ("fields", "named"),
        [
            ({"environment": {"MODE": "quiet"}}, "environment"),
            ({"command": ("sleep", "2000")}, "command"),
            ({"ports": (PublishedPort(host=PORT, container=80),)}, "ports"),
            ({"read_only": True}, "read_only"),
            ({"restart": "no", "user": "1000"}, "restart, user"),
        ],
        ids=["environment", "command", "ports", "read_only", "restart and user"],
    )
    async def test_one_whose_specification_has_changed_is_made_anew(
        self, host: ContainersUnderTest, fields: dict[str, Any], named: str
    ) -> None:
        await host.apply_one(self.container(host))
        before = await host.bystander.identity("web")
        change = await host.apply_one(self.container(host, **fields))
        assert change.actions == (f"recreated: {named} changed", "started")
        after = await host.bystander.identity("web")
        assert before is not None
        assert after is not None
        assert before[0] != after[0]

    async def test_what_runs_once_is_in_order_while_it_runs_and_when_it_has_ended_well(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, command=MIGRATE, runs="once", restart="no")
        assert isinstance((await host.plan_one(desired)).after, Completed)
        change = await host.apply_one(desired)
        assert change.actions == ("pulled", "created", "started")
        await host.until(Completed)
        identity = await host.bystander.identity("web")
        again = attrs.evolve(host, containers=host.reopen())
        for _ in range(2):
            change = await again.look(desired)
            assert (change.actions, change.pending) == ((), None)
            assert isinstance(change.after, Completed)
        assert (await host.plan_one(desired)).actions == ()
        assert await host.bystander.identity("web") == identity
        other = desired.model_copy(update={"environment": {"TO": "2"}})
        assert (await host.apply_one(other)).actions == (
            "recreated: environment changed",
            "started",
        )

    async def test_what_its_image_says_in_labels_of_ours_is_not_believed(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, image=host.images.with_volume, command=MIGRATE, restart="no")
        await host.apply_one(desired)
        assert (await host.look(desired)).actions == ()
        await host.until(Exited)  # and not Completed

    async def test_what_runs_once_and_fails_is_told_before_it_is_tried_again(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, command=FAIL_LATE, runs="once", restart="no")
        await host.apply_one(desired)
        await host.until(Exited)
        error = await host.expect_failure(desired)
        assert isinstance(error, ContainerFailed)
        assert "code 4" in error.message
        assert "half" in error.message
        assert (await host.look(desired)).actions == ("started",)

    async def test_what_runs_once_and_was_stopped_by_somebody_is_started_again(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, command=POLITE, runs="once", restart="no")
        await host.apply_one(desired)
        await host.bystander.stop("web")
        assert (await host.apply_one(desired)).actions == ("started",)

    async def test_what_it_is_only_judged_by_does_not_touch_it(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        other = self.container(host, settle_s=0.1, pull_timeout_s=10)
        assert (await host.apply_one(other)).actions == ()
        assert await host.bystander.identity("web") == identity

    async def test_another_tag_of_the_same_digest_does_not_touch_it(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        name, _, digest = host.images.first.partition("@")
        repository = name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
        retagged = self.container(host, image=f"{repository}:retagged@{digest}")
        assert (await host.apply_one(retagged)).actions == ()
        assert await host.bystander.identity("web") == identity

    async def test_a_used_file_that_changes_makes_it_anew(self, host: ContainersUnderTest) -> None:
        path = "/srv/harmony-contract/web.conf"
        desired = self.container(host, uses=(path,))
        host.bystander.write(path, b"one")
        await host.apply_one(desired)
        assert (await host.apply_one(desired)).actions == ()
        host.bystander.write(path, b"two")
        assert (await host.apply_one(desired)).actions == (f"recreated: {path} changed", "started")

    async def test_a_mounted_file_that_changes_makes_it_anew(
        self, host: ContainersUnderTest
    ) -> None:
        path = "/srv/harmony-contract/web.conf"
        desired = self.container(host, mounts=(Mount(source=path, target="/etc/web.conf"),))
        host.bystander.write(path, b"one")
        await host.apply_one(desired)
        assert (await host.apply_one(desired)).actions == ()
        host.bystander.write(path, b"two")
        planned = await host.plan_one(desired)
        assert planned.actions == (f"recreated: {path} changed", "started")
        assert (await host.apply_one(desired)).actions == planned.actions
        assert (await host.apply_one(desired)).actions == ()

    @pytest.mark.parametrize(
        ("fields", "written"),
        [
            ({"source": "/srv/harmony-contract/web.conf", "live": True}, "web.conf"),
            ({"source": "/srv/harmony-contract/web.conf", "read_only": False}, "web.conf"),
            ({"source": "/srv/harmony-contract"}, "web.conf"),
        ],
        ids=["a live file", "a file that it may write", "a directory"],
    )
    async def test_a_mount_that_is_to_change_does_not_touch_it_when_it_does(
        self, host: ContainersUnderTest, fields: dict[str, Any], written: str
    ) -> None:
        mount = Mount.model_validate({"target": "/data", **fields})
        host.bystander.write(f"/srv/harmony-contract/{written}", b"one")
        desired = self.container(host, mounts=(mount,))
        await host.apply_one(desired)
        host.bystander.write(f"/srv/harmony-contract/{written}", b"two")
        assert (await host.apply_one(desired)).actions == ()

    async def test_one_that_a_bystander_killed_is_started(self, host: ContainersUnderTest) -> None:
        desired = self.container(host, restart="no")
        await host.apply_one(desired)
        before = await host.bystander.identity("web")
        await host.bystander.kill("web")
        assert isinstance(await host.containers.observe("web"), Exited)
        assert (await host.apply_one(desired)).actions == ("started",)
        after = await host.bystander.identity("web")
        assert before is not None
        assert after is not None
        assert (before[0], before[1] != after[1]) == (after[0], True)

    async def test_one_that_the_runtime_restarted_is_left_to_settle(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, restart="always")
        await host.apply_one(desired)
        await host.bystander.kill("web")
        change = await host.apply_one(desired)
        assert isinstance(change.after, Running)

    async def test_one_that_a_bystander_removed_is_made_again(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host)
        await host.apply_one(desired)
        await host.bystander.delete("web")
        assert (await host.apply_one(desired)).actions == ("created", "started")

    async def test_one_that_a_bystander_renamed_gets_its_name_back_and_runs_on(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host)
        await host.apply_one(desired)
        identity = await host.bystander.identity("web")
        await host.bystander.rename("web", "web-old")
        planned = await host.plan_one(desired)
        assert planned.actions == ("renamed: it was called web-old",)
        assert await host.bystander.identity("web") is None
        assert (await host.apply_one(desired)).actions == planned.actions
        assert await host.bystander.identity("web") == identity
        assert await host.bystander.identity("web-old") is None
        assert (await host.apply_one(desired)).actions == ()

    async def test_one_that_a_bystander_renamed_is_removed(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host))
        await host.bystander.rename("web", "web-old")
        assert (await host.remove_one("web")).actions == ("stopped", "removed")
        assert await host.bystander.identity("web-old") is None

    async def test_a_stranger_s_container_is_refused_and_stays(
        self, host: ContainersUnderTest
    ) -> None:
        await host.bystander.make_strange("web")
        identity = await host.bystander.identity("web")
        error = await host.expect_failure(self.container(host))
        assert isinstance(error, NotOurs)
        assert "web" in error.message
        (refused,) = await host.containers.remove(["web"], apply=True)
        assert isinstance(refused, NotOurs)
        assert await host.bystander.identity("web") == identity

    async def test_one_that_ends_at_once_fails_with_its_code_and_last_lines(
        self, host: ContainersUnderTest
    ) -> None:
        error = await host.expect_failure(self.container(host, command=BOOM, restart="no"))
        assert isinstance(error, ContainerFailed)
        assert error.resource == "container:web"
        assert "code 3" in error.message.partition("\n")[0]
        assert set(error.message.split("\n")[1:]) == {"boom", "bang"}

    async def test_one_that_failed_is_started_again_when_it_is_tried_again(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host, command=BOOM, restart="no")
        await host.expect_failure(desired)
        assert (await host.look(desired)).actions == ("started",)
        assert isinstance(await host.expect_failure(desired), ContainerFailed)

    async def test_each_start_after_an_end_is_counted_until_it_is_made_anew(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(host)
        for count in range(3):
            after = (await host.apply_one(desired)).after
            assert isinstance(after, Running)
            assert after.restarts == count
            assert await host.containers.observe("web") == after
            await host.bystander.kill("web")
        anew = (await host.apply_one(self.container(host, environment={"MODE": "quiet"}))).after
        assert isinstance(anew, Running)
        assert anew.restarts == 0

    async def test_one_that_restarts_over_and_over_fails(self, host: ContainersUnderTest) -> None:
        desired = self.container(host, command=BOOM, restart="always", settle_s=2.0)
        for _ in range(2):
            error = await host.expect_failure(desired)
            assert isinstance(error, ContainerFailed)
            assert "boom" in error.message

    async def test_no_more_than_the_last_twenty_lines_are_told(
        self, host: ContainersUnderTest
    ) -> None:
        error = await host.expect_failure(self.container(host, command=CHATTY, restart="no"))
        assert isinstance(error, ContainerFailed)
        assert error.message.split("\n")[1:] == [str(n) for n in range(81, 101)]

    async def test_an_image_that_is_nowhere_is_told_and_what_runs_goes_on(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        error = await host.expect_failure(self.container(host, image=host.images.missing))
        assert isinstance(error, ImageNotFound)
        assert error.resource == "container:web"
        assert await host.bystander.identity("web") == identity

    async def test_a_registry_that_is_down_is_told_and_what_runs_goes_on(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        error = await host.expect_failure(self.container(host, image=host.images.unreachable))
        assert isinstance(error, RegistryUnreachable)
        assert await host.bystander.identity("web") == identity

    async def test_it_is_not_ready_until_it_answers(self, host: ContainersUnderTest) -> None:
        desired = self.container(
            host,
            command=SERVE_LATE,
            ports=(PublishedPort(host=PORT, container=80),),
            ready=HttpProbe(port=PORT, every_s=0.2, timeout_s=1),
        )
        await host.apply_one(self.container(host, name="other"))
        pending: list[NotReady] = []
        while (change := await host.look(desired)).pending is not None:
            pending.append(change.pending)
            await host.bystander.pass_time(change.pending.look_again_s)
        assert len(pending) > 2
        assert {each.reason for each in pending} == {"NotReady"}
        assert isinstance(change.after, Running)
        assert change.after.health == "healthy"
        assert (await host.look(desired)).actions == ()

    async def test_one_that_does_not_answer_in_time_fails_with_its_last_lines(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(
            host,
            command=SERVE_NOTHING,
            ports=(PublishedPort(host=PORT, container=80),),
            ready=HttpProbe(port=PORT, within_s=2, every_s=0.5, timeout_s=1),
        )
        error = await host.expect_failure(desired)
        assert isinstance(error, NotReadyInTime)
        assert error.resource == "container:web"
        assert error.message.endswith("\nthe database is away")
        state = await host.containers.observe("web")
        assert isinstance(state, Running)
        assert state.health == "unhealthy"

    async def test_a_port_that_accepts_connections_is_ready(
        self, host: ContainersUnderTest
    ) -> None:
        desired = self.container(
            host,
            command=SERVE,
            ports=(PublishedPort(host=PORT, container=80),),
            ready=TcpProbe(port=PORT, every_s=0.2, timeout_s=1),
        )
        change = await host.apply_one(desired)
        assert isinstance(change.after, Running)
        assert change.after.health == "healthy"

    async def test_a_mount_without_a_source_is_told_and_what_runs_goes_on(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        source = "/srv/harmony-contract/data"
        desired = self.container(host, mounts=(Mount(source=source, target="/data"),))
        assert isinstance((await host.plan_one(desired)).doubt, ContainerFailed)
        error = await host.expect_failure(desired)
        assert isinstance(error, ContainerFailed)
        assert source in error.message
        assert await host.bystander.identity("web") == identity
        host.bystander.write(f"{source}/there", b"")
        assert (await host.apply_one(desired)).changed

    async def test_what_was_made_is_removed_once_with_its_image(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        change = await host.remove_one("web")
        assert change.actions == ("stopped", "removed")
        assert change.after is None
        assert await host.bystander.identity("web") is None
        assert not await host.bystander.has_image(host.images.first)
        assert (await host.remove_one("web")).actions == ()

    async def test_removing_in_a_dry_run_only_says_so(self, host: ContainersUnderTest) -> None:
        await host.apply_one(self.container(host))
        identity = await host.bystander.identity("web")
        (change,) = await host.containers.remove(["web"], apply=False)
        assert isinstance(change, Change)
        assert change.actions == ("stopped", "removed")
        assert await host.bystander.identity("web") == identity

    async def test_an_image_stays_while_another_container_uses_it(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host))
        await host.apply_one(self.container(host, name="second"))
        await host.remove_one("web")
        assert await host.bystander.has_image(host.images.first)
        await host.remove_one("second")
        assert not await host.bystander.has_image(host.images.first)

    async def test_of_its_images_the_current_and_the_last_good_one_stay(
        self, host: ContainersUnderTest
    ) -> None:
        for image in host.images.available:
            await host.apply_one(self.container(host, image=image))
        kept = [await host.bystander.has_image(image) for image in host.images.available]
        assert kept == [False, True, True]
        await host.remove_one("web")
        assert not any([await host.bystander.has_image(image) for image in host.images.available])

    async def test_one_that_runs_badly_does_not_cost_the_last_good_image(
        self, host: ContainersUnderTest
    ) -> None:
        first, second, third = host.images.available
        await host.apply_one(self.container(host, image=first))
        await host.expect_failure(self.container(host, image=second, command=BOOM, restart="no"))
        await host.apply_one(self.container(host, image=third))
        assert await host.bystander.has_image(first)
        assert not await host.bystander.has_image(second)

    async def test_one_container_s_error_does_not_stop_the_others(
        self, host: ContainersUnderTest
    ) -> None:
        await host.apply_one(self.container(host, name="a"))
        await host.bystander.make_strange("b")
        all_desired = [self.container(host, name=name) for name in ("a", "b", "c")]
        a, b, c = await host.containers.converge(all_desired, apply=True)
        assert isinstance(a, Change)
        assert isinstance(b, NotOurs)
        assert b.resource == "container:b"
        assert isinstance(c, Change)
        assert c.actions == ("created", "started")

    async def test_an_empty_call_is_answered_with_nothing(self, host: ContainersUnderTest) -> None:
        assert list(await host.containers.converge([], apply=True)) == []
        assert list(await host.containers.remove([], apply=True)) == []

    async def test_it_says_that_it_is_available(self, host: ContainersUnderTest) -> None:
        assert (await host.containers.availability()).available
