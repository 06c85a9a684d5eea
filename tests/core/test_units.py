"""What is due for a unit, and whether it stays up: the cases that no systemd can be brought into at will."""

from __future__ import annotations

import attrs
import pytest
from pydantic import ValidationError

from harmony_core.change import NotReady
from harmony_core.resources import Activating, Active, Failed, Inactive, SystemdUnit
from harmony_core.steps import Left, Restarted
from harmony_pi_topology.systemd.health_rules import (
    Broken,
    describe_end,
    describe_job_end,
    evaluate_health,
)
from harmony_pi_topology.systemd.plan import (
    Steps,
    check_desired,
    diff_unit,
    plan_removal,
    predict_state,
    read_install_lines,
)
from harmony_pi_topology.systemd.records import ABSENT, ITS_FILE, FoundUnit, UnitRecord, digest
from harmony_pi_topology.systemd.unit_plan import UnitPlan, plan_unit

CONTENT = "[Service]\nExecStart=/usr/bin/web\n"
WEB = SystemdUnit(name="web.service", content=CONTENT, enabled=None, settle_s=5)
UP = FoundUnit(
    active="active",
    sub="running",
    enablement="static",
    fragment="/etc/systemd/system/web.service",
    invocation="a",
    left_inactive_s=99.0,
    up_since_s=100.0,
    since="2026-01-01T00:01:40.000Z",
)
RUNS = UnitRecord(
    wrote=True,
    started=True,
    loaded=digest(CONTENT.encode()),
    invocation="a",
    started_from={ITS_FILE: digest(CONTENT.encode())},
    up_since_s=100.0,
)


def passed(unit: SystemdUnit, found: FoundUnit, record: UnitRecord | None, **uses: str) -> UnitPlan:
    content = unit.content.encode() if unit.content is not None else None
    return plan_unit(unit, found, record, file=content, as_ours=True, uses=uses)


def restarted(times: int, *, up_since_s: float, up_until_s: float) -> FoundUnit:
    """*UP*, after systemd restarted it by itself."""
    return attrs.evolve(
        UP, invocation="z", restarts=times, up_since_s=up_since_s, up_until_s=up_until_s
    )


@pytest.mark.parametrize("active", ["active", "reloading", "refreshing"])
def test_a_unit_that_serves_meanwhile_is_active(active: str) -> None:
    assert isinstance(attrs.evolve(UP, active=active).state, Active)


@pytest.mark.parametrize("active", ["activating", "deactivating", "maintenance"])
def test_a_unit_on_its_way_is_activating(active: str) -> None:
    assert isinstance(attrs.evolve(UP, active=active).state, Activating)


def test_a_unit_that_runs_without_its_file_is_still_there() -> None:
    assert isinstance(attrs.evolve(UP, load="not-found", enablement="").state, Active)


def test_a_unit_that_failed_is_failed_and_one_that_is_gone_is_none() -> None:
    assert isinstance(FoundUnit(active="failed").state, Failed)
    assert FoundUnit(load="not-found").state is None


@pytest.mark.parametrize(
    ("enablement", "enabled"),
    [
        ("enabled", True),
        ("disabled", False),
        ("enabled-runtime", False),
        ("static", None),
        ("generated", None),
        ("indirect", None),
        ("masked", None),
        ("", None),
    ],
)
def test_enabled_is_what_starts_at_boot_by_its_own_right(
    enablement: str, enabled: bool | None
) -> None:
    assert attrs.evolve(UP, enablement=enablement).enabled is enabled


def test_a_record_is_read_as_it_was_written() -> None:
    assert UnitRecord.read(RUNS.written) == RUNS


def test_a_record_of_a_newer_agent_is_read_as_far_as_it_is_known() -> None:
    assert UnitRecord.read({**RUNS.written, "colour": "red"}) == RUNS
    assert UnitRecord.read({}) == UnitRecord()


