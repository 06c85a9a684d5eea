"""What `make check` says of the page where npm cannot fetch what builds it."""

from __future__ import annotations

import pytest

from deploy import page


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_a_page_that_cannot_be_compared_is_skipped_aloud_and_fails_in_ci(
    ci: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(page, "install", lambda: False)
    assert page.main(is_check=True) == status
    assert capsys.readouterr().err.startswith("SKIPPED: whether the page is as its sources make it")


def test_a_page_that_cannot_be_built_is_an_error_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(page, "install", lambda: False)
    assert page.main(is_check=False) == 1
    assert "the page was not built" in capsys.readouterr().out
