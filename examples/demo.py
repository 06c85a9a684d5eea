"""``make demo``: the main job, from nothing to the end, on real systemd, real podman and real NATS.

Two Pis in boxes; without root, or where boxes cannot be had, one device that is a folder, and then what
needs systemd or containers is honestly refused. Everything shown is the ``harmony`` command as a user types
it, and every exit code, and what the device says then, is checked: a demo that cannot fail would show
nothing. In a terminal it ends with the fleet alive in a browser, until Ctrl-C, unless ``--no-wait`` is
given. Ctrl-C leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .pis import as_folder, running

if TYPE_CHECKING:
    from tests.box import Box

TREE = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
BOLD, DIM, RED, END = (
    ("\033[1m", "\033[2m", "\033[31m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
)


class Broken(Exception):
    """The demo did not go as it must."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="the main job")
    parser.add_argument("--no-wait", action="store_true", help="end when all has been shown")
    options = parser.parse_args()
    waits = sys.stdin.isatty() and sys.stdout.isatty() and not options.no_wait
    signal.signal(signal.SIGTERM, _ended)
    try:
        with tempfile.TemporaryDirectory(prefix="harmony-demo-") as directory:
            os.environ["HARMONY_HOME"] = str(Path(directory) / "operator")
            why_not = _why_no_boxes()
            if why_not is None:
                boxes(waits=waits)
            else:
                say(f"No Pis in boxes here: {why_not}.\nThe same with a device that is a folder:")
                folder(Path(directory), waits=waits)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing is left running")
        return 130
    except Broken as problem:
        print(f"{RED}the demo failed: {problem}{END}", file=sys.stderr)
        return 1
    return 0


def _ended(signal_number: int, _: object) -> None:
    """End in order, so that every block is left."""
    sys.exit(128 + signal_number)


def boxes(*, waits: bool) -> None:
    """Two real Pis in boxes."""
    from tests.box import Bed  # noqa: PLC0415 - only where there are boxes

    with Bed() as bed, ExitStack() as stack:
        say("Two Pis boot, each with its own systemd and podman. The second has no podman.")
        web, clock = pis = [bed.boot("pi-1"), bed.boot("pi-2")]
        clock.run(["systemctl", "mask", "--now", "podman.socket"])
        clock.run(["rm", "-f", "/usr/bin/podman", "/run/podman/podman.sock"])
        web.write("/etc/motd", "Welcome to the kitchen.\n")
        os.environ["IMAGE"] = f"{bed.registry.host}/web:1"
        os.environ["HARMONY_REGISTRY_CA"] = str(bed.registry.ca)
        page, at_once = "hello from a Pi\n", "SIGKILL"
        bed.registry.push_busybox(
            "web", "1", page=page, ballast_bytes=24_000_000, stop_signal=at_once
        )
        crash = ("sh", "-c", "echo cannot find my database >&2; exit 1")
        bed.registry.push_busybox("web", "bad", command=crash)
        serving = ("httpd", "-f", "-p", "80", "-h", "/data", "-c", "/etc/httpd.conf")
        bed.registry.push_busybox("notes", "1", command=serving, stop_signal=at_once)
        stack.enter_context(server("--listen", "0.0.0.0:4222"))
        for pi in pis:
            invitation = Path(os.environ["HARMONY_HOME"]) / f"{pi.name}.invitation"
            where = ("--url", "tls://10.77.0.1:4222", "--out", str(invitation))
            harmony("invite", pi.name, *where)
            pi.write("/root/invitation", invitation.read_bytes(), mode=0o600)
            print(pi.text("/opt/harmony/bin/harmony-agent", "enroll", "@/root/invitation"))
            pi.run(["systemctl", "enable", "--now", "harmony-agent"])
        heard("pi-1", "pi-2")
        _web_application(web, f"{bed.registry.host}/web:bad")
        _compose_file(web, f"{bed.registry.host}/notes:1", f"{bed.registry.host}/web:bad")
        _service(clock)
        _removal(web)

        say("And this is how things stand:")
        harmony("status", "pi-2")
        harmony("status")
        dashboard("pi-1", "pi-2", waits=waits)


