"""What is to be done about one network profile, as typed steps. Shared by every reconciler of profiles.

    desired, found, remembered -> Steps: create or change, keep, bring up or apply

All of it is a comparison of states: of the profile with what is desired, of what its interface has taken
on with the profile, of the interface's addresses with both. So nothing is lost when the agent is killed
between two steps, and an address that somebody took off an interface comes back.
"""

from __future__ import annotations

from typing import Literal

import attrs

from harmony_core.errors import InvalidResource, NetworkFailed, NotOurs
from harmony_core.resources import Connected, Disconnected, NetworkProfile, NetworkState
from harmony_core.steps import Created, Did, Left, Step, list_due

from .desired import DesiredProfile
from .link_settings import MADE, TYPES
from .records import FoundNetwork, FoundProfile, NetworkRecord
from .settings import (
    BARE,
    DEFAULTS,
    LIVE,
    Setting,
    Settings,
    diff_settings,
    differences,
    find_other_secrets,
)

__all__ = [
    "CONFIRMED",
    "LEFT",
    "NetworkSteps",
    "check_desired",
    "diff_profile",
    "foreign",
    "plan_steps",
    "predict_state",
]

LEFT = Left("it was there before, and somebody has changed it since")
CONFIRMED = Did("confirmed: the control plane was reached anew")