def test_nothing_is_due_for_what_is_right() -> None:
    this = passed(WEB, UP, RUNS)
    assert not this.acts
    assert this.after(UP) == RUNS


def test_a_file_that_is_used_no_more_is_no_reason_to_restart() -> None:
    used = attrs.evolve(RUNS, started_from={**RUNS.started_from, "/etc/web.conf": "1"})
    assert not passed(WEB, UP, used).acts


def test_a_file_that_is_newly_used_is_a_reason_to_restart() -> None:
    unit = WEB.model_copy(update={"uses": ("/etc/web.conf",)})
    this = passed(unit, UP, RUNS, **{"/etc/web.conf": ABSENT})
    assert this.steps.in_order == (Restarted(changed=("/etc/web.conf",)),)


def test_what_an_unknown_run_was_started_from_is_noted_before_its_file_is_replaced() -> None:
    """Else a kill between the two would make it look as if it had been started from the new one."""
    by_hand = attrs.evolve(UP, invocation="z")
    changed = WEB.model_copy(update={"content": CONTENT + "# changed\n"})
    this = plan_unit(changed, by_hand, RUNS, file=CONTENT.encode(), as_ours=True, uses={})
    assert this.steps.job == "restart"
    noted = this.noted
    assert noted.invocation == "z"
    assert noted.started_from == {ITS_FILE: digest(CONTENT.encode())}
    assert noted.loaded == ""
    assert passed(changed, by_hand, noted).steps.in_order == (Restarted(changed=("its file",)),)


def test_an_unknown_run_counts_as_started_from_what_we_were_about_to_start_it_from() -> None:
    wish = {ITS_FILE: digest(CONTENT.encode()), "/etc/web.conf": "2"}
    before = attrs.evolve(RUNS, started_from={**wish, "/etc/web.conf": "1"})
    ours = attrs.evolve(before, starting_from=wish)
    by_us = attrs.evolve(UP, invocation="z")
    unit = WEB.model_copy(update={"uses": ("/etc/web.conf",)})
    this = passed(unit, by_us, ours, **{"/etc/web.conf": "2"})
    assert this.steps.in_order == ()
    assert this.after(by_us).started_from == wish
    in_doubt = passed(unit, by_us, before, **{"/etc/web.conf": "2"})
    assert in_doubt.steps.in_order == (Restarted(changed=("/etc/web.conf",)),)


def test_what_was_disabled_with_a_unit_is_given_back_after_a_kill_in_between() -> None:
    cut_short = attrs.evolve(RUNS, giving_back={"web.socket": True})
    this = passed(WEB, UP, cut_short)
    assert this.acts
    assert this.giving_back == {"web.socket": True}
    assert this.noted.giving_back == {"web.socket": True}
    assert this.after(UP).giving_back == {}


def test_of_what_a_unit_names_besides_only_what_we_enabled_goes_with_it() -> None:
    ours = attrs.evolve(RUNS, enabled=True, also_before={"a.socket": False, "b.socket": True})
    now = {"a.socket": True, "b.socket": True, "c.socket": True, "d.socket": False}
    wanted = {"a.socket": False, "b.socket": True, "c.socket": True, "d.socket": False}
    assert ours.also_wanted(now) == wanted
    assert attrs.evolve(ours, enabled=False).also_wanted(now)["a.socket"]


def test_a_reload_that_was_never_noted_is_made_up_for_without_a_word() -> None:
    this = passed(WEB, UP, attrs.evolve(RUNS, loaded=""))
    assert this.reloads
    assert this.acts
    assert this.steps.in_order == ()


def test_a_unit_that_is_being_stopped_is_not_stopped_twice_nor_started() -> None:
    stopping = attrs.evolve(UP, active="deactivating", has_job=True)
    assert not passed(WEB, stopping, RUNS).steps
    assert not passed(WEB.model_copy(update={"state": "stopped"}), stopping, RUNS).steps
    assert isinstance(evaluate_health(WEB, stopping, RUNS, now_s=200), NotReady)


