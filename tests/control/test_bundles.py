"""From a push to a device that no server reaches: `harmony bundle`, a file, `harmony-agent load`.

A real server, and a real agent on a folder. Images are tests/fleet/test_bundles_in_box.py's.
"""

from __future__ import annotations

import asyncio
import json
import random
import stat
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harmony_core.wire.assets import CHUNK_BYTES
from tests.bundles import AGENT, Island, island, pack, unpack
from tests.control.ground import harmony
from tests.docs.fences import files_in, shell_in
from tests.nats import serving

PAGE = Path(__file__).parents[2] / "docs/offline.md"
CONTENT = random.Random(1).randbytes(2 * CHUNK_BYTES + 7)


@pytest.fixture
async def pi(tmp_path: Path) -> AsyncGenerator[Island]:
    async with serving(tmp_path, "pi-1", "pi-2") as bus, island(bus, tmp_path) as made:
        yield made


def a_file(content: str, path: str = "/etc/motd", id: str = "motd") -> Mapping[str, Any]:
    return {"id": id, "kind": "FileScore", "spec": {"path": path, "content": content}}


def motd(pi: Island) -> str | None:
    path = pi.device / "etc/motd"
    return path.read_text() if path.exists() else None


async def test_what_was_pushed_comes_by_a_file_and_the_server_finds_it_so(pi: Island) -> None:
    (pi.root / "model.bin").write_bytes(CONTENT)
    model = {"path": "/srv/model.bin", "content_base64_from": "./model.bin"}
    await pi.push(a_file("hello\n"), {"id": "model", "kind": "FileScore", "spec": model})
    bundle = await pi.bundle("pi-1.bundle")
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    index, files = unpack(bundle)
    assert [each["name"] for each in index["files"]] == [*files]
    assert [name.partition("/")[0] for name in files] == ["desired-state", "assets"]
    assert b"hello" not in b"".join(files[each] for each in files if each.startswith("assets"))

    said = await pi.load(bundle)
    assert "loaded: generation 1, 2 Scores" in said.out
    assert "motd                 SUCCESS   file:/etc/motd created" in said.out
    assert motd(pi) == "hello\n"
    assert (pi.device / "srv/model.bin").read_bytes() == CONTENT
    before = (pi.device / "etc/motd").stat()

    again = await pi.load(bundle)
    assert again.out.count("SUCCESS") == 2  # as of this generation

    pi.relay.become("open")
    state = await pi.reported(1)
    assert {each.outcome.status for each in state.scores.values()} == {"SUCCESS"}
    events = await pi.harmony("events", "pi-1", "--json")
    changed = [each for each in events.documents if each.get("resource") == "file:/etc/motd"]
    assert len(changed) == 1
    after = (pi.device / "etc/motd").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_the_page_can_be_followed_word_by_word(pi: Island) -> None:
    """docs/offline.md: its file, its commands, in its order."""
    for name, content in files_in(PAGE).items():
        (pi.root / name).write_text(content)
    stick = pi.root / "stick"
    for words in shell_in(PAGE):
        if words[0] == "harmony":
            here = [str(pi.root / each) if "." in each else each for each in words[1:]]
            await pi.harmony(*here)
        else:
            assert words[:2] == ["/opt/harmony/bin/harmony-agent", "load"]
            (pi.root / "pi-1.bundle").rename(stick)
            await pi.load(stick)
    assert motd(pi) == "A kiosk, far away.\n"


async def test_what_is_older_than_what_was_accepted_is_refused_and_changes_nothing(
    pi: Island,
) -> None:
    await pi.push(a_file("first\n"))
    first = await pi.bundle("first")
    await pi.push(a_file("second\n"))
    second = await pi.bundle("second")
    await pi.load(second)
    said = await pi.load(first, ends=3)
    assert "generation: 1 of epoch 0 is older than 2 of epoch 0" in said.err
    assert motd(pi) == "second\n"
    await pi.stop()
    await pi.start()
    await pi.load(first, ends=3)
    assert motd(pi) == "second\n"


async def test_another_device_s_is_refused_also_where_its_index_says_otherwise(
    pi: Island,
) -> None:
    await pi.push(a_file("for the other\n"), to="pi-2")
    other = await pi.bundle("other", of="pi-2")
    said = await pi.load(other, ends=2)
    assert "the bundle is for pi-2 of the fleet home, and this is pi-1" in said.err
    _, files = unpack(other)
    other.write_bytes(pack({"desired-state/pi-1": files["desired-state/pi-2"]}))
    said = await pi.load(other, ends=3)
    assert "pi-2" in said.err
    assert motd(pi) is None


