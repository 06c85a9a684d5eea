"""Fixtures for all tests: above all the Pis in boxes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest

from tests import soak
from tests.box import Bed, Box
from tests.box.layers import Unobtainable, why_no_boxes


def pytest_configure(config: pytest.Config) -> None:
    """A shell's background jobs ignore SIGINT, and what they start does too. Here it must arrive."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(_Workers())


@pytest.fixture(scope="session")
def bed() -> Generator[Bed]:
    """A private network with a registry, for the whole run. Under CI it must be there."""
    if reason := why_no_boxes():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Pi in a box here: {reason}")
    try:
        bed = Bed().__enter__()
    except Unobtainable as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no Pi in a box here: {error}")
    try:
        yield bed
    finally:
        bed.__exit__()


_count = 0


@pytest.fixture(scope="module")
def boot(bed: Bed) -> Generator[Callable[[], Box]]:
    """Boots a fresh Pi each time it is called; they end with the module."""
    booted: list[Box] = []

    def boot() -> Box:
        global _count  # noqa: PLW0603 - names of boxes are unique in a bed
        _count += 1
        booted.append(bed.boot(f"pi-{_count}"))
        return booted[-1]

    yield boot
    for box in booted:
        box.end()


@pytest.fixture(scope="module")
def pi(boot: Callable[[], Box]) -> Box:
    """One fresh Pi for the tests of a module."""
    return boot()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that is no coroutine runs without an event loop; only what is marked soak or security repeats.

    looptime asks for the loop at every test; where none was set, asking makes one that nobody closes.
    """
    if pyfuncitem.get_closest_marker("asyncio") is None:
        asyncio.set_event_loop(None)
    soak.is_marked = any(map(pyfuncitem.get_closest_marker, ("soak", "security", "fleet")))
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer() -> Generator[None, object, object]:
    """Have a test end when its time is up: an event loop swallows what is raised while a callback runs."""
    done = yield
    tell = signal.getsignal(signal.SIGALRM)

    def end(number: int, frame: FrameType | None) -> None:
        assert callable(tell)
        with suppress(RuntimeError):
            asyncio.get_running_loop().stop()
        tell(number, frame)

    signal.signal(signal.SIGALRM, end)
    return done


_A_PART_WITHIN_S = 600
"""A test that takes hours in full does a part in `make test`, and is ended where that hangs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The mark says what the fixtures already know; what is not soaked has no hours to hang in."""
    lasts_s: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        needs_box = bool({"bed", "pi", "boot"} & set(getattr(item, "fixturenames", [])))
        lasts_s[item.path] += _guess_s(item, needs_box=needs_box)
        if needs_box:
            item.add_marker(pytest.mark.box)
            item.add_marker(pytest.mark.timeout(180))
        within = item.get_closest_marker("timeout")
        if within and within.args[0] > _A_PART_WITHIN_S and os.environ.get("HARMONY_SOAK") != "1":
            item.add_marker(pytest.mark.timeout(_A_PART_WITHIN_S), append=False)
    if "PYTEST_XDIST_WORKER" in os.environ:
        # What begins last of all is to keep the other processes waiting no longer than it must.
        items.sort(key=lambda item: (-lasts_s[item.path], item.path))


def _guess_s(item: pytest.Item, *, needs_box: bool) -> float:
    """Guess how many seconds *item* takes: good enough to begin the longest files first."""
    limits_s: list[float] = [mark.args[0] for mark in item.own_markers if mark.name == "timeout"]
    if limits_s:
        return min(*limits_s, _A_PART_WITHIN_S) / 4
    if needs_box:
        return 10 if "fleet" in item.path.parts else 3
    return 1 if item.get_closest_marker("asyncio") else 0.05


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember why boxes were not there. Tell a failure at once: a run that is cut short has no summary."""
    if report.skipped and "no Pi in a box" in report.longreprtext:
        _skipped.append(report.longreprtext)
    if report.failed and os.environ.get("CI") and "PYTEST_XDIST_WORKER" not in os.environ:
        print(
            f"\nFAILED {report.nodeid} ({report.when})\n{report.longreprtext[-4000:]}",
            file=sys.stderr,
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """One of several workers hands over what is told at the end."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["told"] = soak.told


class _Workers:
    """Registered where tests run in several processes."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """One of them has ended, with what it has to tell."""
        output: dict[str, list[str]] = getattr(node, "workeroutput", {})
        soak.told += output.get("told", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly how often the long tests ran, what attacks came to, and whether the boxes were there."""
    for line in soak.told:
        terminalreporter.write_line(line)
    if _skipped:
        terminalreporter.write_line(f"boxes: {len(_skipped)} tests skipped: {_skipped[0]}")
