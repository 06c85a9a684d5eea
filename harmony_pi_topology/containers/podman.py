"""podman, as seen from the event loop: typed questions, typed results, typed errors, bounded time.

Every call runs in one of two threads that are podman's own, so that a podman that hangs costs container
Scores and nothing else. When a call's time is up its socket is shut down, which frees the thread.
Pulls, which may take minutes, have two threads of their own.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from harmony_core.errors import CapabilityError
from harmony_pi_topology.common.worker import Worker

from .podman_errors import (
    SOCKET_REMEDY,
    image_gone,
    is_torn,
    pull_failed,
    silent,
    to_create_error,
    to_in_use,
    to_network_error,
    to_pause_error,
    to_refusal,
    to_start_error,
)
from .podman_reply import (
    FoundContainer,
    FoundNetwork,
    FoundRegistry,
    FoundVolume,
    PullProgress,
    Refusal,
    has_ipv6,
    image_tags,
    image_volumes,
    parse_container,
    parse_created_id,
    parse_created_secret,
    parse_image_directory,
    parse_listed_ids,
    parse_listed_labels,
    parse_network,
    parse_published_ports,
    parse_registries,
    parse_secrets,
    parse_volume,
    parse_volume_sizes,
    parse_volumes,
    refusal,
    torn_container,
    volume_options,
    why_not_removed,
)
from .podman_wire import Answer, Body, Cutoff, PodmanSilent, Question

DEFAULT_URL = "unix:///run/podman/podman.sock"
DEFAULT_NETWORK = "podman"

_DEFAULT_NETWORK_ALONE: Mapping[str, Body] = {DEFAULT_NETWORK: {}}
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")

_NOT_THERE = 404
_NOT_RUNNING = 409
_PING_S = 2.0
_CUT_WITHIN_S = 5.0
_ANY_LENGTH_S = 86_400.0
_LOG_WITHIN_S = 20.0
_COUNTED_WITHIN_S = 30.0
"""Where there are very many files in volumes, their size is not told."""
_LOG_BYTES = 1024 * 1024
PULL_SILENCE_S = 300.0
"""How long a registry may send nothing at all before a pull is given up."""


class Podman:
    """One podman service. Holds no connection between two calls.

    ``answer_within_s`` bounds every call but pulls: none waits for what runs in a container.
    """

    def __init__(self, url: str = DEFAULT_URL, *, answer_within_s: float = 60.0) -> None:
        self._url = url
        self._answer_within_s = answer_within_s
        self._silent = False
        self._calls = Worker("podman", threads=2, timeout_s=answer_within_s)
        self._pulls = Worker("podman-pull", threads=2, timeout_s=_ANY_LENGTH_S)
        self._image_directory = ""

    async def is_expected_to_answer(self) -> str | None:
        """Return why podman is not expected to answer; None where it is. Wake podman only if it did not
        answer the last time.

        Its service starts at a request and takes 50 MiB: with a request at every heartbeat, it would never
        end.
        """
        path = Path(self._url.removeprefix("unix://"))
        try:
            if self._silent:
                await self.ping()
            is_there = await self._calls.run_within(_PING_S, path.exists)
        except CapabilityError as error:
            return error.message
        if not is_there:
            return f"there is no socket {path}; run: {SOCKET_REMEDY}"
        return None

    async def ping(self) -> None:
        """Raise `CapabilityUnavailable` or `TimedOut` unless podman answers within 2 s."""
        what = "answer a ping"
        _accept(await self._ask(Question(method="get", path="/_ping"), what, _PING_S), what)

    async def inspect(self, name: str) -> FoundContainer | None:
        """Return the container of this name; None when there is none.

        If podman has lost a part of it, for instance in a power cut while it was made or removed, its status
        is "removing".
        """
        if not can_be_a_name(name):
            return None  # it must not lead to another path
        what = f"look at container {name}"
        answer = await self._ask(Question(method="get", path=f"/containers/{name}/json"), what)
        if answer.status == 404:
            return None
        if answer.status >= 400 and is_torn(refusal(answer)):
            return await self._torn(name)
        found = parse_container(_accept(answer, what), what)
        # podman also answers to the beginning of an id, which a name may happen to be.
        return found if found.name == name else None

    async def _torn(self, name: str) -> FoundContainer | None:
        """Return a container that cannot be inspected, from podman's list, which still has it; None where it
        is not there."""
        what = "list all containers"
        question = Question(method="get", path="/containers/json", params={"all": True})
        return torn_container(_accept(await self._ask(question, what), what), name, what)

    async def create(self, name: str, specification: Body) -> str:
        """Create a container and return its id. Raise `ImageNotFound` when the image has gone,
        `ContainerFailed` when podman refuses."""
        what = f"create container {name}"
        question = Question(method="post", path="/containers/create", body=specification)
        answer = await self._ask(question, what)
        if answer.status >= 400:
            raise to_create_error(refusal(answer), name)
        return parse_created_id(answer, what)

    async def start(self, container_id: str, name: str, *, paused: bool = False) -> None:
        """Start a container. Leave one that runs already alone. Raise `PortTaken` or `ContainerFailed`."""
        verb = "unpause" if paused else "start"
        question = Question(method="post", path=f"/containers/{container_id}/{verb}")
        answer = await self._ask(question, f"start container {name}")
        if answer.status >= 400:
            raise to_start_error(refusal(answer), name)

    async def pause(self, container_id: str, name: str) -> None:
        """Freeze all processes of a container, until it is started with *paused*. Raise `ContainerFailed`
        where this podman cannot do that."""
        question = Question(method="post", path=f"/containers/{container_id}/pause")
        answer = await self._ask(question, f"pause container {name}")
        if answer.status >= 400:
            raise to_pause_error(refusal(answer), name)

    async def ask_to_end(self, container_id: str, *, signal: str) -> None:
        """Send *signal* to a container, and do not wait. Leave one that does not run, or is gone, alone.

        podman does not restart by itself a container that got a signal through podman.
        """
        question = Question(
            method="post", path=f"/containers/{container_id}/kill", params={"signal": signal}
        )
        await self._do(question, "ask a container to end", fine=_NOT_RUNNING)

    async def kill(self, container_id: str) -> None:
        """Kill a container now. Leave one that does not run, or is gone, alone."""
        question = Question(
            method="post", path=f"/containers/{container_id}/stop", params={"timeout": 0}
        )
        await self._do(question, "stop a container")

    async def rename(self, container_id: str, name: str) -> None:
        """Rename a container to *name*, whether it runs or not."""
        question = Question(
            method="post", path=f"/containers/{container_id}/rename", params={"name": name}
        )
        what = f"give container {name} its name"
        _accept(await self._ask(question, what), what)

    async def remove(self, container_id: str) -> None:
        """Remove a container, whether it runs or not, but none of its volumes: data outlives what made it.

        Kill it if it runs. Do nothing if it is gone.
        """
        question = Question(
            method="delete",
            path=f"/containers/{container_id}",
            params={"force": True, "timeout": 0},
        )
        await self._do(question, "remove a container")

    async def list_by_label(self, label: str, value: str) -> Mapping[str, str]:
        """Return the ids of all containers, running or not, whose label *label* is *value*, by their
        names."""
        what = "list containers"
        question = Question(
            method="get",
            path="/containers/json",
            params={"all": True, "filters": json.dumps({"label": [f"{label}={value}"]})},
        )
        return parse_listed_ids(_accept(await self._ask(question, what), what), what)

    async def list_published_ports(self, label: str) -> Mapping[tuple[int, str], str]:
        """Return the published ports, with their protocols, of running containers that have *label*, with the
        name of each container."""
        what = "list the ports of containers"
        question = Question(
            method="get",
            path="/containers/json",
            params={"all": True, "filters": json.dumps({"label": [label]})},
        )
        return parse_published_ports(_accept(await self._ask(question, what), what), what)

    async def log_tail(self, container_id: str, *, lines: int) -> bytes:
        """Return the newest *lines* of a container's standard output and error; empty when it, or its log,
        has gone."""
        question = Question(
            method="get",
            path=f"/containers/{container_id}/logs",
            params={"stdout": True, "stderr": True, "tail": lines},
            framed=True,
        )
        answer = await self._ask(question, "read a container's log")
        return answer.body if answer.status < 400 else b""

    async def logs(
        self, container_id: str, *, since: datetime | None = None, tail: int | None = None
    ) -> bytes:
        """Return at most the first MiB of what a container wrote, with timestamps and in podman's frames,
        from the second of *since* on, and of that only the newest *tail* lines; empty when it, or its log,
        has gone."""
        params: dict[str, str | int | bool] = {"stdout": True, "stderr": True, "timestamps": True}
        if since is not None:
            params["since"] = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if tail is not None:
            params["tail"] = tail
        question = Question(
            method="get",
            path=f"/containers/{container_id}/logs",
            params=params,
            most_bytes=_LOG_BYTES,
        )
        answer = await self._ask(question, "read a container's log", _LOG_WITHIN_S)
        return answer.body if answer.status < 400 else b""

    async def has_image(self, image: str) -> bool:
        what = f"look for image {image}"
        question = Question(method="get", path=f"/images/{quote(image, safe='')}/exists")
        answer = await self._ask(question, what)
        return answer.status != 404 and bool(_accept(answer, what))

    async def image_volumes(self, image: str) -> list[str]:
        """Return the paths that *image* declares as volumes. Raise `ImageNotFound` when it is not here."""
        what = f"look at image {image}"
        question = Question(method="get", path=f"/images/{quote(image, safe='')}/json")
        answer = await self._ask(question, what)
        if answer.status == _NOT_THERE:
            raise image_gone(refusal(answer))
        return image_volumes(_accept(answer, what), what)

    async def image_tags(self, image: str) -> list[str]:
        """Return the names with a tag that *image* has; none where the image is not here."""
        what = f"look at image {image}"
        question = Question(method="get", path=f"/images/{quote(image, safe='')}/json")
        answer = await self._ask(question, what)
        return [] if answer.status == _NOT_THERE else image_tags(_accept(answer, what), what)

    async def network_has_ipv6(self, network: str = DEFAULT_NETWORK) -> bool:
        """Return whether *network* has IPv6: by default, the network of containers that name none."""
        what = f"look at network {network}"
        question = Question(method="get", path=f"/networks/{network}/json")
        answer = await self._ask(question, what)
        return answer.status != _NOT_THERE and has_ipv6(_accept(answer, what), what)

    async def reconnect(
        self, container_id: str, networks: Mapping[str, Body] = _DEFAULT_NETWORK_ALONE
    ) -> None:
        """Disconnect a container from *networks* and connect it again, with the given settings for each (see
        `connect`). This publishes its ports again while it runs.

        If this is interrupted in between, the container is left disconnected. podman's own `network reload`
        is not available over its socket.
        """
        for network in networks:
            await self.disconnect(container_id, network)
        for network, how in networks.items():
            body: Body = {"container": container_id, **how}
            question = Question(method="post", path=f"/networks/{network}/connect", body=body)
            what = "connect a container, to have its ports published anew"
            _accept(await self._ask(question, what), what)

    async def disconnect(self, container_id: str, network: str) -> None:
        """Disconnect a container from *network*, whether it runs or not."""
        body: Body = {"Container": container_id, "Force": True}
        question = Question(method="post", path=f"/networks/{network}/disconnect", body=body)
        what = f"take a container off network {network}"
        _accept(await self._ask(question, what), what)

    async def inspect_network(self, name: str) -> FoundNetwork | None:
        """Return the network of this name; None when there is none."""
        what = f"look at network {name}"
        answer = await self._ask(Question(method="get", path=f"/networks/{name}/json"), what)
        if answer.status == _NOT_THERE:
            return None
        found = parse_network(_accept(answer, what), what)
        # podman also answers to the beginning of an id.
        return found if found.name == name else None

    async def create_network(self, specification: Body, *, called: str = "") -> None:
        """Create a network, whose name is in *specification*. Raise `ContainerFailed` where podman refuses;
        the error calls the network *called*, if given."""
        what = f"make network {called or specification['name']}"
        question = Question(method="post", path="/networks/create", body=specification)
        answer = await self._ask(question, what)
        if answer.status >= 400:
            raise to_network_error(refusal(answer), what)

    async def remove_network(self, name: str) -> None:
        """Remove the network *name*. Do nothing if it is gone. Raise `InUse` where a container is on it."""
        what = f"remove network {name}"
        answer = await self._ask(Question(method="delete", path=f"/networks/{name}"), what)
        if answer.status == _NOT_THERE:
            return
        if answer.status >= 400:
            raise to_in_use(refusal(answer), what)
        if (why := why_not_removed(answer, what)) is not None:
            raise to_in_use(Refusal(status=answer.status, message=why), what)

    async def list_registries(self) -> Mapping[str, FoundRegistry]:
        """Return how podman uses registries, as its service has read the files, by the name of the registry,
        or of a part of it."""
        what = "tell how it uses registries"
        answer = await self._ask(Question(method="get", path="/info"), what)
        return parse_registries(_accept(answer, what), what)

    async def image_directory(self) -> str:
        """Return the directory whose disk holds images and containers."""
        if not self._image_directory:
            what = "tell where it keeps images"
            answer = await self._ask(Question(method="get", path="/info"), what)
            self._image_directory = parse_image_directory(_accept(answer, what), what)
        return self._image_directory

    async def list_users(
        self, kind: Literal["volume", "network"], name: str
    ) -> Mapping[str, Mapping[str, str]]:
        """Return the labels of all containers, running or not, that use the volume or network *name*, by the
        containers' names."""
        what = f"list who uses {kind} {name}"
        question = Question(
            method="get",
            path="/containers/json",
            params={"all": True, "filters": json.dumps({kind: [name]})},
        )
        return parse_listed_labels(_accept(await self._ask(question, what), what), what)

    async def list_volumes(self) -> list[FoundVolume]:
        """Return all volumes, whoever made them."""
        what = "list volumes"
        answer = await self._ask(Question(method="get", path="/volumes/json"), what)
        return parse_volumes(_accept(answer, what), what)

    async def volume_sizes(self) -> Mapping[str, int]:
        """Return how many bytes are in each volume. podman counts them file by file."""
        what = "count what is in volumes"
        answer = await self._ask(Question(method="get", path="/system/df"), what, _COUNTED_WITHIN_S)
        return parse_volume_sizes(_accept(answer, what), what)

    async def inspect_volume(self, name: str) -> FoundVolume | None:
        """Return the volume of this name; None when there is none."""
        what = f"look at volume {name}"
        answer = await self._ask(Question(method="get", path=f"/volumes/{name}/json"), what)
        if answer.status == _NOT_THERE:
            return None
        found = parse_volume(_accept(answer, what), what)
        return found if found.name == name else None

    async def volume_options(self, name: str) -> Mapping[str, str] | None:
        """Return the options with which the volume *name* was made; None when there is none."""
        what = f"look at volume {name}"
        answer = await self._ask(Question(method="get", path=f"/volumes/{name}/json"), what)
        return None if answer.status == _NOT_THERE else volume_options(_accept(answer, what), what)

    async def create_volume(
        self, name: str, options: Mapping[str, str], labels: Mapping[str, str] | None = None
    ) -> None:
        """Create the volume *name*, which must not exist yet."""
        what = f"make volume {name}"
        body: Body = {
            "Name": name,
            "Driver": "local",
            "Options": dict(options),
            "Labels": dict(labels or {}),
        }
        question = Question(method="post", path="/volumes/create", body=body)
        _accept(await self._ask(question, what), what)

    async def remove_volume(self, name: str) -> None:
        """Remove the volume *name* and its content. Do nothing if it is gone. Raise `InUse` where a container
        uses it."""
        what = f"remove volume {name}"
        answer = await self._ask(Question(method="delete", path=f"/volumes/{name}"), what)
        if answer.status >= 400 and answer.status != _NOT_THERE:
            raise to_in_use(refusal(answer), what)

    async def list_secrets(self) -> dict[str, str]:
        """Return the ids of all secrets that podman keeps, whoever made them, by name."""
        what = "list secrets"
        answer = await self._ask(Question(method="get", path="/secrets/json"), what)
        return parse_secrets(_accept(answer, what), what)

    async def create_secret(self, name: str, content: bytes, labels: Mapping[str, str]) -> str:
        """Store *content* in podman as the secret *name*, which must not exist yet. Return its id."""
        what = f"keep secret {name}"
        question = Question(
            method="post",
            path="/secrets/create",
            params={"name": name, "labels": json.dumps(dict(labels))},
            content=content,
        )
        answer = await self._ask(question, what)
        return parse_created_secret(_accept(answer, what), what)

    async def remove_secret(self, name: str) -> None:
        """Remove the secret *name*. Do nothing if it is gone."""
        await self._do(Question(method="delete", path=f"/secrets/{name}"), f"remove secret {name}")

    async def remove_image(self, image: str) -> bool:
        """Remove *image*. Return whether it is gone now; False when something still uses it."""
        question = Question(method="delete", path=f"/images/{quote(image, safe='')}")
        answer = await self._ask(question, f"remove image {image}")
        if answer.status == 409:
            return False
        return answer.status == 404 or bool(_accept(answer, f"remove image {image}"))

    def close(self) -> None:
        """Accept no more questions."""
        self._calls.close()
        self._pulls.close()

    async def tag(self, image: str, repository: str, tag: str) -> None:
        """Give *image*, which is here, the further name ``repository:tag``."""
        await self._name(image, "tag", repository, tag)

    async def untag(self, image: str, repository: str, tag: str) -> None:
        """Remove the name ``repository:tag`` from *image*."""
        await self._name(image, "untag", repository, tag)

    async def _name(
        self, image: str, verb: Literal["tag", "untag"], repository: str, tag: str
    ) -> None:
        what = f"{verb} image {image}"
        question = Question(
            method="post",
            path=f"/images/{quote(image, safe='')}/{verb}",
            params={"repo": repository, "tag": tag},
        )
        _accept(await self._ask(question, what), what)

    async def pull(
        self,
        image: str,
        progress: PullProgress,
        login: tuple[str, str] | None = None,
        *,
        source: str | None = None,
        silent_for_s: float | None = PULL_SILENCE_S,
    ) -> None:
        """Pull *image*, and report to *progress*. Cancelling this makes podman give up at once.

        Pull from *source*, where that is given: a registry of this machine, without TLS. Give up where podman
        sends nothing for *silent_for_s* seconds; with None, never.

        *login* is a user name and password for the image's registry, which podman does not store. Without it,
        podman looks into root's own file.

        Raise `ImageNotFound`, `RegistryUnreachable`, `WriteFailed` when the disk is full, or the error for a
        podman that does not answer. There is no deadline.
        """
        question = Question(
            method="post",
            path="/images/pull",
            params={"reference": image, "policy": "missing", "compatMode": True}
            if source is None
            else {"reference": source, "compatMode": True, "tlsVerify": False},
            headers={} if login is None else {"X-Registry-Auth": _describe_login(*login)},
        )
        cutoff = Cutoff()
        try:
            end = await self._pulls.run_within(
                _ANY_LENGTH_S, _pull_in_thread, self._url, cutoff, question, progress, silent_for_s
            )
        finally:
            cutoff.cut()
        match end:
            case Refusal():
                raise pull_failed(
                    end, image, has_login=login is not None, is_nearby=source is not None
                )
            case PodmanSilent():
                raise silent(end, f"pull {image}", timed_out=False)
            case None:
                return

    async def _do(self, question: Question, what: str, *, fine: int = _NOT_THERE) -> None:
        """Send a command. Accept the answers "not modified", "no such container" and *fine*: what was asked
        for is already so. Raise an error for any other refusal."""
        answer = await self._ask(question, what)
        if answer.status not in {_NOT_THERE, fine}:
            _accept(answer, what)

    async def _ask(self, question: Question, what: str, within_s: float | None = None) -> Answer:
        cutoff = Cutoff()
        timeout_s = within_s or self._answer_within_s
        # The call ends because its socket does, so that no thread is left to a podman that hangs.
        timer = asyncio.get_running_loop().call_later(timeout_s, cutoff.cut)
        try:
            answer = await self._calls.run_within(
                timeout_s + _CUT_WITHIN_S, _ask_in_thread, self._url, cutoff, question, timeout_s
            )
            timed_out = cutoff.is_cut
        finally:
            timer.cancel()
            cutoff.cut()
        self._silent = isinstance(answer, PodmanSilent)
        if isinstance(answer, PodmanSilent):
            raise silent(answer, what, timed_out=timed_out)
        return answer


