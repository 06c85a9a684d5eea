"""What was wanted, held against what was found afterwards."""

from __future__ import annotations

import pytest

from harmony_core.errors import DidNotStick, PermanentError
from harmony_core.resources import DirectoryAt, NotADirectory, State
from harmony_pi_topology.common.check import did_it_stick

WANTED = DirectoryAt(mode="0700", owner="pi", group="pi")
REMEDY = "ask for another"


def test_what_is_as_wanted_is_answered_with_the_look_itself() -> None:
    found = DirectoryAt(mode="0700", owner="pi", group="pi")
    assert did_it_stick("/srv", WANTED, found, remedy=REMEDY) is found


@pytest.mark.parametrize(
    ("found", "field", "was"),
    [
        (DirectoryAt(mode="0755", owner="pi", group="pi"), "mode", "0755"),
        (DirectoryAt(mode="0700", owner="root", group="pi"), "owner", "root"),
        (NotADirectory(kind="file"), "state", "NotADirectory"),
        (None, "state", "nothing"),
    ],
)
def test_what_differs_is_named_with_what_was_wanted_and_found(
    found: State | None, field: str, was: str
) -> None:
    with pytest.raises(DidNotStick) as caught:
        did_it_stick("/srv", WANTED, found, remedy=REMEDY, resource="directory:/srv")
    error = caught.value
    assert (error.field, error.found, error.resource) == (field, was, "directory:/srv")
    assert all(each in error.message for each in (error.wanted, was, REMEDY))
    assert isinstance(error, PermanentError)


def test_only_the_fields_that_were_asked_for_are_compared() -> None:
    found = DirectoryAt(mode="0755", owner="pi", group="pi")
    assert did_it_stick("/srv", WANTED, found, remedy=REMEDY, fields={"owner"}) is found
