"""What containers have from others, by a real agent: volumes, networks and trees, over all that becomes of
them."""

from __future__ import annotations

import random
from pathlib import Path

from harmony_control.assets import read_tree
from harmony_control.device import Device
from harmony_control.push.entries import Entry
from harmony_core import Mount
from harmony_pi_topology import PiTopology
from harmony_scores import ContainerNetworkScore, ContainerScore, TreeScore, VolumeScore
from tests.box import Bed
from tests.fleet.ground import (
    AGENT,
    SERVE,
    ControlPlane,
    Host,
    in_shell,
    pushed,
    statuses,
    until,
)

SITE = "/srv/site"


async def test_an_application_keeps_its_data_and_its_names_whatever_becomes_of_it(
    device: Device[PiTopology], host: Host, bed: Bed, plane: ControlPlane
) -> None:
    bed.registry.make_known_to(host.box)
    images = [bed.registry.push_busybox("app", f"{n}", page=f"page {n}\n") for n in range(2)]

    def application(number: int, *, internal: bool = False) -> dict[str, Entry[PiTopology]]:
        db = ContainerScore.model_validate(
            {
                "name": "db",
                "image": images[number],
                "command": in_shell(SERVE),
                "volumes": [{"volume": "app-data", "target": "/data"}],
                "networks": [{"network": "app", "aliases": ["store"]}],
                "stop_timeout_s": 0,
                "settle_s": 0.2,
            }
        )
        front = ContainerScore.model_validate(
            {
                "name": "front",
                "image": images[0],
                "command": in_shell("sleep 86399"),
                "networks": [{"network": "app"}],
                "stop_timeout_s": 0,
                "settle_s": 0.2,
            }
        )
        return {
            "db": Entry(db, after=["app", "data"]),
            "front": Entry(front, after=["app"]),
            "app": Entry(ContainerNetworkScore(name="app", internal=internal)),
            "data": Entry(VolumeScore(name="app-data", delete_data=True)),
        }

    def within(container: str, *command: str) -> str:
        return host.box.run(["podman", "exec", container, *command]).stdout.decode()

    def page(name: str) -> str:
        return within("front", "busybox", "wget", "-T", "5", "-qO-", f"http://{name}/")

    first, _ = await pushed(device, {name: application(0)[name] for name in ("app", "front")})
    state, _ = await pushed(device, application(0))
    assert set(statuses(state).values()) <= {"SUCCESS", "NOOP"}, state
    within("db", "sh", "-c", "echo kept > /data/it")
    assert page("db") == page("store") == "page 0\n"
    # Another image and another network, while the agent is killed; and back.
    taken = await device.put(application(1, internal=True))
    host.box.run(["systemctl", "kill", "--kill-whom=main", "-s", "KILL", AGENT])
    await device.wait(taken)
    assert within("db", "cat", "/data/it") == "kept\n"
    assert page("store") == "page 1\n"
    await device.wait(await device.rollback())
    assert within("db", "cat", "/data/it") == "kept\n"
    assert page("store") == "page 0\n"
    # It is listed with who has it.
    listed = (await plane.harmony("volumes", device.id)).out.splitlines()
    assert listed[0].split() == ["VOLUME", "SIZE", "USED", "BY", "SCORE"]
    assert [line.split() for line in listed[1:]] == [["app-data", "5", "B", "db", "data"]]
    # Back to before there was any of it: the data, which nobody has named, waits until that is approved.
    await device.rollback(first.generation)
    await until(device, lambda state: state.removals_held == 2)
    assert within("db", "cat", "/data/it") == "kept\n"
    assert "with all data of volume:app-data" in (await plane.harmony("status", device.id)).out
    state = await device.wait(await device.approve())
    assert statuses(state).keys() == {"front", "app"}
    assert host.box.run(["podman", "volume", "ls", "-q"]).stdout == b""
    assert host.containers() == ["front"]
    await device.remove("front", "app")
    assert host.box.run(["podman", "network", "ls", "-q"]).stdout == b"podman\n"


