"""How a class is rolled out: kept by who says nothing of it, and seen where a folder says something else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_control.plan.folder import read_folder
from harmony_control.plan.model import RolloutSpec
from harmony_control.plan.rollout_words import describe_rollout
from harmony_control.rollout.documents import ClassDocuments, Standing
from harmony_core.errors import UsageError
from harmony_core.plugins import load
from harmony_core.wire.class_manifest import CLASS_TYPE, ClassManifest, Rollout, Window
from harmony_core.wire.envelope import generate_key, seal
from harmony_scores import FileScore

from .ground import Ground, harmony
from .rollout_scene import MOTD, WAVES, Scene, serving_scene

SETTINGS = {
    "canary": "-",
    "steps": "100%",
    "success": "95%",
    "max_unhealthy": "2%",
    "online_min": "50%",
    "deadline": "10m",
    "windows": "always",
    "on_stop": "rollback",
}
"""Of a class of which nothing is said, as a plan shows them."""
CAREFUL = """\
    rollout:
      canary: ring=canary
      steps: [{upto: 1, soak: 1s}, 60%, 100%]
      success: 80%
      max_unhealthy: 7%
      online_min: 25%
      deadline: 15m
      windows: [{begin: "00:00", until: "00:00"}]
      on_stop: stay
"""


@pytest.fixture
async def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Scene]:
    monkeypatch.setattr("harmony_control.rollout.controller.LOOK_AGAIN_S", 0.1)
    async with serving_scene(tmp_path, 3) as scene:
        yield scene


async def read_newest(scene: Scene) -> ClassManifest:
    """Return the class manifest that is rolled out now."""
    documents = await ClassDocuments.open(scene.bus.home, scene.bus.admin)
    return (await documents.read_known("kiosk")).manifest


def words_of(manifest: ClassManifest) -> dict[str, str]:
    return describe_rollout(Standing(rollout=manifest.rollout).upto, manifest.rollout)


async def apply_carefully(scene: Scene) -> dict[str, str]:
    """Make the class as `CAREFUL` says, to its end; return that in words."""
    scene.describe(MOTD % "one", rollout=CAREFUL)
    await (await scene.apply()).order("promote --full")
    words = words_of(await read_newest(scene))
    assert not words.items() & SETTINGS.items()  # each of them is another
    return words


async def test_a_push_to_a_class_changes_of_how_it_is_rolled_out_what_it_names(
    scene: Scene,
) -> None:
    before = await apply_carefully(scene)
    file = scene.folder / "more.yaml"
    file.write_text((MOTD % "more").replace("motd", "note"))
    said = ("push-score", "--class", "kiosk", str(file), "--no-wait", "--no-resolve")
    for more, changed in (
        ((), {}),
        (("--canary", "site=attic"), {"canary": "site=attic"}),
        (("--step", "2:1m", "--step", "50%"), {"steps": "2 soak 1m, 50%, 100%"}),
    ):
        pushed = await harmony(scene.bus.home, *said, *more)
        assert pushed.status == 0, pushed
        before |= changed
        manifest = await read_newest(scene)
        assert words_of(manifest) == before
        assert [each.id for each in manifest.scores] == ["motd", "note"]
        gate = (await scene.fleet.rollout("kiosk").history())[-1]
        assert (gate.state, gate.canary, gate.step) == ("running", before["canary"], 0)
        assert gate.places < 2**32
        await scene.fleet.rollout("kiosk").order("promote --full")


async def test_what_puts_an_aborted_generation_right_comes_by_the_waves_of_that(
    scene: Scene,
) -> None:
    note = FileScore(path="/etc/note", content="x")
    scene.describe(MOTD % "one")
    await (await scene.apply()).order("promote --full")
    await scene.fleet.push_class("kiosk", {"note": note}, upto=[("1", 0)], selector="role")
    await scene.fleet.rollout("kiosk").order("abort")
    # What devices are to have is as before it, and so is who they are; the care is not.
    (change,) = (await scene.plan()).classes
    assert (bool(change.scores), change.selector) == (False, None)
    assert change.rollout == {"steps": ("1, 100%", "100%")}
    await scene.fleet.push_class("kiosk", {"note": note})
    manifest = await read_newest(scene)
    assert (manifest.generation, manifest.supersedes) == (3, 1)
    assert words_of(manifest)["steps"] == "1, 100%"
    assert (await scene.fleet.classes())["kiosk"].selectors[0].selector == "role=kiosk"


async def test_what_puts_the_first_generation_right_comes_by_its_waves(scene: Scene) -> None:
    scene.describe(MOTD % "one", rollout=WAVES)
    await (await scene.apply()).order("abort")
    await scene.fleet.push_class("kiosk", {"motd": FileScore(path="/etc/motd", content="two")})
    assert words_of(await read_newest(scene))["steps"] == "1, 60%, 100%"


async def test_an_aborted_generation_that_nobody_trusted_has_signed_is_in_nobodys_way(
    scene: Scene,
) -> None:
    await apply_carefully(scene)
    await scene.fleet.push_class("kiosk", {}, upto=[("2", 0)])
    rollout = scene.fleet.rollout("kiosk")
    await rollout.order("abort")
    payload = (await read_newest(scene)).payload()
    envelope = seal(payload, generate_key(), payload_type=CLASS_TYPE)
    await scene.bus.bucket("desired-class").put("kiosk.2", envelope)
    assert not await scene.plan()
    await scene.fleet.push_class("kiosk", {})
    assert words_of(await read_newest(scene))["steps"] == "1 soak 1s, 60%, 100%"


async def test_a_class_is_taken_away_by_its_own_waves(scene: Scene) -> None:
    before = await apply_carefully(scene)
    async with asyncio.timeout(20):
        while set((await scene.content()).values()) != {b"one"}:
            await asyncio.sleep(0.05)
    file = scene.folder / "fleet.yaml"
    file.write_text(file.read_text().partition("classes:")[0])
    rollout = await scene.apply(prune=True)
    manifest = await read_newest(scene)
    assert (manifest.scores, words_of(manifest)) == ((), before)
    async with asyncio.timeout(20):
        while list((await scene.content()).values()).count(None) < 1:
            await asyncio.sleep(0.05)
    assert list((await scene.content()).values()).count(b"one") == 2
    await scene.go(rollout)
    assert set((await scene.content()).values()) == {None}


CHANGED = {
    "canary: ring=canary": ("canary", "ring=canary"),
    "steps: [{upto: 10%, soak: 90s}, 100%]": ("steps", "10% soak 90s, 100%"),
    "steps: [{upto: 100%, soak: 1h}]": ("steps", "100% soak 1h"),
    "success: 99.5%": ("success", "99.5%"),
    "max_unhealthy: 5": ("max_unhealthy", "5%"),
    "online_min: 0%": ("online_min", "0%"),
    "deadline: 2h": ("deadline", "2h"),
    'windows: [{days: [mon, tue], begin: "22:00", until: "04:00"}]': (
        "windows",
        "mon,tue 22:00-04:00",
    ),
    "on_stop: stay": ("on_stop", "stay"),
}


async def test_each_setting_of_a_rollout_is_shown_where_it_changes(
    plane: Ground, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    described = "classes:\n  kiosk:\n    selector: role=kiosk\n    rollout:\n      "
    (folder / "fleet.yaml").write_text(f"{described}{{}}\n")
    applied = await plane.harmony("apply", str(folder), "--yes", "--no-wait")
    assert applied.status == 0, applied
    await plane.fleet.rollout("kiosk").order("promote --full")
    assert (await plane.harmony("plan", str(folder))).out == "nothing differs\n"
    assert (
        {name for name, _ in CHANGED.values()} == SETTINGS.keys() == RolloutSpec.model_fields.keys()
    )
    for line, (name, after) in CHANGED.items():
        (folder / "fleet.yaml").write_text(f"{described}{line}\n")
        (change,) = (await plane.fleet.plan(read_folder(folder, load()))).classes
        assert change.rollout == {name: (SETTINGS[name], after)}

    planned = await plane.harmony("plan", str(folder))
    shown = "class kiosk changes, on 0 devices:\n  ~ rollout.on_stop: rollback -> stay\n"
    assert (planned.status, planned.out) == (5, shown)
    (told,) = (await plane.harmony("plan", str(folder), "-o", "json")).documents
    assert told["classes"][0]["rollout"] == {"on_stop": ["rollback", "stay"]}


async def test_settings_alone_are_a_generation_that_changes_nothing_on_a_device(
    scene: Scene,
) -> None:
    scene.describe(MOTD % "one")
    await scene.go(await scene.apply())
    scene.describe(MOTD % "one", rollout=WAVES)
    looks = await scene.go(await scene.apply())
    assert [each.next.step for each in looks if each.next and each.next.state == "running"] == [
        1,
        2,
    ]
    assert not await scene.plan()
    for name in scene.files:
        state = await scene.fleet.device(name).state()
        assert state is not None
        assert state.layers["class:kiosk"].generation == 2
        assert state.scores["motd"].outcome.status == "NOOP"


async def test_waves_that_cannot_be_are_refused_before_anything_is_written(scene: Scene) -> None:
    for steps, told in (
        ("[many]", "'many' is no wave"),
        ("[2, 1]", "as many devices as the one before"),
        (str([f"{each}%" for each in range(1, 34)]), "the rollout of kiosk: steps: "),
        ("[00000000000000001%]", "upto"),
    ):
        scene.describe(MOTD % "one", rollout=f"    rollout: {{steps: {steps}}}\n")
        with pytest.raises(UsageError) as caught:
            await scene.plan()
        assert told in caught.value.message
    scene.describe(MOTD % "one", rollout="    rollout: {canary: ''}\n")
    with pytest.raises(UsageError, match="every device would be a canary"):
        await scene.plan()


async def test_what_cannot_be_of_a_pushed_class_is_refused_in_words(
    plane: Ground, tmp_path: Path
) -> None:
    file = tmp_path / "motd.yaml"
    file.write_text(MOTD % "one")
    for arguments, told in (
        (("--canary", "=="), "cannot be read from character 1"),
        (("--canary", ""), "would be every device of kiosk"),
        (("--canary", " "), "would be every device of kiosk"),
        (("--step", "1%:200d"), "soak_s"),
        (("--step", "many"), "is no wave"),
        (tuple(each for at in range(1, 34) for each in ("--step", str(at))), "steps"),
    ):
        said = ("push-score", "--class", "kiosk", "--selector", "role", str(file), *arguments)
        pushed = await plane.harmony(*said)
        assert (pushed.status, told in pushed.err) == (2, True), pushed
    assert list(await plane.fleet.classes()) == []


PERCENTS = st.floats(min_value=0, max_value=100)
UPTO = st.lists(
    st.tuples(
        st.integers(0, 9).map(str) | st.integers(0, 99).map("{}%".format), st.integers(0, 99_999)
    ),
    max_size=3,
).map(lambda waves: [*waves, ("100%", 0)])
DAYS = st.lists(st.sampled_from(["mon", "tue", "sun"]), min_size=1, max_size=3, unique=True)
TIMES = st.sampled_from(["00:00", "04:30", "22:00"])
WINDOWS = st.builds(Window, days=DAYS.map(tuple), begin=TIMES, until=TIMES)
ROLLOUTS = st.builds(
    Rollout,
    canary=st.sampled_from([None, "", "none", "always", "ring=canary", "ring in (a,b)"]),
    success_percent=PERCENTS,
    unhealthy_percent=PERCENTS,
    online_percent=PERCENTS,
    deadline_s=st.integers(1, 99_999),
    windows=st.lists(WINDOWS, max_size=2).map(tuple),
    on_stop=st.sampled_from(["rollback", "stay"]),
)


Said = tuple[list[tuple[str, int]], Rollout]


def _values(said: Said) -> list[object]:
    """Return what is said, in the order of `SETTINGS`."""
    upto, rollout = said
    return [
        rollout.canary,
        upto,
        rollout.success_percent,
        rollout.unhealthy_percent,
        rollout.online_percent,
        rollout.deadline_s,
        rollout.windows,
        rollout.on_stop,
    ]


@given(one=st.tuples(UPTO, ROLLOUTS), other=st.tuples(UPTO, ROLLOUTS))
def test_each_setting_that_differs_reads_differently(one: Said, other: Said) -> None:
    before, after = describe_rollout(*one), describe_rollout(*other)
    assert list(before) == list(SETTINGS)
    differ = [a != b for a, b in zip(_values(one), _values(other), strict=True)]
    assert [before[name] != after[name] for name in SETTINGS] == differ