async def test_what_nobody_trusted_has_signed_is_refused(pi: Island) -> None:
    await pi.push(a_file("hello\n"))
    bundle = await pi.bundle("bundle")
    _, files = unpack(bundle)
    envelope = json.loads(files["desired-state/pi-1"])
    envelope["signatures"][0]["sig"] = f"{'A' * 86}=="
    bundle.write_bytes(pack({"desired-state/pi-1": json.dumps(envelope).encode()}))
    await pi.load(bundle, ends=3)
    assert motd(pi) is None


async def test_a_score_that_fails_is_told_as_by_a_push_and_others_go_on(pi: Island) -> None:
    (pi.device / "srv").write_text("no directory\n")
    await pi.push(a_file("hello\n"), a_file("never\n", "/srv/bad", "bad"))
    said = await pi.load(await pi.bundle("bundle"), ends=1)
    assert "bad                  FAILURE   " in said.out
    assert motd(pi) == "hello\n"


async def test_what_is_wanted_no_more_goes_and_is_told(pi: Island) -> None:
    await pi.push(a_file("hello\n"), a_file("more\n", "/etc/more", "more"))
    await pi.load(await pi.bundle("first"))
    await pi.harmony("remove-score", "pi-1", "more", "--no-wait")
    said = await pi.load(await pi.bundle("second"))
    assert "more                 gone" in said.out
    assert not (pi.device / "etc/more").exists()


async def test_the_root_documents_come_along_and_decide_whose_signature_counts(
    pi: Island,
) -> None:
    """The device knows only who was trusted when it was let in."""
    await pi.push(a_file("before\n"))
    before = await pi.bundle("before")
    await pi.harmony("trust", "init")
    await pi.harmony("trust", "renew", "--new-epoch")
    await pi.push(a_file("after\n"))
    after = await pi.bundle("after")
    _, files = unpack(after)
    assert {"trust/1", "trust/2"} <= files.keys()
    await pi.load(after)
    assert motd(pi) == "after\n"
    await pi.load(before, ends=3)
    assert motd(pi) == "after\n"


async def test_a_class_comes_with_its_gate_as_far_as_that_lets_the_device(pi: Island) -> None:
    await pi.harmony("label", "pi-1", "role=kiosk", "--no-wait")
    file = pi.root / "class.json"
    file.write_text(json.dumps([a_file("of the class\n")]))
    await pi.harmony(
        "push-score", "--class", "kiosk", "--selector", "role=kiosk", str(file), "--no-wait"
    )
    file.write_text(json.dumps([a_file("none of its business\n", "/etc/other", "other")]))
    await pi.harmony(
        "push-score", "--class", "other", "--selector", "role=other", str(file), "--no-wait"
    )
    bundle = await pi.bundle("bundle")
    _, files = unpack(bundle)
    assert [*files] == [
        "desired-state/pi-1",
        "fleet/index",
        "rollout/kiosk",
        "desired-class/kiosk.1",
    ]
    said = await pi.load(bundle)
    assert "motd                 SUCCESS" in said.out
    assert motd(pi) == "of the class\n"
    assert not (pi.device / "etc/other").exists()


async def test_a_class_that_is_not_the_one_that_was_signed_is_refused_and_all_else_counts(
    pi: Island,
) -> None:
    await pi.harmony("label", "pi-1", "role=kiosk", "--no-wait")
    await pi.push(a_file("of its own\n"))
    file = pi.root / "class.json"
    for name in ("kiosk", "other"):
        file.write_text(json.dumps([a_file(f"of {name}\n", f"/etc/{name}", name)]))
        await pi.harmony(
            "push-score", "--class", name, "--selector", f"role={name}", str(file), "--no-wait"
        )
    bundle = await pi.bundle("bundle")
    _, files = unpack(bundle)
    other = await pi.bus.bucket("desired-class").get("other.1")
    assert other is not None
    files["desired-class/kiosk.1"] = other.value
    bundle.write_bytes(pack(files))
    said = await pi.load(bundle, ends=3)
    assert "loaded: generation 2, 1 Score\nmotd" in said.out
    assert "generation 1 of the class kiosk is another than the gate was opened for" in said.err
    assert motd(pi) == "of its own\n"
    assert not (pi.device / "etc/kiosk").exists()
    assert not (pi.device / "etc/other").exists()

    del files["desired-class/kiosk.1"]
    bundle.write_bytes(pack(files))
    said = await pi.load(bundle, ends=2)
    assert "generation 1 of class kiosk is not in the bundle" in said.err


