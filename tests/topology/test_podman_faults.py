"""A podman that hangs, stops half-way or talks nonsense: a typed error in bounded time, and no more."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Generator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    ImageNotFound,
    RegistryUnreachable,
    TimedOut,
    TransientError,
    WriteFailed,
)
from harmony_core.resources import Container
from harmony_pi_topology.containers.podman import Podman
from harmony_pi_topology.containers.podman_reply import PullProgress
from harmony_pi_topology.containers.podman_wire import Question
from harmony_pi_topology.containers.reconciler import PodmanContainers
from harmony_pi_topology.containers.spec import RESOURCE_LABEL
from tests.topology.podman_stand_in import (
    Behaviour,
    answering,
    chunked,
    drip,
    hang,
    hang_up,
    reply,
    standing_in,
)

IMAGE = "registry.test/web:1"
WEB = Container(name="web", image=IMAGE)
SOON_S = 0.3


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop() -> Generator[BlockBuster]:
    with blockbuster_ctx() as blockbuster:
        yield blockbuster


SILENT = {"hangs": hang, "drips": drip}
BROKEN = {
    "hangs up": hang_up,
    "hangs up at once": answering(b""),
    "half a head": answering(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "half a body": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
    "not HTTP": answering(b"\x00\xffSSH-2.0\r\n\r\n"),
    "500": answering(reply("500 Oops", b'{"message": "database is locked"}')),
    "500 without a reason": answering(reply("500 Oops", b"<html>\xff")),
    "no JSON": answering(reply("200 OK", b"<html>")),
    "half JSON": answering(reply("200 OK", b'{"Id": "1"')),
    "other JSON": answering(reply("200 OK", b'{"Id": 7, "State": []}')),
    "JSON of another form": answering(reply("200 OK", b"[1, 2]")),
    "bytes": answering(reply("200 OK", b"\xff\xfe\x00")),
}


@pytest.mark.parametrize("behaviour", SILENT.values(), ids=SILENT)
async def test_a_silent_podman_is_timed_out(tmp_path: Path, behaviour: Behaviour) -> None:
    async with standing_in(tmp_path, behaviour) as url:
        containers = PodmanContainers(url, answer_within_s=SOON_S)
        with pytest.raises(TimedOut, match="systemctl restart podman"):
            await containers.observe("web")
        for apply in (True, False):
            (error,) = await containers.converge([WEB], apply=apply)
            assert isinstance(error, TimedOut)
            assert error.resource == "container:web"
        (error,) = await containers.remove(["web"], apply=True)
        assert isinstance(error, TimedOut)


@pytest.mark.parametrize("behaviour", BROKEN.values(), ids=BROKEN)
async def test_a_broken_podman_is_unavailable(tmp_path: Path, behaviour: Behaviour) -> None:
    async with standing_in(tmp_path, behaviour) as url:
        containers = PodmanContainers(url, answer_within_s=5)
        with pytest.raises(CapabilityUnavailable):
            await containers.observe("web")
        (error,) = await containers.converge([WEB], apply=True)
        assert isinstance(error, CapabilityUnavailable)
        (error,) = await containers.remove(["web"], apply=True)
        assert isinstance(error, CapabilityUnavailable)


async def test_what_podman_gave_as_its_reason_is_told(tmp_path: Path) -> None:
    async with standing_in(tmp_path, BROKEN["500"]) as url:
        with pytest.raises(CapabilityUnavailable, match="look at container web: database is lock"):
            await Podman(url).inspect("web")


@pytest.mark.parametrize(
    "name", ["", "..", "../images/x", "a/b", "a?force=true", "a b", "\n", "%2e"]
)
async def test_what_cannot_be_a_name_is_not_asked_for(tmp_path: Path, name: str) -> None:
    containers = PodmanContainers(f"unix://{tmp_path}/absent.sock")
    assert await containers.observe(name) is None
    (change,) = await containers.remove([name], apply=True)
    assert isinstance(change, Change)
    assert change.actions == ()


async def test_a_podman_that_is_not_there_is_unavailable_with_a_remedy(tmp_path: Path) -> None:
    containers = PodmanContainers(f"unix://{tmp_path}/absent.sock")
    availability = await containers.availability()
    assert not availability.available
    assert "there is no socket" in availability.reason
    assert "systemctl restart podman.socket" in availability.reason


@pytest.mark.parametrize("behaviour", [hang, drip, hang_up], ids=["hangs", "drips", "hangs up"])
async def test_availability_never_raises(tmp_path: Path, behaviour: Behaviour) -> None:
    async with standing_in(tmp_path, behaviour) as url:
        containers = PodmanContainers(url, answer_within_s=0.5)
        # Not asked before it is needed: its service would be started by the question.
        assert (await containers.availability()).available
        with pytest.raises(CapabilityError):
            await containers.observe("web")
        assert not (await containers.availability()).available


async def test_a_podman_that_hangs_leaves_no_thread_behind(tmp_path: Path) -> None:
    """Each hanging question would keep one for ever, and there are two."""
    before = threading.active_count()
    async with standing_in(tmp_path, drip) as url:
        podman = Podman(url, answer_within_s=SOON_S)
        for _ in range(3):
            asked = [podman.inspect(name) for name in ("a", "b")]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(answer) for answer in answers] == [TimedOut, TimedOut]
        assert threading.active_count() <= before + 2


async def test_two_hanging_calls_make_a_third_wait_no_longer_than_its_own_deadline(
    tmp_path: Path,
) -> None:
    async with standing_in(tmp_path, hang) as url:
        podman = Podman(url, answer_within_s=SOON_S)
        answers = await asyncio.gather(
            *(podman.inspect(name) for name in "abcdefgh"), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {TimedOut}


async def test_a_cancelled_call_hangs_up(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def until_hung_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)
        hung_up.set()

    async with standing_in(tmp_path, until_hung_up) as url:
        asking = asyncio.create_task(Podman(url).inspect("web"))
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await hung_up.wait()


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


LAYER = line(status="Pulling fs layer", progressDetail={}, id="a")
HALF_WAY = line(status="Downloading", progressDetail={"current": 5, "total": 10}, id="a")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply("404 Not Found", b'{"message": "manifest unknown"}'), ImageNotFound),
        (reply("500 Oops", b'{"message": "connection refused"}'), RegistryUnreachable),
        (reply("500 Oops", b'{"message": "denied: not authorized"}'), RegistryUnreachable),
        (reply("500 Oops", b'{"message": "unauthorized: authentication required"}'), ImageNotFound),
        (chunked(LAYER, line(error="unexpected EOF")), RegistryUnreachable),
        (chunked(LAYER, line(error="write /x: no space left on device")), WriteFailed),
        (chunked(LAYER, b"garbage\n"), RegistryUnreachable),
        (chunked(LAYER, HALF_WAY, whole=False), CapabilityUnavailable),
        (b"", CapabilityUnavailable),
    ],
)
async def test_a_pull_that_goes_wrong(
    tmp_path: Path, answer: bytes, error: type[TransientError]
) -> None:
    async with standing_in(tmp_path, answering(answer)) as url:
        with pytest.raises(error, match=";"):
            await Podman(url).pull(IMAGE, PullProgress())


@pytest.mark.parametrize(
    ("said", "login", "told"),
    [
        ("toomanyrequests: You have reached your pull rate limit", None, "give login .*tried again"),
        ("received unexpected HTTP status: 429 Too Many Requests", ("a", "b"), "wait: it is tried again"),
        ("unauthorized: authentication required", None, "give login"),
        ("invalid username/password: unauthorized", ("a", "b"), "does not take this login .*anew"),
        ("denied: requested access to the resource is denied", ("a", "b"), "let that user pull it"),
    ],
)  # fmt: skip
async def test_a_registry_that_wants_to_know_who_asks(
    tmp_path: Path, said: str, login: tuple[str, str] | None, told: str
) -> None:
    answer = reply("500 Oops", json.dumps({"message": said}).encode())
    async with standing_in(tmp_path, answering(answer)) as url:
        with pytest.raises((ImageNotFound, RegistryUnreachable), match=told):
            await Podman(url).pull(IMAGE, PullProgress(), login)


async def test_a_login_is_sent_with_the_pull_and_shown_nowhere(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply("200 OK", b"{}\n"))
        await writer.drain()

    async with standing_in(tmp_path, hear) as url:
        await Podman(url).pull(IMAGE, PullProgress(), ("ada", "pä?ss>word"))
    (sent,) = (
        each.partition(b": ")[2]
        for each in heard[0].splitlines()
        if each.lower().startswith(b"x-registry-auth")
    )
    told = json.loads(base64.urlsafe_b64decode(sent))
    assert told == {"username": "ada", "password": "pä?ss>word"}
    question = Question(method="post", path="/", headers={"X": "hunter2"}, content=b"hunter2")
    assert "hunter2" not in repr(question)


async def test_bytes_of_all_layers_are_added_up(tmp_path: Path) -> None:
    more = [
        line(status="Pulling fs layer", progressDetail={}, id="b"),
        line(status="Already exists", progressDetail={}, id="c"),
        line(status="Downloading", progressDetail={"current": 1, "total": 100}, id="b"),
        line(status="Download complete", progressDetail={}, id="a"),
    ]
    progress = PullProgress()
    async with standing_in(tmp_path, answering(chunked(LAYER, HALF_WAY, *more))) as url:
        await Podman(url).pull(IMAGE, progress)
    assert (progress.so_far().done, progress.so_far().total) == (11, 110)


async def test_a_total_is_not_told_before_every_layer_s_size_is_known(tmp_path: Path) -> None:
    progress = PullProgress()
    another = line(status="Pulling fs layer", progressDetail={}, id="b")
    async with standing_in(tmp_path, answering(chunked(LAYER, HALF_WAY, another))) as url:
        await Podman(url).pull(IMAGE, progress)
    assert (progress.so_far().done, progress.so_far().total) == (5, None)


class PullService:
    """Knows no container and no image; a pull begins, and then waits until it is hung up on."""

    def __init__(self) -> None:
        self.begun = 0
        self.hung_up = asyncio.Event()
        self.answer: bytes | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/containers/json" in head:
            writer.write(reply("200 OK", b"[]"))
        elif b"/images/pull" not in head:
            writer.write(reply("404 Not Found", b'{"message": "no such thing"}'))
        elif self.answer is not None:
            writer.write(self.answer)
        else:
            self.begun += 1
            writer.write(chunked(LAYER, HALF_WAY, whole=False))
            await reader.read(-1)
            self.hung_up.set()


async def test_a_pull_s_progress_is_told_while_it_goes_on(tmp_path: Path) -> None:
    service = PullService()
    async with standing_in(tmp_path, service) as url:
        containers = PodmanContainers(url)
        (change,) = await containers.converge([WEB], apply=True)
        assert isinstance(change, Change)
        assert change.actions == ()
        assert change.pending is not None
        assert change.pending.reason == "Progressing"
        assert change.pending.look_again_s == 0.5
        assert change.pending.progress is not None
        assert (change.pending.progress.done, change.pending.progress.total) == (5, 10)
        await containers.close()
        await service.hung_up.wait()


async def test_two_containers_share_the_pull_of_one_image(tmp_path: Path) -> None:
    service = PullService()
    second = WEB.model_copy(update={"name": "second"})
    async with standing_in(tmp_path, service) as url:
        containers = PodmanContainers(url)
        await containers.converge([WEB, second], apply=True)
        await containers.remove(["web"], apply=True)
        await containers.converge([second], apply=True)
        assert (service.begun, service.hung_up.is_set()) == (1, False)
        await containers.remove(["second"], apply=True)
        await service.hung_up.wait()


async def test_a_pull_is_given_up_when_its_container_wants_another_image(tmp_path: Path) -> None:
    service = PullService()
    async with standing_in(tmp_path, service) as url:
        containers = PodmanContainers(url)
        await containers.converge([WEB], apply=True)
        other = WEB.model_copy(update={"image": "registry.test/web:2"})
        await containers.converge([other], apply=True)
        await service.hung_up.wait()
        assert service.begun == 2
        await containers.close()


async def test_a_pull_that_takes_too_long_is_timed_out_and_tried_anew(tmp_path: Path) -> None:
    service = PullService()
    hasty = WEB.model_copy(update={"pull_timeout_s": 0.2})
    async with standing_in(tmp_path, service) as url:
        containers = PodmanContainers(url)
        (error,) = await containers.converge([hasty], apply=True)
        assert isinstance(error, TimedOut)
        assert "pull_timeout_s" in error.message
        await service.hung_up.wait()
        (error,) = await containers.converge([hasty], apply=True)
        assert isinstance(error, TimedOut)
        assert service.begun == 2


async def test_a_failed_pull_is_told_to_each_who_asked_and_then_tried_anew(
    tmp_path: Path,
) -> None:
    service = PullService()
    service.answer = reply("404 Not Found", b'{"message": "manifest unknown"}')
    second = WEB.model_copy(update={"name": "second"})
    async with standing_in(tmp_path, service) as url:
        containers = PodmanContainers(url)
        errors = await containers.converge([WEB, second], apply=True)
        assert [type(error) for error in errors] == [ImageNotFound, ImageNotFound]
        assert [getattr(error, "resource", "") for error in errors] == [WEB.id, second.id]
        service.answer = None
        (change,) = await containers.converge([WEB], apply=True)
        assert isinstance(change, Change)
        assert service.begun == 1
        await containers.close()


async def test_a_hanging_pull_does_not_keep_other_containers_waiting(tmp_path: Path) -> None:
    service = PullService()
    wishes = [
        WEB.model_copy(update={"name": f"web-{n}", "image": f"registry.test/web:{n}"})
        for n in range(5)
    ]
    async with standing_in(tmp_path, service) as url:
        containers = PodmanContainers(url, answer_within_s=5)
        changes = await containers.converge(wishes, apply=True)
        assert all(isinstance(change, Change) for change in changes)
        assert await containers.observe("web-0") is None
        await containers.close()


class DeafService:
    """Containers that run on whatever they are sent, until they are killed; a stop takes its time."""

    def __init__(self, *names: str) -> None:
        self.running = set(names)
        self.signals: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        verb, url = head.split()[:2]
        path, _, query = url.partition("?")
        name, _, what = path.partition("/containers/")[2].partition("/")
        if path.endswith("/containers/json"):
            writer.write(reply("200 OK", b"[]"))
        elif name not in self.running:
            writer.write(reply("404 Not Found", b'{"message": "no such container"}'))
        elif what == "json":
            writer.write(reply("200 OK", json.dumps(_described(name)).encode()))
        elif what == "kill":
            self.signals.append(f"{name} {query}")
            writer.write(reply("204 No Content", b""))
        else:
            await asyncio.sleep(float(query.rpartition("timeout=")[2] or 10))
            self.running.discard(name)
            writer.write(reply("200 OK" if verb == "DELETE" else "204 No Content", b""))


def _described(name: str) -> object:
    now = "2026-01-01T00:00:00Z"
    state = {"Status": "running", "StartedAt": now, "FinishedAt": now, "ExitCode": 0, "Pid": 0}
    return {
        "Id": name,
        "Name": name,
        "ImageName": IMAGE,
        "ImageDigest": "",
        "RestartCount": 0,
        "State": state,
        "Config": {
            "Labels": {RESOURCE_LABEL: f"container:{name}"},
            "StopTimeout": 3600 if name == "slow" else 2,
            "StopSignal": 3,
        },
    }


async def test_what_does_not_end_keeps_no_other_container_waiting(tmp_path: Path) -> None:
    names = [f"web-{n}" for n in range(15)]
    service = DeafService(*names, "other")
    async with standing_in(tmp_path, service) as url:
        containers = PodmanContainers(url, answer_within_s=2)
        stopping = asyncio.create_task(containers.remove(names, apply=True))
        while not service.signals:
            await asyncio.sleep(0.01)
        assert await containers.observe("other") is not None
        assert not stopping.done()
        for change in await stopping:
            assert isinstance(change, Change)
            assert change.pending is not None
            assert change.pending.reason == "Progressing"
        assert sorted(service.signals) == sorted(f"{name} signal=3" for name in names)
        await asyncio.sleep(2)
        changes = await containers.remove(names, apply=True)
        assert {type(change) for change in changes} == {Change}
        assert service.running == {"other"}


async def test_an_agent_that_starts_again_gives_its_time_anew_and_no_more(tmp_path: Path) -> None:
    service = DeafService("slow")
    async with standing_in(tmp_path, service) as url:
        for _ in range(2):
            containers = PodmanContainers(url, answer_within_s=2)
            for _ in range(2):
                (change,) = await containers.remove(["slow"], apply=True)
                assert isinstance(change, Change)
                assert change.pending is not None
                assert 0 < change.pending.look_again_s <= 1
        assert service.signals == ["slow signal=3", "slow signal=3"]
        assert service.running == {"slow"}
