"""With which credentials a unit is loaded is what systemd says of it: a part of the contract of units."""

from __future__ import annotations

import pytest

from harmony_core.errors import UnitFailed
from harmony_core.resources import SystemdUnit

from .units_under_test import MADE, UnitContract, UnitsUnderTest

__all__ = ["UnitCredentialsContract"]


class UnitCredentialsContract(UnitContract):
    """Needs the fixture `host`."""

    CREDENTIAL = "/run/harmony-contract-token"
    DROP_IN = f"/etc/systemd/system/{UnitContract.NAME}.d/other.conf"

    def with_credential(self) -> SystemdUnit:
        content = self.content().replace(
            "[Install]", f"LoadCredential=token:{self.CREDENTIAL}\n[Install]"
        )
        return self.unit(
            content=content, uses=[self.CREDENTIAL], credentials={"token": self.CREDENTIAL}
        )

    async def test_a_unit_is_started_with_its_credential_and_anew_with_another(
        self, host: UnitsUnderTest
    ) -> None:
        unit = self.with_credential()
        host.bystander.write(self.CREDENTIAL, b"one")
        assert (await host.apply_one(unit)).actions == MADE
        assert (await host.apply_one(unit)).actions == ()
        host.bystander.write(self.CREDENTIAL, b"another")
        changed = (f"restarted: {self.CREDENTIAL} changed",)
        assert (await host.apply_one(unit)).actions == changed
        assert (await host.apply_one(unit)).actions == ()

    async def test_a_unit_whose_credential_is_missing_has_failed_and_says_why(
        self, host: UnitsUnderTest
    ) -> None:
        error = await host.expect_failure(self.with_credential())
        assert isinstance(error, UnitFailed)
        assert "its credentials could not be set up" in error.message
        host.bystander.write(self.CREDENTIAL, b"one")
        await host.apply_one(self.with_credential())

    @pytest.mark.parametrize(
        ("line", "told"), [("", "not at all"), ("token:/etc/hostname", "from /etc/hostname")]
    )
    async def test_a_drop_in_that_takes_a_credential_away_is_told(
        self, host: UnitsUnderTest, line: str, told: str
    ) -> None:
        unit = self.with_credential()
        host.bystander.write(self.CREDENTIAL, b"one")
        host.bystander.write("/etc/hostname", b"pi\n")
        await host.apply_one(unit)
        host.bystander.write(
            self.DROP_IN, f"[Service]\nLoadCredential=\nLoadCredential={line}\n".encode()
        )
        await host.bystander.reload()
        assert (await host.plan_one(unit)).pending is not None
        error = await host.expect_failure(unit)
        assert isinstance(error, UnitFailed)
        assert f"the credential token from {self.CREDENTIAL}" in error.message
        assert told in error.message
        assert self.DROP_IN in error.message
        host.bystander.delete(self.DROP_IN)
        await host.bystander.reload()
        await host.apply_one(unit)