def _describe_login(username: str, password: str) -> str:
    text = json.dumps({"username": username, "password": password})
    return base64.urlsafe_b64encode(text.encode()).decode()


def can_be_a_name(name: str) -> bool:
    """Return whether *name* is allowed as the name of a container."""
    return _CONTAINER_NAME.fullmatch(name) is not None


def _accept(answer: Answer, what: str) -> Answer:
    if answer.status >= 400:
        raise to_refusal(refusal(answer), what)
    return answer


def _ask_in_thread(
    url: str, cutoff: Cutoff, question: Question, read_timeout_s: float
) -> Answer | PodmanSilent:
    """Send the question, and return the answer, or the failure rather than raise it: the caller may have gone
    by then."""
    from . import podman_client  # noqa: PLC0415 - podman-py is dear: at the first question, in its thread

    try:
        return podman_client.ask(url, cutoff, question, read_timeout_s)
    except PodmanSilent as silence:
        return silence


def _pull_in_thread(
    url: str, cutoff: Cutoff, question: Question, progress: PullProgress, silent_for_s: float | None
) -> Refusal | PodmanSilent | None:
    """Pull, and return the failure rather than raise it, as `_ask_in_thread` does; None where it went
    well."""
    from . import podman_client  # noqa: PLC0415 - as above

    failure = None
    try:
        for line in podman_client.lines(url, cutoff, question, silent_for_s):
            failure = progress.hear(line) or failure
    except PodmanSilent as silence:
        return silence
    return failure
