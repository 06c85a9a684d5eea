"""Watching, for those who bring a reconciler of their own, and for those who test with fakes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from harmony_core.change import Change
from harmony_core.reconciler import Availability, Reconciler, Unwatched
from harmony_core.resources import File, PresentAt
from harmony_core.testing import FakeContainers, FakeFiles, FakePi, FakeSystemd, Hearer


class Silent(Unwatched):
    """A reconciler of something that tells nobody when it changes."""

    @property
    def resource_class(self) -> type[File]:
        return File

    async def converge(
        self, resources: Sequence[File], *, apply: bool
    ) -> Sequence[Change | Exception]:
        return []

    async def observe(self, key: str) -> PresentAt | None:
        return None

    async def remove(self, keys: Sequence[str], *, apply: bool) -> Sequence[Change | Exception]:
        return []

    async def availability(self) -> Availability:
        return Availability(available=True)


async def test_what_cannot_be_watched_is_a_reconciler_all_the_same() -> None:
    silent: Reconciler[File, PresentAt] = Silent()
    told = Hearer()
    await silent.watch(["/etc/motd"], told)
    await silent.close()
    assert told.heard == []


@pytest.mark.parametrize("fake", [FakeFiles, FakeSystemd, FakeContainers])
async def test_a_fake_that_loses_events_says_that_all_may_have_changed(
    fake: type[FakeFiles | FakeSystemd | FakeContainers],
) -> None:
    reconciler, told = fake(), Hearer()
    reconciler.lose_events()
    await reconciler.watch(["it"], told)
    reconciler.lose_events()
    assert told.heard == [None]
    await reconciler.close()
    reconciler.lose_events()
    assert told.heard == [None]


async def test_what_is_written_to_a_device_s_files_is_told_to_whoever_uses_them() -> None:
    pi, files, units = FakePi(), Hearer(), Hearer()
    path = "/etc/systemd/system/web.service"
    await pi.files.watch([path], files)
    await pi.systemd.watch(["web.service", "db.service"], units)
    pi.files.write(path, b"[Service]\n")
    assert files.heard == [path]
    assert units.heard == ["web.service"]


async def test_a_test_that_waits_for_what_is_not_told_fails_in_words() -> None:
    told = Hearer(within_s=0.01)
    told("other")
    with pytest.raises(AssertionError, match=r"not told of it, only of \['other'\]"):
        await told.hears("it")