def test_a_unit_whose_start_waits_for_others_is_not_started_twice() -> None:
    waiting = FoundUnit(has_job=True, enablement="static")
    assert not passed(WEB, waiting, RUNS).steps
    verdict = evaluate_health(WEB, waiting, RUNS, now_s=200)
    assert isinstance(verdict, NotReady)
    assert verdict.reason == "Progressing"


def test_a_wish_to_be_disabled_is_met_by_what_cannot_be_enabled() -> None:
    assert not passed(WEB.model_copy(update={"enabled": False}), UP, RUNS).steps


def test_an_up_to_date_service_has_settled_after_its_time() -> None:
    assert isinstance(evaluate_health(WEB, UP, RUNS, now_s=104.9), NotReady)
    assert evaluate_health(WEB, UP, RUNS, now_s=105) is None


def test_restarted_once_soon_after_its_start_it_is_broken() -> None:
    verdict = evaluate_health(WEB, restarted(1, up_since_s=104, up_until_s=103), RUNS, now_s=105)
    assert isinstance(verdict, Broken)
    assert "restarted it 1 times" in verdict.how


def test_restarted_once_after_it_had_settled_it_settles_again() -> None:
    found = restarted(1, up_since_s=204, up_until_s=203)
    assert isinstance(evaluate_health(WEB, found, RUNS, now_s=205), NotReady)
    assert evaluate_health(WEB, found, RUNS, now_s=210) is None


def test_restarted_several_times_since_the_last_look_it_is_broken_unless_it_settled() -> None:
    found = restarted(2, up_since_s=304, up_until_s=303)
    assert isinstance(evaluate_health(WEB, found, RUNS, now_s=305), Broken)
    assert evaluate_health(WEB, found, RUNS, now_s=309) is None


def test_restarted_before_it_was_ever_seen_up_it_is_broken() -> None:
    never_up = attrs.evolve(RUNS, up_since_s=0.0)
    found = restarted(1, up_since_s=304, up_until_s=303)
    assert isinstance(evaluate_health(WEB, found, never_up, now_s=305), Broken)


def test_restarted_by_somebody_it_settles_again() -> None:
    by_hand = attrs.evolve(UP, invocation="z", up_since_s=104.0, up_until_s=103.0)
    assert isinstance(evaluate_health(WEB, by_hand, RUNS, now_s=105), NotReady)
    assert isinstance(evaluate_health(WEB, by_hand, UnitRecord(), now_s=105), NotReady)


def test_about_to_be_restarted_it_is_broken_if_it_had_not_settled() -> None:
    ended = attrs.evolve(UP, active="activating", sub="auto-restart", result="exit-code")
    soon = attrs.evolve(ended, up_until_s=101.0)
    late = attrs.evolve(ended, up_until_s=200.0)
    assert isinstance(evaluate_health(WEB, soon, RUNS, now_s=201), Broken)
    assert isinstance(evaluate_health(WEB, late, RUNS, now_s=201), NotReady)
    assert isinstance(evaluate_health(WEB, attrs.evolve(late, restarts=2), RUNS, now_s=201), Broken)


def test_a_start_that_systemd_repeats_is_compared_with_what_was_up_before() -> None:
    again = attrs.evolve(UP, active="activating", sub="start", invocation="b", restarts=1)
    assert passed(WEB, again, RUNS).after(again) == RUNS
    first = attrs.evolve(again, restarts=0)
    assert passed(WEB, first, RUNS).after(first).invocation == "b"


