"""One network profile on its way through one converge: what was found, what is due, what has been done.

    plan_profile -> steps due? -> noted (a record, before any effect) -> … -> wrote (a record, at the end)

Shared by every reconciler of profiles. Killed between any two steps, the next call finds from the record
and the daemon what is still due.
"""

from __future__ import annotations

from typing import Final

import attrs

from harmony_core.change import Change, NotReady
from harmony_core.errors import DidNotStick
from harmony_core.resources import Ethernet, NetworkProfile, Vlan

from .desired import DesiredProfile
from .link_settings import MADE
from .plan import NetworkSteps, check_desired, diff_profile, plan_steps, predict_state
from .records import FoundNetwork, FoundProfile, NetworkRecord
from .settings import (
    DEFAULTS,
    Secrets,
    Settings,
    describe_setting,
    differences,
    find_other_secrets,
)

__all__ = ["NetworkPlan", "plan_profile"]

_RANKS: Final = {"bridge": 0, "bond": 0, "ethernet": 1, "wifi": 1, "vlan": 2, "wireguard": 2}
"""By the type of a link: lower ones are stood on by higher ones."""


@attrs.frozen(kw_only=True)
class NetworkPlan:
    """Made by `plan_profile`, which has looked at nothing itself."""

    desired: DesiredProfile
    found: FoundNetwork
    record: NetworkRecord
    before: Settings
    """What a profile said that was taken over."""
    steps: NetworkSteps

    @property
    def profile(self) -> NetworkProfile:
        return self.desired.profile

    @property
    def id(self) -> str:
        return self.desired.profile.id

    @property
    def uuid(self) -> str:
        return self.record.uuid

    @property
    def there(self) -> FoundProfile | None:
        return self.found.profile

    @property
    def is_on_trial(self) -> bool:
        return self.record.trial is not None and self.record.trial.spec == self.desired.attempt

    @property
    def is_risky(self) -> bool:
        """Whether it might cut the device off, as far as is known."""
        proven = self.is_proven and not self.steps.change_secrets
        return self.steps.bring_up is not None and not proven

    @property
    def is_proven(self) -> bool:
        """Whether the device was once reached through these settings."""
        return self.record.confirmed == self.desired.spec

    @property
    def proves_itself(self) -> bool:
        """Whether it is in use as desired, whoever activated it, and a connection would prove it."""
        there = self.there
        if there is None or there.use != "up" or there.missing_addresses:
            return False
        return not self.steps and not self.is_on_trial and not self.is_proven

    @property
    def is_short_of_its_wish(self) -> bool:
        """Whether it is not on disk as desired, since it is not proven."""
        there = self.there
        if there is None or not there.saved:
            return True
        return bool(differences(there.settings, self.desired.settings, DEFAULTS))

    @property
    def has_to_wait(self) -> bool:
        """Whether its change could be written now, but not be tried, while what it replaces may still be
        needed."""
        there = self.there
        if there is None or not self.steps or self.is_proven or self.steps.bring_up is not None:
            return False
        return there.use != "up" and (there.use != "down" or self.profile.is_to_be_up)

    @property
    def is_fresh(self) -> bool:
        """Whether there is no earlier state that it could go back to."""
        if self.there is None:
            return True
        return self.record.made and not self.record.wrote and not self.there.saved

    @property
    def is_unmade(self) -> bool:
        """Whether its interface is made together with it, and does not exist yet."""
        there = self.there
        return (
            self.profile.link.type in MADE
            and self.is_fresh
            and (there is None or there.use != "up")
        )

    @property
    def rank(self) -> int:
        """The place in the order of activation: what others depend on comes first."""
        return _RANKS[self.profile.link.type]

    @property
    def interface(self) -> str | None:
        """The name of the interface that it is for; None for any suitable one."""
        return self.found.interface.name or None

    @property
    def interfaces(self) -> frozenset[str]:
        """The names of all interfaces whose use may change."""
        link = self.profile.link
        names = {self.interface, self.there.interface if self.there is not None else None}
        match link:
            case Ethernet(controller=controller):
                names.add(controller)
            case Vlan(parent=parent):
                names.add(parent)
            case _:
                pass
        return frozenset(name for name in names if name)

    @property
    def secrets(self) -> Secrets:
        """The secrets, where they are to be written."""
        due = self.steps.create or self.steps.change_secrets
        return self.desired.secrets if due else {}

    @property
    def wrote(self) -> NetworkRecord:
        """The record after its steps."""
        wrote = {**self.record.wrote, **self.steps.write}
        return attrs.evolve(
            self.record,
            wrote={name: wrote[name] for name in self.desired.settings if name in wrote},
            within_s=self.profile.confirm_within_s,
            left=False,
        )

    def find_what_did_not_stick(
        self, found: FoundNetwork, written: Settings, *, on_disk: bool
    ) -> DidNotStick | None:
        """Return the error for the first of the settings *written*, or of the secrets, that *found*, which
        was looked at afterwards, lacks; None where it has all.

        *on_disk* says that the profile must outlive a reboot as well.
        """
        there = found.profile
        if there is None:
            return self._did_not_stick("state", "kept", "nothing")
        if different := differences(there.settings, written, DEFAULTS):
            name = different[0]
            was = there.settings.get(name, DEFAULTS[name])
            return self._did_not_stick(name, describe_setting(written[name]), describe_setting(was))
        for name in find_other_secrets(there.secrets, self.desired.secrets):
            wanted = "none" if self.desired.secrets[name] is None else "as the secret says"
            what = "another secret" if name in there.secrets else "none"
            return self._did_not_stick(name, wanted, what)
        if on_disk and not there.saved:
            return self._did_not_stick("saved", "on disk", "for this boot only")
        return None

    def _did_not_stick(self, field: str, wanted: str, found: str) -> DidNotStick:
        return DidNotStick(
            f"the network profile {self.profile.name}",
            field=field,
            wanted=wanted,
            found=found,
            remedy="ask for what NetworkManager keeps, or look for what changes it; see on the device: "
            f"nmcli connection show '{self.profile.name}'",
            resource=self.id,
        )

    def preview(self) -> Change:
        """Return the change that its steps would make."""
        after = predict_state(self.desired, self.found, self.steps)
        return attrs.evolve(self.change(self.found, None), after=after)

    def put_off(self, pending: NotReady | None) -> Change:
        """Return the change where nothing was done, and *pending* is why."""
        return attrs.evolve(self, steps=NetworkSteps()).change(self.found, pending)

    def change(self, found: FoundNetwork, pending: NotReady | None) -> Change:
        """Return the change that its steps made, where *found* is the present state."""
        return Change(
            resource=self.id,
            steps=self.steps.in_order,
            before=self.there.state if self.there is not None else None,
            after=found.profile.state if found.profile is not None else None,
            diff=diff_profile(self.desired, self.found, self.steps),
            pending=pending,
        )


def plan_profile(
    desired: DesiredProfile, found: FoundNetwork, record: NetworkRecord, before: Settings
) -> NetworkPlan:
    """Plan what makes *found* match *desired*. Raise an error for anything that prevents it."""
    check_desired(desired.profile, found)
    steps = plan_steps(desired, found, record, before)
    return NetworkPlan(desired=desired, found=found, record=record, before=before, steps=steps)