async def test_who_hangs_up_at_any_moment_leaves_nothing_half_done(pi: Island) -> None:
    """What was accepted has its turn, whoever waits for it."""
    for number in range(8):
        await pi.push(a_file(f"{number}\n"))
        bundle = await pi.bundle(f"bundle-{number}")
        process = await asyncio.create_subprocess_exec(
            *(*AGENT, "load", "--config", str(pi.toml), str(bundle)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        if number % 2:
            await asyncio.sleep(0.3 + number / 20)
        else:
            assert process.stdout is not None
            await process.stdout.readline()
        before = motd(pi)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        was_accepted = f"generation {number + 1}" in pi.said
        async with asyncio.timeout(20):
            while was_accepted and motd(pi) != f"{number}\n":
                await asyncio.sleep(0.05)
        assert motd(pi) in {before, f"{number}\n"}
    await pi.load(pi.root / "bundle-7")
    assert motd(pi) == "7\n"


async def test_a_time_that_is_no_number_is_not_waited_for_without_end(pi: Island) -> None:
    await pi.push(a_file("hello\n"))
    await pi.load(await pi.bundle("bundle"), "--timeout", "nan")
    assert motd(pi) == "hello\n"


async def test_secrets_travel_sealed(pi: Island) -> None:
    await harmony_secret(pi, "swordfish")
    await pi.push(a_file("password=${secret.db}\n"))
    bundle = await pi.bundle("bundle")
    assert b"swordfish" not in bundle.read_bytes()
    await pi.load(bundle)
    assert motd(pi) == "password=swordfish\n"


async def harmony_secret(pi: Island, value: str) -> None:
    said = await harmony(pi.home, "secret", "set", "db", stdin=value)
    assert said.status == 0, said


async def test_nothing_is_bundled_that_could_not_be_believed_or_is_not_there(pi: Island) -> None:
    file = str(pi.root / "bundle")
    said = await pi.harmony("bundle", "pi-1", file, ends=2)
    assert "nothing was ever pushed to pi-1" in said.err
    said = await pi.harmony("bundle", "pi-9", file, ends=2)
    assert "there is no device 'pi-9'" in said.err
    web = {"name": "web", "image": "localhost:1/web:1"}
    scores = pi.root / "web.json"
    scores.write_text(json.dumps([{"id": "web", "kind": "ContainerScore", "spec": web}]))
    await pi.harmony("push-score", "pi-1", str(scores), "--no-wait", "--no-resolve", "--force")
    said = await pi.harmony("bundle", "pi-1", file, ends=2)
    assert "'web' names the image localhost:1/web:1 by its tag alone" in said.err
    assert not Path(file).exists()
    said = await pi.harmony("bundle", "pi-1", "-", ends=2)
    assert "cannot be piped on" in said.err
    said = await pi.harmony("bundle", "pi-1", file, "--platform", "windows", ends=2)
    assert "write linux/arm64" in said.err


async def test_without_an_agent_it_is_told_what_to_start(pi: Island) -> None:
    await pi.push(a_file("hello\n"))
    bundle = await pi.bundle("bundle")
    await pi.stop()
    said = await pi.load(bundle, ends=2)
    assert "systemctl start harmony-agent" in said.err
    said = await pi.load(pi.root / "no-such-file", ends=2)
    assert "no-such-file cannot be read" in said.err


async def test_a_piece_of_an_asset_that_is_something_else_is_refused_before_anything_counts(
    pi: Island,
) -> None:
    (pi.root / "model.bin").write_bytes(CONTENT)
    model = {"path": "/srv/model.bin", "content_base64_from": "./model.bin"}
    await pi.push(a_file("hello\n"), {"id": "model", "kind": "FileScore", "spec": model})
    bundle = await pi.bundle("bundle")
    _, files = unpack(bundle)
    (asset,) = (each for each in files if each.startswith("assets/"))
    files[asset] = files[asset][:-1] + bytes([files[asset][-1] ^ 1])
    bundle.write_bytes(pack(files))  # with the right hash of the wrong content
    said = await pi.load(bundle, ends=2)
    assert "is not what was pushed" in said.err
    assert motd(pi) is None


async def test_one_bundle_is_loaded_at_a_time_and_who_hangs_up_has_it_put_away(
    pi: Island,
) -> None:
    """A Score that waits for what is not in the bundle keeps the first one waiting."""
    (pi.root / "model.bin").write_bytes(CONTENT)
    model = {"path": "/srv/model.bin", "content_base64_from": "./model.bin"}
    await pi.push(a_file("hello\n"), {"id": "model", "kind": "FileScore", "spec": model})
    whole = await pi.bundle("whole")
    _, files = unpack(whole)
    poor = pi.root / "poor"
    poor.write_bytes(pack({"desired-state/pi-1": files["desired-state/pi-1"]}))
    first = asyncio.create_task(pi.load(poor, "--timeout", "5", ends=4))
    async with asyncio.timeout(20):
        while motd(pi) is None:
            await asyncio.sleep(0.05)
    said = await pi.load(whole, ends=4)
    assert "another bundle is being loaded" in said.err
    said = await first
    assert "not all is in order yet" in said.err
    assert "waiting for the control plane" in said.out
    await pi.load(whole)
    assert (pi.device / "srv/model.bin").read_bytes() == CONTENT