@pytest.mark.parametrize(
    ("found", "how"),
    [
        (
            FoundUnit(result="exit-code", exit_status=3, up_since_s=100, up_until_s=100.14),
            "failed 0.1 s after its start (exit-code, status 3)",
        ),
        (
            FoundUnit(result="exit-code", exit_status=203, left_inactive_s=50),
            "failed (exit-code, status 203: its program could not be run)",
        ),
        (
            FoundUnit(result="exit-code", exit_status=217, left_inactive_s=50),
            "failed (exit-code, status 217: its user does not exist)",
        ),
        (FoundUnit(up_since_s=100, up_until_s=101), "ended 1.0 s after its start (success)"),
        (
            FoundUnit(conditions_met=False),
            "was not started, since a Condition…= of its unit file is not met",
        ),
        (FoundUnit(result="oom-kill", conditions_met=False), "failed (oom-kill)"),
    ],
)
def test_how_a_unit_ended_is_told_in_words(found: FoundUnit, how: str) -> None:
    assert describe_end(found) == how


@pytest.mark.parametrize(
    ("result", "how"),
    [
        ("failed", "could not be started (failed)"),
        ("timeout", "did not start within the time that systemd gives it"),
        ("assert", "could not be started (assert)"),
    ],
)
def test_how_a_job_ended_is_told_in_words(result: str, how: str) -> None:
    assert describe_job_end(result, FoundUnit()) == how


@pytest.mark.parametrize(
    ("name", "sub"),
    [
        ("web.service", "running"),
        ("web.socket", "listening"),
        ("web.timer", "waiting"),
        ("web.path", "waiting"),
        ("web.target", "active"),
        ("web.slice", "active"),
        ("srv-web.mount", "mounted"),
    ],
)
def test_each_kind_of_unit_is_up_in_its_own_way(name: str, sub: str) -> None:
    unit = SystemdUnit(name=name, enabled=None)
    state = predict_state(unit, FoundUnit(), Steps(job="start"), now="now")
    assert isinstance(state, Active)
    assert state.sub == sub


def test_a_template_may_be_written_and_is_expected_to_be_there() -> None:
    unit = SystemdUnit(name="web@.service", content=CONTENT, enabled=None, state="stopped")
    this = plan_unit(unit, FoundUnit(load="not-found"), None, file=None, as_ours=False, uses={})
    assert this.steps == Steps(write="create")
    assert isinstance(this.preview(now="now").after, Inactive)


def test_what_nobody_wants_to_run_need_not_exist() -> None:
    unit = SystemdUnit(name="web.service", enabled=False, state="stopped")
    check_desired(unit, FoundUnit(load="not-found"))


def test_only_its_install_section_says_where_a_unit_is_linked_from() -> None:
    text = (
        "[Unit]\nWantedBy=a.target\n[Install]\n# WantedBy=b.target\n WantedBy = c.target\nAlso=d\n"
    )
    assert read_install_lines(text) == ["WantedBy = c.target"]


def test_what_is_too_long_is_not_compared_line_by_line() -> None:
    unit = WEB.model_copy(update={"content": CONTENT + "# \n" * 10_000})
    assert diff_unit(unit, CONTENT.encode(), Steps(write="replace")) is None


def test_what_was_started_or_enabled_by_others_is_not_undone() -> None:
    theirs = UnitRecord(existed=True, was_active=True, was_enabled=True, wrote=True, enabled=True)
    due = plan_removal(
        attrs.evolve(UP, enablement="enabled"), theirs, file=CONTENT.encode(), backup=None
    )
    assert due.in_order == (Left("it was there before"),)


@pytest.mark.parametrize("line", ["[Unit", " [Unit", "[Install] WantedBy=x"])
def test_a_section_that_does_not_end_is_refused_since_systemd_reads_no_such_file(line: str) -> None:
    text = f"[Service]\nExecStart=/usr/bin/true\n{line}\n"
    with pytest.raises(ValidationError, match="begins a section"):
        SystemdUnit(name="web.service", content=text)


@pytest.mark.parametrize("line", ["# [Unit", "[Unit]", "ExecStart=/usr/bin/test \\\n[ -e x"])
def test_what_begins_no_section_is_taken_as_it_is(line: str) -> None:
    text = f"[Service]\n{line}\n"
    assert SystemdUnit(name="web.service", content=text).content == text
