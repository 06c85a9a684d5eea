"""Images on their way into a bundle: whatever a registry answers, nothing else than what was signed goes in.

A registry that answers as it should is asked in tests/fleet/test_bundles_in_box.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import attrs
import pytest

from harmony_control.store import operator_key
from harmony_control.store.home import Home
from harmony_core.wire.class_manifest import CLASS_TYPE
from harmony_core.wire.envelope import generate_key, seal, split_envelope
from tests.bundles import unpack
from tests.nats import Bus, serving

from .ground import Said, harmony
from .registry import Answer, Asked, Registry, serving_registry

LAYER = b"layer" * 1000


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def described(content: bytes) -> dict[str, object]:
    return {"digest": digest(content), "size": len(content)}


CONFIG = json.dumps({"architecture": "arm64", "os": "linux"}).encode()
MANIFEST = json.dumps({"config": described(CONFIG), "layers": [described(LAYER)]}).encode()


@attrs.define
class Scene:
    bus: Bus
    registry: Registry
    root: Path
    blobs: dict[str, bytes]
    """What the registry sends, by the digest by which it is asked for."""

    @property
    def file(self) -> Path:
        return self.root / "bundle"

    def answer(self, asked: Asked) -> Answer:
        content = self.blobs.get(asked.path.rpartition("/")[2])
        return Answer(status=404) if content is None else Answer(body=content)

    async def bundle(
        self, *more: str, ends: int, manifest: bytes = MANIFEST, **fields: object
    ) -> Said:
        """Push an image by its digest, and write a bundle; where that fails, no file is left."""
        image = f"{self.registry.host}/app/web:1@{digest(manifest)}"
        scores = self.root / "scores.json"
        spec = {"name": "web", "image": image, **fields}
        scores.write_text(json.dumps([{"id": "web", "kind": "ContainerScore", "spec": spec}]))
        said = await harmony(self.bus.home, "push-score", "pi-1", str(scores), "--no-wait")
        assert said.status == 0, said
        said = await harmony(
            self.bus.home,
            *("bundle", "pi-1", str(self.file), *more),
            HARMONY_REGISTRY_CA=str(self.registry.ca),
        )
        assert said.status == ends, said
        assert self.file.exists() == (ends == 0)
        assert [each for each in self.root.iterdir() if each.name.endswith(".part")] == []
        return said


@pytest.fixture
def registry(tmp_path: Path) -> Generator[Registry]:
    with serving_registry(tmp_path) as registry:
        yield registry


@pytest.fixture
async def scene(tmp_path: Path, registry: Registry) -> AsyncGenerator[Scene]:
    async with serving(tmp_path, "pi-1") as bus:
        scene = Scene(
            bus, registry, tmp_path, {digest(each): each for each in (MANIFEST, CONFIG, LAYER)}
        )
        registry.answer = scene.answer
        yield scene


async def test_all_that_an_image_consists_of_is_in_it_for_a_device_that_was_never_heard_of(
    scene: Scene,
) -> None:
    said = await scene.bundle(ends=0)
    assert "1 image for linux/arm64" in said.out
    _, files = unpack(scene.file)
    blobs = {name: each for name, each in files.items() if name.startswith("blobs/")}
    assert set(blobs.values()) == {MANIFEST, CONFIG, LAYER}
    assert all(digest(each) == f"sha256:{name[6:]}" for name, each in blobs.items())


@pytest.mark.parametrize("which", [MANIFEST, CONFIG, LAYER], ids=["manifest", "config", "layer"])
@pytest.mark.parametrize("how", ["other", "short", "long"])
async def test_what_is_something_else_is_not_taken(scene: Scene, which: bytes, how: str) -> None:
    wrong = {"other": bytes(len(which)), "short": which[:-1], "long": which + b" "}
    scene.blobs[digest(which)] = wrong[how]
    said = await scene.bundle(ends=4)
    assert "is something else" in said.err


async def test_what_is_not_there_is_told(scene: Scene) -> None:
    del scene.blobs[digest(LAYER)]
    assert "HTTP 404" in (await scene.bundle(ends=4)).err
    scene.blobs.clear()
    assert "has no app/web:1 (HTTP 404) any more" in (await scene.bundle(ends=2)).err
    said = await scene.bundle("--no-images", ends=0)
    assert "0 images" in said.out


async def test_an_image_for_another_platform_is_refused(scene: Scene) -> None:
    said = await scene.bundle("--platform", "linux/amd64", ends=2)
    assert "app/web:1 is made for linux/arm64, and the device is linux/amd64" in said.err


async def test_a_registry_that_wants_a_login_is_told(scene: Scene) -> None:
    scene.registry.answer = lambda _: Answer(status=401)
    said = await scene.bundle(ends=2)
    assert "requires a login for app/web:1" in said.err
    assert "give the image a login" in said.err


LOGIN = {"username": "me", "password": "${secret.registry}"}
BASIC = "Basic " + base64.b64encode(b"me:hunter2-and-more").decode()


async def test_an_image_is_fetched_with_the_login_beside_it_as_long_as_that_lasts(
    scene: Scene,
) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.authorization == BASIC:
            return scene.answer(asked)
        return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    scene.registry.answer = answer
    said = await harmony(scene.bus.home, "secret", "set", "registry", stdin="hunter2-and-more")
    assert said.status == 0, said
    said = await scene.bundle(ends=0, login=LOGIN)
    assert "hunter2" not in said.out + said.err
    _, files = unpack(scene.file)
    assert {MANIFEST, CONFIG, LAYER} <= set(files.values())
    assert b"hunter2" not in scene.file.read_bytes()
    scene.file.unlink()
    await harmony(scene.bus.home, "secret", "set", "registry", stdin="not-it")
    said = await scene.bundle(ends=2, login=LOGIN)
    assert "does not take the login of 'me' for app/web:1 (HTTP 401)" in said.err
    await harmony(scene.bus.home, "secret", "remove", "registry")
    said = await scene.bundle(ends=2, login=LOGIN)
    assert "could not be used: there is no secret 'registry'" in said.err


async def test_a_password_is_taken_from_no_manifest_that_nobody_here_has_verified(
    scene: Scene,
) -> None:
    """Whoever may write on the server would have it sent to a registry of his own."""
    home = scene.bus.home
    await harmony(home, "secret", "set", "registry", stdin="hunter2-and-more")
    await scene.bundle(ends=0)
    scene.file.unlink()
    said = await harmony(home, "label", "pi-1", "role=kiosk", "--no-wait")
    assert said.status == 0, said
    of_the_class = [*("push-score", "--class", "kiosk", "--selector", "role=kiosk", "--no-wait")]
    said = await harmony(home, *of_the_class, str(scene.root / "scores.json"))
    assert said.status == 0, said
    classes = scene.bus.bucket("desired-class")
    found = await classes.get("kiosk.1")
    assert found is not None
    payload = json.loads(split_envelope(found.value, payload_type=CLASS_TYPE)[0])
    (entry,) = payload["scores"]
    entry["spec"]["image"] = f"{scene.registry.host}/evil:1@{digest(MANIFEST)}"
    entry["spec"]["login"] = LOGIN
    entry["references"] = True
    forged = seal(json.dumps(payload).encode(), generate_key(), payload_type=CLASS_TYPE)
    await classes.put("kiosk.1", forged)

    def ask_for_it(asked: Asked) -> Answer:
        if "evil" in asked.path:
            return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})
        return scene.answer(asked)

    scene.registry.answer = ask_for_it
    said = await scene.bundle(ends=2)
    assert "requires a login for evil:1" in said.err
    assert {each.authorization for each in scene.registry.asked} == {None}


async def test_a_password_goes_to_no_registry_that_another_operator_has_named(
    scene: Scene, tmp_path: Path
) -> None:
    home, bob = scene.bus.home, Home(tmp_path / "bob")
    await harmony(home, "secret", "set", "registry", stdin="hunter2-and-more")
    await scene.bundle(ends=0, login=LOGIN)
    scene.file.unlink()
    operator_key.create(bob)
    operator_key.trust(home, [operator_key.load_public(bob)])
    manifests = scene.bus.bucket("desired-state")
    found = await manifests.get("pi-1")
    assert found is not None
    payload = json.loads(split_envelope(found.value)[0])
    payload["generation"] += 1
    (entry,) = payload["scores"]
    entry["spec"]["image"] = f"{scene.registry.host}/evil:1@{digest(MANIFEST)}"
    await manifests.put("pi-1", seal(json.dumps(payload).encode(), operator_key.load(bob)))

    def ask_for_it(asked: Asked) -> Answer:
        if asked.authorization == BASIC:
            return scene.answer(asked)
        return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="r"'})

    scene.registry.answer = ask_for_it
    said = await harmony(
        home, "bundle", "pi-1", str(scene.file), HARMONY_REGISTRY_CA=str(scene.registry.ca)
    )
    assert said.status == 2
    assert "requires a login for evil:1" in said.err
    assert "could not be used: web was never pushed by name from this directory" in said.err
    assert {each.authorization for each in scene.registry.asked} == {None}
    await scene.bundle(ends=0, login=LOGIN)
    assert BASIC in {each.authorization for each in scene.registry.asked}


async def test_nothing_is_followed_to_where_a_registry_may_not_send_us(scene: Scene) -> None:
    def astray(asked: Asked) -> Answer:
        if "/blobs/" in asked.path:
            return Answer(status=307, headers={"Location": "https://127.0.0.1:1/secret"})
        return scene.answer(asked)

    scene.registry.answer = astray
    said = await scene.bundle(ends=4)
    assert "which is this machine or its own link" in said.err


@pytest.mark.parametrize(
    "manifest",
    [b"[]", b"{}", b'{"config": {}, "layers": []}', b"\xff", b'{"manifests": 1}'],
    ids=lambda text: repr(text)[:20],
)
async def test_a_manifest_that_is_none_is_refused(scene: Scene, manifest: bytes) -> None:
    scene.blobs[digest(manifest)] = manifest
    said = await scene.bundle(ends=2 if b"manifests" in manifest else 4, manifest=manifest)
    assert "Traceback" not in said.err
