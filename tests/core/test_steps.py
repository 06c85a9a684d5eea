"""Steps are asked by their types and fields, and read as text by people alone."""

from __future__ import annotations

import attrs
import pytest

from harmony_core.change import Change, Changes
from harmony_core.resources import Active, Container, Exited, SystemdUnit
from harmony_core.steps import (
    Changed,
    Created,
    Did,
    Enabled,
    KeptVolume,
    Left,
    Pulled,
    Recreated,
    Removed,
    Renamed,
    Restarted,
    Started,
    Step,
    Wrote,
)

UP = Active(since="2026-01-31T11:58:07.000Z", sub="running", result="success")


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Created(), "created"),
        (Created("its file"), "created its file"),
        (Wrote("its file"), "wrote its file"),
        (Changed("mode", "0600", "0644"), "mode 0600 → 0644"),
        (Removed(), "removed"),
        (Left("it is not empty"), "left: it is not empty"),
        (Renamed("old"), "renamed: it was called old"),
        (Restarted(changed=("a", "b")), "restarted: a, b changed"),
        (Restarted(gone=("/x",)), "restarted: /x is gone"),
        (
            Restarted(changed=("a",), gone=("/x", "/y")),
            "restarted: a changed; /x is gone; /y is gone",
        ),
        (Restarted(is_origin_unknown=True), "restarted: it is not known what it was started from"),
        (Recreated(fields=["user", "image"]), "recreated: image, user changed"),
        (Recreated(is_removal_cut_short=True), "recreated: its removal was cut short"),
    ],
)
def test_a_step_reads_as_it_always_did(step: Step, text: str) -> None:
    change = Change(resource="file:/a", steps=(Did("looked"), step))
    assert change.actions == ("looked", text)


def test_a_change_is_one_by_its_steps() -> None:
    assert not Change(resource="file:/a").changed
    assert Changes.of([Change(resource="file:/a"), Change(resource="b", steps=(Pulled(),))]).changed


@pytest.mark.parametrize(
    "path", ["/etc/a, b", "/etc/a; b changed", "/etc/started", "/etc/x is gone"]
)
def test_no_path_is_taken_for_a_word_of_the_reasons_of_a_restart(path: str) -> None:
    unit = SystemdUnit(name="web.service", uses=(path, "/etc/c"))
    planned = Restarted(changed=(path,), gone=("/etc/d; e changed",))
    (enabled, restart) = unit.preview_steps((Enabled(), planned), UP, {path, "/etc/c"})
    assert enabled == Enabled()
    assert restart == attrs.evolve(planned, changed=(path, "/etc/c"))


def test_what_a_restart_is_planned_for_stays_a_reason_when_a_file_is_one_more() -> None:
    unit = SystemdUnit(name="web.service", uses=("/etc/c",))
    (restart,) = unit.preview_steps((Restarted(is_origin_unknown=True),), UP, {"/etc/c"})
    assert restart == Restarted(changed=("/etc/c",), is_origin_unknown=True)
    assert unit.preview_steps((), UP, {"/etc/c"}) == (Restarted(changed=("/etc/c",)),)
    assert unit.preview_steps((Started(),), UP, {"/etc/c"}) == (Started(),)


def test_no_name_is_taken_for_a_volume_that_is_kept_or_an_image_that_is_pulled() -> None:
    web = Container(name="web", image="registry.test/web:1", uses=("/etc/a",))
    stopped = Exited(exit_code=0, restarts=0, image="registry.test/web:1")
    kept = KeptVolume(name="harmony-web-data-1", target="/data")
    steps = (Renamed("kept it"), Pulled(), Recreated(fields=["image"]), Started(), kept)
    assert web.preview_steps(steps, stopped, {"/etc/a"}) == (
        Renamed("kept it"),
        Pulled(),
        Recreated(fields=["image", "/etc/a"]),
        Started(),
        kept,
    )
