"""``make picture``: the dashboard in Chromium, drawn as docs/assets/dashboard-*.png.

Nothing in it is made up: `harmony server`, `harmony serve`, and an agent for each of nine devices, which are
folders. A class is rolled out to them, and its next generation wants a secret that no device has; a file is
changed by hand. Then the page is looked at as a person looks at it: the fleet, the rollout that was aborted,
and the device that was changed. Names, sizes and colours are the same each time; times are not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from .demo import BIN, TREE, Broken, free_port, harmony, heard, require, say, server, until
from .pis import as_folder, running

TARGET = TREE / "docs" / "assets"
BYTES_MOST = 150_000
KIOSKS = [f"kiosk-{each}" for each in range(1, 7)]
SENSORS = [f"sensor-{each}" for each in range(1, 4)]
_ROLLOUT_S = 120
_FLEET = """\
devices:
{devices}
classes:
  kiosk:
    selector: role=kiosk
    scores: [kiosk.yaml]
    rollout: {{steps: [{steps}]}}
  sensor:
    selector: role=sensor
    scores: [sensor.yaml]
"""
_FILE = """\
- {{id: {id}, kind: FileScore, spec: {{path: {path}, {content}, owner: "{owner}", group: "{group}"}}}}
"""


def main() -> int:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("there is no Chromium here: apt install chromium")
        return 1
    with tempfile.TemporaryDirectory(prefix="harmony-pictures-") as made, ExitStack() as stack:
        root = Path(made)
        os.environ["HARMONY_HOME"] = str(root / "operator")
        stack.enter_context(server("--listen", f"127.0.0.1:{free_port()}"))
        for each in (*KIOSKS, *SENSORS):
            stack.enter_context(_device(root, each))
        heard(*KIOSKS, *SENSORS)
        _bring_about(root)
        url, password = stack.enter_context(_serving())
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--font-render-hinting=none"]
            )
            take_pictures(browser, url, password)
            browser.close()
    return 0


@contextmanager
def _device(root: Path, name: str) -> Generator[None]:
    """Run a device that is a folder below *root*."""
    place = root / name
    place.mkdir()
    harmony("add-agent", name)
    toml = place / "agent.toml"
    enrolled = Path(os.environ["HARMONY_HOME"], "agents", name, "agent.toml").read_text()
    toml.write_text(as_folder(enrolled, place))
    toml.chmod(0o600)
    with (
        (place / "log").open("wb") as log,
        running([BIN / "harmony-agent", "run", "--config", toml], log.fileno()),
    ):
        yield


def _bring_about(root: Path) -> None:
    """Have the fleet come to where it is worth a look."""
    fleet = root / "fleet"
    fleet.mkdir()
    (fleet / "sensor.yaml").write_text(_file("interval", "/etc/sensor/interval", "30 s"))
    say("A class in order on each of its devices, and a generation of another that fails.")
    _describe(fleet, _file("menu", "/etc/kiosk/menu", "soup, bread, coffee"), steps="100%")
    harmony("apply", str(fleet), "--yes")
    harmony("rollout", "key")
    changed = root / SENSORS[1] / "root/etc/sensor/interval"
    changed.write_text("5 s\n")
    until(lambda: changed.read_text() == "30 s\n", "what was changed by hand was not put right")
    _describe(fleet, _file("menu", "/etc/kiosk/menu", secret="menu-token"), steps="2, 50%, 100%")
    harmony("apply", str(fleet), "--yes", expect=1)
    own = root / "own.yaml"
    own.write_text(_file("wifi", "/etc/sensor/wifi.key", secret="wifi-key"))
    harmony("push-score", SENSORS[2], str(own), expect=1)


def _describe(fleet: Path, kiosk: str, *, steps: str) -> None:
    (fleet / "kiosk.yaml").write_text(kiosk)
    labels = [
        *(f"  {each}: {{labels: {{role: kiosk, site: station}}}}" for each in KIOSKS),
        *(f"  {each}: {{labels: {{role: sensor, site: harbour}}}}" for each in SENSORS),
    ]
    (fleet / "fleet.yaml").write_text(_FLEET.format(devices="\n".join(labels), steps=steps))


def _file(name: str, path: str, text: str = "", *, secret: str = "") -> str:
    """Return one file in YAML, with *text*, or with a *secret*, which no device has."""
    content = f"secret: {secret}" if secret else f'content: "{text}\\n"'
    owner, group = os.geteuid(), os.getegid()
    return _FILE.format(id=name, path=path, content=content, owner=owner, group=group)


@contextmanager
def _serving() -> Generator[tuple[str, str]]:
    """Run `harmony serve` with a user ``ada``; its address, and her password."""
    address, password = f"127.0.0.1:{free_port()}", secrets.token_urlsafe(9)
    command = (BIN / "harmony", "serve-user", "add", "ada", "--role", "approver")
    subprocess.run(command, input=password, text=True, check=True, stdout=subprocess.DEVNULL)
    with running([BIN / "harmony", "serve", "--listen", address]):
        yield f"http://{address}", password


def take_pictures(browser: Browser, url: str, password: str) -> None:
    """Look at the fleet, at the rollout that was aborted, and at the device that was changed."""
    view = _enter(browser, url, password, "light")
    view.get_by_role("link", name=KIOSKS[0], exact=True).wait_for()
    expect(view.get_by_role("button", name="Error 1", exact=True)).to_be_visible()
    _take(view, "fleet")
    view.get_by_role("link", name=SENSORS[1], exact=True).click()
    expect(view.locator(".timeline")).to_contain_text("drift")
    _take(view, "device")
    view = _enter(browser, url, password, "dark")
    view.get_by_role("link", name="Rollouts").click()
    view.get_by_role("link", name="kiosk", exact=True).click()
    expect(view.locator(".pane")).to_contain_text("rolled back")
    _take(view, "rollout")


def _enter(browser: Browser, url: str, password: str, scheme: Literal["dark", "light"]) -> Page:
    context = browser.new_context(
        viewport={"width": 1160, "height": 660}, color_scheme=scheme, reduced_motion="reduce"
    )
    view = context.new_page()
    until(partial(_reach, view, url), "harmony serve does not answer")
    view.get_by_label("Name").fill("ada")
    view.get_by_label("Password").fill(password)
    view.get_by_role("button", name="Sign in").click()
    view.locator(".bar").wait_for()
    return view


def _reach(view: Page, url: str) -> bool:
    try:
        view.goto(url)
    except Error:
        return False
    return True


def _take(view: Page, name: str) -> None:
    path = TARGET / f"dashboard-{name}.png"
    view.screenshot(path=path, animations="disabled", caret="hide")
    require(path.stat().st_size <= BYTES_MOST, f"{path.name} has {path.stat().st_size} bytes")
    print(f"drawn: {path.name}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Broken as problem:
        sys.exit(f"the pictures were not taken: {problem}")
