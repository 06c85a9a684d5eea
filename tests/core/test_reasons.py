"""Reasons: what a program says of its own failure is what is told."""

from __future__ import annotations

import pytest

from harmony_core import HasFiles, Inventory, Job, Outcome, Score, Success
from harmony_core.errors import HarmonyError, NotOurs, WriteFailed
from harmony_core.interpretation import interpret
from harmony_core.outcome import Failure
from harmony_core.reasons import reasons_in
from harmony_core.resources import File, Finished
from harmony_core.testing import FakeFiles, inventory, make_stage
from harmony_pi_topology.jobs.words import failure


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ""),
        ("all is lost\n", ""),
        ("reason: a\n", "a"),
        ("reason: old\nsomething\nreason: a\nreason: b\nreason: a\n", "a; b"),
        ("sh[12]: reason: a\nMain process exited, code=exited, status=1/FAILURE\n", "a"),
        ("for this reason: none\n", ""),
        ("reason: \n", ""),
    ],
)
def test_the_last_reasons_are_what_counts(text: str, said: str) -> None:
    assert reasons_in(text) == said


def test_a_job_is_told_to_have_failed_by_its_reason() -> None:
    job = Job(name="it", command=("/bin/false",))
    end = Finished(
        at="", exit_code=1, result="success", sha256="", stdout="a lot\n", stderr="reason: b"
    )
    assert failure(job, end).message == "job it: b"


class Reworded(Score[HasFiles]):
    """Says in its own words what has failed."""

    says: str

    async def interpret(self, inventory: Inventory, topology: HasFiles) -> Outcome:
        try:
            await topology.files.ensure(File(path="/etc/it", content=b""))
        except HarmonyError as error:
            kinds: dict[str, type[HarmonyError]] = {"same": type(error), "other": WriteFailed}
            raise kinds[self.says]("in its own words") from error
        return Success()


@pytest.mark.parametrize(("says", "told"), [("same", "in its own words"), ("other", "as it is")])
async def test_a_score_may_say_what_failed_in_its_own_words_and_not_that_it_is_less(
    says: str, told: str
) -> None:
    files = FakeFiles()
    files.faults["/etc/it"] = NotOurs("as it is")
    verdict = await interpret(
        Reworded(says=says), inventory(), make_stage({"FileSystemHost": files})
    )
    assert isinstance(verdict.outcome, Failure)
    assert (verdict.outcome.error.code, verdict.outcome.error.message) == ("NotOurs", told)
    assert verdict.permanent