@attrs.frozen(kw_only=True)
class NetworkSteps:
    """What is to be done, in this order."""

    create: bool = False
    change: tuple[str, ...] = ()
    """The settings that differ."""
    change_secrets: tuple[str, ...] = ()
    """The secrets that do."""
    write: Settings = attrs.field(factory=dict[str, Setting])
    """All that is written: those wished for, and those that go back to what they were."""
    keep: bool = False
    """It is right, but would not outlive a reboot."""
    bring_up: Literal["activate", "apply"] | None = None

    def __bool__(self) -> bool:
        return bool(self.in_order)

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of all settings that differ."""
        return (*self.change, *self.change_secrets)

    @property
    def in_order(self) -> tuple[Step, ...]:
        steps: dict[Step, bool] = {
            Created(): self.create,
            Did(f"changed {', '.join(self.changed)}"): bool(self.changed),
            Did("kept"): self.keep,
            Did("brought up"): self.bring_up == "activate",
            Did("applied"): self.bring_up == "apply",
        }
        return list_due(steps)


def check_desired(profile: NetworkProfile, found: FoundNetwork) -> None:
    """Raise an error for anything that prevents *profile*, before anything is changed."""
    there = found.profile.settings.get("connection.type") if found.profile is not None else None
    desired = TYPES[profile.link.type]
    if there not in {None, desired}:
        raise InvalidResource(
            f"the network profile {profile.name} that is there is of type {there}, which cannot be "
            f"changed to {desired}; give the new one another name",
            resource=profile.id,
        )
    _refuse_to_lose_its_place(profile, found)
    if not profile.is_to_be_up or profile.link.type in MADE:
        return
    interface = found.interface
    if interface.readiness == "absent":
        raise NetworkFailed(
            f"this device has no network interface {interface.name}; plug it in, "
            "or name another one",
            resource=profile.id,
        )
    if interface.readiness == "unmanaged":
        raise NetworkFailed(
            f"NetworkManager is told to leave {interface.name} alone on this device; "
            "look for unmanaged-devices in /etc/NetworkManager, or name another interface",
            resource=profile.id,
        )


def _refuse_to_lose_its_place(profile: NetworkProfile, found: FoundNetwork) -> None:
    """Raise `NetworkFailed` where *profile* is in use, but would not be activated again after a reboot:
    nothing has shown that the device can do without it."""
    there = found.profile
    if profile.is_to_be_up or there is None or there.use == "down":
        return
    if not profile.autoconnect or found.interface.name not in {"", there.interface}:
        raise NetworkFailed(
            f"{profile.name} is in use on {there.interface}, and would not be used there again after a "
            "reboot; bring another profile up in its place first",
            resource=profile.id,
        )


def foreign(profile: NetworkProfile, found: FoundNetwork) -> NotOurs:
    """Return the error that a profile of this name, which Harmony did not make, is left alone."""
    what = (
        f"a network profile {profile.name} is there that Harmony did not make"
        if len(found.namesakes) == 1
        else f"{len(found.namesakes)} network profiles {profile.name} are there"
    )
    remedy = (
        "set take_over to true to have it changed, and put back in the end"
        if len(found.namesakes) == 1
        else "rename or remove all but one"
    )
    return NotOurs(f"{what}; {remedy}, or choose another name", resource=profile.id)


def plan_steps(
    desired: DesiredProfile, found: FoundNetwork, record: NetworkRecord, before: Settings
) -> NetworkSteps:
    """Return the steps that make *found* match *desired*. *before* are the settings of a profile that was
    taken over, from before that."""
    profile, there = desired.profile, found.profile
    on_trial = record.trial is not None and record.trial.spec == desired.attempt
    is_proven = record.confirmed == desired.spec and not on_trial
    target = desired.on_trial if on_trial else _settings_without_trial(desired, there, record)
    if there is None:
        up: Literal["activate"] | None = "activate" if profile.is_to_be_up else None
        return NetworkSteps(create=True, write=target, bring_up=up)
    target = {**_give_back(desired, there, record, before), **target}
    changed = differences(there.settings, target, DEFAULTS)
    secrets = find_other_secrets(there.secrets, desired.secrets)
    return NetworkSteps(
        change=changed,
        change_secrets=secrets,
        write=target,
        keep=not there.saved
        and not changed
        and not secrets
        and (is_proven or (there.use == "down" and not on_trial)),
        bring_up=_bring_up(desired, found, target, changed=changed, secrets=secrets),
    )


def _settings_without_trial(
    desired: DesiredProfile, there: FoundProfile | None, record: NetworkRecord
) -> Settings:
    """Return the settings that the profile is to have while it is not on trial."""
    if record.confirmed == desired.spec:
        return desired.settings
    if there is not None and there.use != "down":
        return (
            desired.live
        )  # whether it is used at the next boot remains as it is until it is proven
    return desired.unproven


def _give_back(
    desired: DesiredProfile, there: FoundProfile, record: NetworkRecord, before: Settings
) -> dict[str, Setting]:
    """Return the settings to restore: those that Harmony set, that are no longer desired, and that nobody has
    changed since."""
    if record.made and not record.wrote and not there.saved:
        # It was made `bare`: without addresses, whatever is wished.
        return {name: DEFAULTS[name] for name in BARE if name not in desired.settings}
    return {
        name: before.get(name, DEFAULTS[name])
        for name, value in record.wrote.items()
        if name not in desired.settings and there.settings.get(name, DEFAULTS[name]) == value
    }


def _bring_up(
    desired: DesiredProfile,
    found: FoundNetwork,
    target: Settings,
    *,
    changed: tuple[str, ...],
    secrets: tuple[str, ...],
) -> Literal["activate", "apply"] | None:
    profile, there = desired.profile, found.profile
    assert there is not None
    if there.use == "down":
        ready = found.interface.readiness == "ready" or profile.link.type in MADE
        due = profile.is_to_be_up and ready and not found.settling
        return "activate" if due else None
    if there.use == "going":
        return None
    if found.interface.name not in {"", there.interface}:
        return "activate" if profile.is_to_be_up else None
    if there.use != "up":
        return None  # what it takes on is to be seen once it is
    lacks = bool(there.missing_addresses) and not changed
    live = differences(there.applied, target, LIVE)
    return "apply" if live or secrets or lacks else None


def predict_state(
    desired: DesiredProfile, found: FoundNetwork, steps: NetworkSteps
) -> NetworkState | None:
    """Return the state of *found* after *steps*."""
    there = found.profile
    if not steps:
        return there.state if there is not None else None
    in_use = there is not None and there.use != "down"
    if not (steps.bring_up or in_use):
        return Disconnected(reason="", public_key=desired.public_key)
    now: Settings = there.settings if there is not None else {}
    after = {**now, **steps.write}
    own = [after.get(f"{family}.addresses", ()) for family in ("ipv4", "ipv6")]
    interface = after.get("connection.interface-name") or (
        found.interface.name or (there.interface if there is not None else "")
    )
    gateway = after.get("ipv4.gateway", "")
    return Connected(
        interface=str(interface),
        addresses=tuple(each for some in own if isinstance(some, tuple) for each in some),
        gateway=str(gateway) or (there.gateway if there is not None else None),
        public_key=desired.public_key,
    )


def diff_profile(desired: DesiredProfile, found: FoundNetwork, steps: NetworkSteps) -> str | None:
    """Return the changes of the profile as a diff. It has no secrets, so everybody may read it."""
    before: Settings = found.profile.settings if found.profile is not None else {}
    if not steps.change:
        return None
    return diff_settings(desired.profile.name, before, {**before, **steps.write})