def dashboard(*agents: str, waits: bool) -> None:
    """Show the fleet in a browser, with every device alive in it; until Ctrl-C if it *waits*."""
    import httpx  # noqa: PLC0415 - as for a page of a Pi

    say("The fleet is alive in a browser, too.")
    url, password = f"http://127.0.0.1:{free_port()}", secrets.token_urlsafe(9)
    command = (BIN / "harmony", "serve-user", "add", "demo", "--role", "operator")
    subprocess.run(command, input=password, text=True, check=True, stdout=subprocess.DEVNULL)
    print(f"{DIM}$ harmony serve --listen {url.removeprefix('http://')} &{END}", flush=True)
    with (
        running([BIN / "harmony", "serve", "--listen", url.removeprefix("http://")]) as process,
        httpx.Client(base_url=url, headers={"Origin": url}, trust_env=False) as browser,
    ):

        def are_shown() -> bool:
            require(process.poll() is None, "harmony serve has ended")
            try:
                told = browser.get("/api/devices")
                if told.status_code == 401:
                    browser.post("/api/session", json={"name": "demo", "password": password})
                    return False
            except httpx.TransportError:
                return False
            devices = told.json()["devices"]
            return {each["id"] for each in devices if each["device"] == "Online"} == {*agents}

        until(are_shown, "the dashboard does not show every device as Online")
        print(f"{', '.join(agents)}: Online. Sign in as demo with the password {password}")
        if waits:
            print(f"{BOLD}{url}{END}  Ctrl-C ends it all.", flush=True)
            with suppress(KeyboardInterrupt):
                process.wait()


def _web_application(pi: Box, bad_image: str) -> None:
    say("A web application and a file, written in Python: what would they change on the first Pi?")
    harmony("diff", "pi-1", "examples/web.py")
    require(pi.read("/etc/motd") == b"Welcome to the kitchen.\n", "looking has changed something")
    say("They are pushed.")
    harmony("push-score", "pi-1", "examples/web.py")
    require(_statuses("pi-1") == {"motd": "SUCCESS", "web": "SUCCESS"}, "not both are SUCCESS")
    url = f"http://{pi.address}:8080/"
    require(_page(url) == "hello from a Pi\n", "the web application does not answer")
    harmony("status", "pi-1")

    say("Pushed again, nothing is touched: the container keeps its id and its start time.")
    before = _container(pi)
    harmony("push-score", "pi-1", "examples/web.py")
    require(_statuses("pi-1") == {"motd": "NOOP", "web": "NOOP"}, "not both are NOOP")
    require(_container(pi) == before, "the container was touched")
    print(f"{DIM}container {before}{END}")

    say("A new image does not even start: the device goes back to the last good one, by itself.")
    good, os.environ["IMAGE"] = os.environ["IMAGE"], bad_image
    harmony("push-score", "pi-1", "examples/web.py", expect=1)
    _has_failed("pi-1", "web", "RolledBack", "cannot find my database", "is effective again")
    require(_page(url) == "hello from a Pi\n", "the last good one does not answer")
    os.environ["IMAGE"] = good

    say("The second Pi has no container runtime: refused before anything is pushed.")
    harmony("push-score", "pi-2", "examples/web.py", expect=3)
    require(_statuses("pi-2") == {}, "it was pushed all the same")


def _compose_file(pi: Box, image: str, bad_image: str) -> None:
    say("A compose file of three services, as it is. What it serves is behind a secret.")
    url, file = f"http://{pi.address}:8081/", "examples/notes/compose.yaml"
    old = _set_secret()
    os.environ["IMAGE"] = image
    harmony("push-score", "pi-1", file)
    written = _page(url, auth=("ada", old))
    require(len(written) == 37, "the page is not what the first service has written")
    names = ("podman", "ps", "-a", "--format", "{{.Names}} {{.State}}", "--filter", "name=notes-")
    print(f"{DIM}pi-1# podman ps -a{END}\n{pi.text(*names)}")

    say("The secret is changed: who has it is made anew, the others go on.")
    new = _set_secret()
    harmony("push-score", "pi-1", file)
    require(_page(url, auth=("ada", new)) == written, "the new password is not known")
    require(_page(url, auth=("ada", old), expect=401) == "", "the old password still opens it")

    say("A bad image of it comes, and is rolled back. The volume was never touched.")
    os.environ["IMAGE"] = bad_image
    harmony("push-score", "pi-1", file, expect=1)
    _has_failed("pi-1", "notes", "ContainerFailed", "notes-web-1", "cannot find my database")
    harmony("rollback", "pi-1", "--yes")
    require(_page(url, auth=("ada", new)) == written, "what was in the volume is not there")


