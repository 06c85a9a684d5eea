"""Errors that say whose they are."""

from __future__ import annotations

import pytest

from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    DidNotStick,
    MountMissing,
    UnitFailed,
)
from harmony_pi_topology.common.gather import name_resource

ERRORS = [
    UnitFailed("it failed"),
    CapabilityUnavailable("not now", retry_after_s=3.0),
    MountMissing("nothing is mounted", point="/srv"),
    DidNotStick("/etc/a", field="mode", wanted="0600", found="0755", remedy="ask for that"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_that_several_have_met_says_of_each_whose_it_is(error: CapabilityError) -> None:
    one, other = (name_resource(error, each) for each in ("unit:a.service", "unit:b.service"))
    assert error.resource is None
    for named, resource in ((one, "unit:a.service"), (other, "unit:b.service")):
        assert type(named) is type(error)
        assert vars(named) == {**vars(error), "resource": resource}
        assert str(named) == str(error)


def test_what_says_already_whose_it_is_stays_so() -> None:
    error = UnitFailed("it failed", resource="unit:a.service")
    assert name_resource(error, "unit:b.service") is error