def lay_out(site: Path) -> None:
    """Put 60 things into the directory *site*: pages, a picture, a program, a link."""
    for number in range(52):
        page = site / "pages" / str(number % 4) / f"{number:02}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"page {number}\n")
    (site / "empty").mkdir()
    (site / "picture.png").write_bytes(random.Random(1).randbytes(600_000))
    (site / "count").write_text("#!/bin/sh\n")
    (site / "count").chmod(0o700)
    (site / "now").symlink_to("pages/0")


def seen(top: Path) -> dict[str, tuple[str, int, str | bytes]]:
    """All that is in *top*, as the kernel has it: mode and owner, what links lead to, what files have."""
    found: dict[str, tuple[str, int, str | bytes]] = {}
    for each in sorted(top.rglob("*")):
        there = each.lstat()
        kept = (
            str(each.readlink())
            if each.is_symlink()
            else b""
            if each.is_dir()
            else each.read_bytes()
        )
        mode = 0 if each.is_symlink() else there.st_mode
        found[str(each.relative_to(top))] = (oct(mode), there.st_uid, kept)
    return found


async def test_a_tree_comes_whole_and_what_changes_in_it_is_seen_in_a_container(
    device: Device[PiTopology], host: Host, bed: Bed, plane: ControlPlane, tmp_path: Path
) -> None:
    bed.registry.make_known_to(host.box)
    site, there = tmp_path / "site", host.box.root / SITE[1:]
    lay_out(site)
    web = ContainerScore.model_validate(
        {
            "name": "web",
            "image": bed.registry.push_busybox("app", "0", page="page 0\n"),
            "command": in_shell("sleep 86399"),
            "mounts": [Mount(source=SITE, target="/site")],
            "stop_timeout_s": 0,
            "settle_s": 0.2,
        }
    )

    async def push() -> dict[str, str]:
        tree = Entry(TreeScore(path=SITE, files=read_tree(site)))
        state, _ = await pushed(device, {"site": tree, "web": Entry(web, after=["site"])})
        return dict(statuses(state))

    def within(*command: str) -> str:
        return host.box.run(["podman", "exec", "web", *command]).stdout.decode()

    def is_there() -> bool:
        wanted = seen(site)
        wanted["count"] = ("0o100755", *wanted["count"][1:])  # 0700 here
        return seen(there) == wanted

    before = host.everything()
    assert await push() == {"site": "SUCCESS", "web": "SUCCESS"}
    assert is_there(), seen(there)
    files = [f"{SITE}/{each.relative_to(site)}" for each in site.rglob("*") if each.is_file()]
    made = host.identities(files=files, containers=["web"])
    assert await push() == {"site": "NOOP", "web": "NOOP"}

    (site / "pages/1/01.html").write_text("another page\n")
    (site / "pages/2/02.html").unlink()
    (site / "empty").rmdir()
    (site / "empty").write_text("no directory any more\n")
    (site / "pages/new").mkdir()
    (site / "pages/new/60.html").write_text("page 60\n")
    assert (await push())["site"] == "SUCCESS"
    assert is_there(), seen(there)
    assert within("cat", "/site/now/../1/01.html", "/site/pages/new/60.html") == (
        "another page\npage 60\n"
    )
    # Nothing but that was touched, and the container is the one that it was.
    after = host.identities(files=files, containers=["web"])
    changed = {each for each in made if made[each] != after[each]}
    assert changed == {f"file:{SITE}/pages/1/01.html", f"file:{SITE}/pages/2/02.html"}

    # Somebody's hand on one thing is put right alone, and told by its name.
    host.box.run(["sh", "-c", f"echo mine > {SITE}/pages/3/03.html; rm {SITE}/now"])
    await until(device, lambda _: is_there())
    events = await plane.harmony("events", device.id)
    assert f"{SITE}/pages/3/03.html" in events.out
    assert host.identities(files=files)[f"file:{SITE}/count"] == made[f"file:{SITE}/count"]

    # What others have put there stays, as do the directories for it; all else goes.
    host.box.run(["sh", "-c", f"echo theirs > {SITE}/pages/0/theirs"])
    await device.remove("web", "site")
    assert {*seen(there)} == {"pages", "pages/0", "pages/0/theirs"}
    host.box.run(["rm", "-r", SITE])
    assert {line.split()[0] for line in host.everything()} == {line.split()[0] for line in before}