def _set_secret() -> str:
    """Set the secret of the example to something new, and return it."""
    value = secrets.token_hex(8)
    file = Path(os.environ["HARMONY_HOME"]).parent / "password"
    file.write_text(value)
    harmony("secret", "set", "notes", "--file", str(file))
    return value


def _service(pi: Box) -> None:
    say("A service and the file it reads; the service waits for the file.")
    harmony("push-score", "pi-2", "examples/clock.yaml")
    require(
        _statuses("pi-2") == dict.fromkeys(("clock", "clock-config"), "SUCCESS"), "they are not up"
    )

    say("Somebody stops it by hand.")
    before = pi.text("systemctl", "show", "-P", "InvocationID", "clock.service")
    print(f"{DIM}pi-2# systemctl stop clock{END}")
    pi.run(["systemctl", "stop", "clock.service"])
    stopped_s = time.monotonic()

    def runs_again() -> bool:
        shown = pi.text("systemctl", "show", "-P", "ActiveState,InvocationID", "clock.service")
        state, _, invocation = shown.partition("\n")
        return state == "active" and invocation != before

    until(runs_again, "it was not started again")
    print(f"It runs again, {time.monotonic() - stopped_s:.1f} s later.")
    until(lambda: _told("pi-2", "clock")["drift_count"] == 1, "nobody has counted it")
    harmony("events", "pi-2", "--lines", "1")

    say("A service whose program fails says why.")
    harmony("push-score", "pi-2", "examples/broken.yaml", expect=1)
    _has_failed("pi-2", "broken", "UnitFailed", "cannot open /dev/sensor0")
    harmony("remove-score", "pi-2", "broken")
    left = pi.run(["systemctl", "cat", "broken.service"], check=False).returncode == 0
    require(not left, "the unit is still there")


def _removal(pi: Box) -> None:
    say("What is removed is gone, with everything it made; what it replaced is back.")
    harmony("remove-score", "pi-1", "web", "motd", "notes")
    require(pi.text("podman", "ps", "-aq") == "", "a container is still there")
    left = pi.text("podman", "volume", "ls", "-q")
    print(f"{DIM}pi-1# podman volume ls -q{END}\n{left}")
    require(left == "notes_data", "the volume is not there any more")
    motd = pi.read("/etc/motd").decode()
    print(f"{DIM}pi-1# cat /etc/motd{END}\n{motd}", end="")
    require(motd == "Welcome to the kitchen.\n", "the old file is not back")


def _told(agent: str, score: str) -> dict[str, Any]:
    """Return what the device reports of one of its Scores."""
    told: dict[str, Any] = _scores(agent)[score]
    return told


def _statuses(agent: str) -> dict[str, str]:
    return {name: told["outcome"]["status"] for name, told in _scores(agent).items()}


def _scores(agent: str) -> dict[str, Any]:
    shown = subprocess.run(
        [BIN / "harmony", "status", agent, "--json"], check=False, capture_output=True
    )
    scores: dict[str, Any] = json.loads(shown.stdout)["scores"]
    return scores


def _has_failed(agent: str, score: str, code: str, *words: str) -> None:
    """Wait until it says so: while a device tries again, a Score is RUNNING, and has no error."""

    def is_said() -> bool:
        error = _told(agent, score)["outcome"]["error"]
        if not error:
            return False
        return error["code"] == code and all(each in error["message"] for each in words)

    until(is_said, f"{score} does not say {code} with {', '.join(words)}")


def _page(url: str, *, auth: tuple[str, str] | None = None, expect: int = 200) -> str:
    """Return the page at *url*; what is not *expect*ed ends the demo. A refusal has no page."""
    import httpx  # noqa: PLC0415 - slow to load, and Ctrl-C shall be answered in words

    answer = httpx.get(url, auth=auth, trust_env=False)
    require(answer.status_code == expect, f"{url} answers {answer.status_code}, not {expect}")
    text = answer.text if answer.is_success else ""
    shown = url if auth is None else url.replace("//", f"//{auth[0]}:{auth[1]}@")
    print(f"{DIM}GET {shown}{END}\n{text or answer.status_code}", end="" if text else "\n")
    return text


def folder(directory: Path, *, waits: bool) -> None:
    """One device that is a folder: real NATS, real signatures, files and directories only."""
    root = directory / "root"
    # Somebody's own bus may have the usual port; boxes have a network of their own.
    with server("--listen", f"127.0.0.1:{free_port()}"):
        harmony("add-agent", "folder-1")
        configuration = Path(os.environ["HARMONY_HOME"]) / "agents/folder-1/agent.toml"
        configuration.write_text(as_folder(configuration.read_text(), directory))
        with running([BIN / "harmony-agent", "run", "--config", configuration]):
            heard("folder-1")
            say("A file is pushed, then pushed again.")
            motd = directory / "motd.yaml"
            motd.write_text(
                '- {id: motd, kind: FileScore, spec: {path: /etc/motd, content: "hello\\n"'
                f', owner: "{os.geteuid()}", group: "{os.getegid()}"' + "}}\n"
            )
            harmony("push-score", "folder-1", str(motd))
            harmony("push-score", "folder-1", str(motd))
            require((root / "etc/motd").read_text() == "hello\n", "the file is not there")
            say("Containers and services are refused, since a folder has neither.")
            harmony("push-score", "folder-1", "examples/web.py", "--no-resolve", expect=3)
            harmony("push-score", "folder-1", "examples/clock.yaml", expect=3)
            say("What is removed is gone.")
            harmony("remove-score", "folder-1", "motd")
            require(not (root / "etc/motd").exists(), "the file is still there")
            harmony("status")
            dashboard("folder-1", waits=waits)


def say(text: str) -> None:
    print(f"\n{BOLD}{text}{END}", flush=True)


def harmony(*arguments: str, expect: int = 0) -> None:
    """Run the command as a user would, and insist on its exit code."""
    print(f"{DIM}$ harmony {' '.join(arguments)}{END}", flush=True)
    status = subprocess.run([BIN / "harmony", *arguments], cwd=TREE, check=False).returncode
    if expect:
        print(f"{DIM}exit {status}{END}")
    require(status == expect, f"harmony {arguments[0]} exited with {status}, not {expect}")


@contextmanager
def server(*arguments: str) -> Generator[None]:
    """`harmony server`, in the background."""
    harmony("keygen")
    print(f"{DIM}$ harmony server {' '.join(arguments)} &{END}", flush=True)
    with running([BIN / "harmony", "server", *arguments]) as process:
        control = Path(os.environ["HARMONY_HOME"]) / "control.toml"

        def answers() -> bool:
            require(process.poll() is None, "the server has ended")
            return control.exists() and _quiet("status") == 0

        until(answers, "the server does not answer")
        yield


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as asked:
        return int(asked.getsockname()[1])


def heard(*agents: str) -> None:
    """Wait until every device has reported."""
    for agent in agents:
        until(partial(_is_heard, agent), f"{agent} is not heard")


def _is_heard(agent: str) -> bool:
    return _quiet("status", agent) == 0


def until(holds: Callable[[], bool], problem: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        require(time.monotonic() < deadline, problem)
        time.sleep(0.1)


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise Broken(problem)


def _quiet(*arguments: str) -> int:
    return subprocess.run(
        [BIN / "harmony", *arguments], check=False, capture_output=True
    ).returncode


def _container(pi: Box) -> str:
    facts = pi.text("podman", "inspect", "-f", "{{.Id}} {{.State.StartedAt}}", "web").split()
    return f"{facts[0][:12]}, up since {facts[2]}"


def _why_no_boxes() -> str | None:
    if os.geteuid() != 0:
        return "they need root"
    if not any(map(shutil.which, ("debootstrap", "apt-get"))):
        return "they need debootstrap"
    from tests.box.layers import Unobtainable, layers  # noqa: PLC0415 - only with root

    try:
        layers()
    except Unobtainable as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
