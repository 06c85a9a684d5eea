"""What this device offers: found by looking, once, when the agent starts.

*Offered* is what is installed here; whether its daemon answers at the moment is asked later, again and
again, by `Reconciler.availability`. A folder (a ``root`` other than /) offers files and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import attrs

from harmony_core.reconciler import (
    AnyReconciler,
    Availability,
    Backups,
    Offers,
    Reachability,
    Records,
)
from harmony_core.stage import Policy
from harmony_core.unexpected import as_harmony_error, without_exit
from harmony_core.wire.actual_state import CapabilityState

__all__ = ["Discovery", "discover", "is_there"]

log = logging.getLogger(__name__)

_THEN = ", and then systemctl restart harmony-agent"
_CLOSED_WITHIN_S = 2.0
_ANSWERS_WITHIN_S = 30.0
"""Longer than any of ours takes to say that it got no answer; shorter than systemd's watchdog waits."""
_OF_A_DEVICE = ("SystemdHost", "JobRunner", "ContainerRuntime", "NetworkConfigurator")
"""What a folder has not."""
_PODMAN_PROGRAMS = ("/usr/bin/podman", "/usr/local/bin/podman")
_NETWORK_MANAGER_PROGRAMS = ("/usr/sbin/NetworkManager", "/usr/bin/NetworkManager")
_NETWORK_MANAGER_IN_USE = (
    "/run/NetworkManager",
    "/etc/systemd/system/multi-user.target.wants/NetworkManager.service",
)
"""It runs, or will."""


@attrs.frozen(kw_only=True)
class Discovery:
    """What is offered, and why the rest is not."""

    offers: Offers
    missing: Mapping[str, str]

    def found(self) -> dict[str, CapabilityState]:
        """What is known at once: before anybody was asked, what is offered counts as available."""
        answered = Availability(available=True)
        return self._states(dict.fromkeys(self.offers, answered))

    async def look(self) -> dict[str, CapabilityState]:
        """Ask every daemon whether it answers now. Bounded; what raises or hangs does not answer."""
        answers = await asyncio.gather(*map(_availability, self.offers.values()))
        return self._states(dict(zip(self.offers, answers, strict=True)))

    async def close(self) -> None:
        """Give up every connection, thread and watch. A daemon that hangs is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSED_WITHIN_S):
                closing = (each.close() for each in self.offers.values())
                for error in await asyncio.gather(*closing, return_exceptions=True):
                    if isinstance(error, BaseException):
                        log.warning("something could not be closed: %r", error)

    def _states(self, answers: Mapping[str, Availability]) -> dict[str, CapabilityState]:
        offered = {name: _state_of(answer) for name, answer in answers.items()}
        absent = {
            name: CapabilityState(offered=False, available=False, reason=reason)
            for name, reason in self.missing.items()
        }
        return {**offered, **absent}


def discover(
    *,
    root: Path,
    secrets_directory: Path,
    podman_url: str,
    records: Records,
    originals: Backups,
    reachability: Reachability,
    policy: Policy,
) -> Discovery:
    """Look at this device. Starts nothing and connects to nothing.

    Each adapter is imported only where it is used: a folder needs no D-Bus library.
    """
    from .common.mounted import MountGuard, OnMounts  # noqa: PLC0415
    from .directories.posix import PosixDirectories  # noqa: PLC0415
    from .files.reconciler import PosixFiles  # noqa: PLC0415

    offers: dict[str, AnyReconciler] = {
        "FileSystemHost": OnMounts(
            PosixFiles(
                str(root),
                records=records,
                originals=originals,
                secrets_directory=str(secrets_directory),
            ),
            MountGuard(str(root), records),
            lambda file: (file.path,),
        ),
        "DirectoryHost": OnMounts(
            PosixDirectories(str(root), records=records),
            MountGuard(str(root), records),
            lambda directory: (directory.path,),
        ),
    }
    missing: dict[str, str] = {}
    if root != Path("/"):
        folder = f"this device is the folder {root}, which offers files and directories only"
        return Discovery(offers=offers, missing=dict.fromkeys(_OF_A_DEVICE, folder))
    if Path("/run/systemd/system").is_dir():
        from .jobs.systemd import SystemdJobs  # noqa: PLC0415
        from .systemd.reconciler import SdbusSystemd  # noqa: PLC0415

        offers["SystemdHost"] = SdbusSystemd(records=records, originals=originals)
        offers["JobRunner"] = SystemdJobs(records=records, policy=policy)
    else:
        no_systemd = "systemd is not what runs this machine (no /run/systemd/system)"
        missing |= dict.fromkeys(("SystemdHost", "JobRunner"), no_systemd)
    if _has_podman(podman_url):
        from .containers.reconciler import PodmanContainers  # noqa: PLC0415

        offers["ContainerRuntime"] = PodmanContainers(podman_url, records=records)
    else:
        missing["ContainerRuntime"] = f"podman is not installed; run: apt install podman{_THEN}"
    if (why_not := _why_no_network_manager()) is None:
        from .network.networkmanager import SdbusNetworkManager  # noqa: PLC0415

        offers["NetworkConfigurator"] = SdbusNetworkManager(
            records=records,
            originals=originals,
            reachability=reachability,
            secrets_directory=str(secrets_directory),
        )
    else:
        missing["NetworkConfigurator"] = why_not
    return Discovery(offers=offers, missing=missing)


def _has_podman(url: str) -> bool:
    socket = Path(url.removeprefix("unix://"))
    return is_there(socket) or any(is_there(Path(program)) for program in _PODMAN_PROGRAMS)


def is_there(path: Path) -> bool:
    """Whether it exists, or lies where whoever asks may not look: then what is asked next says more."""
    try:
        return path.exists() or path.is_symlink()
    except PermissionError:
        return True


def _why_no_network_manager() -> str | None:
    if not any(is_there(Path(program)) for program in _NETWORK_MANAGER_PROGRAMS):
        return (
            "NetworkManager is not installed; run: apt install network-manager, which then looks after "
            f"the network of this device{_THEN}"
        )
    if not any(is_there(Path(path)) for path in _NETWORK_MANAGER_IN_USE):
        return (
            "NetworkManager is installed, but something else looks after the network of this device; "
            f"to change that, run: systemctl enable --now NetworkManager{_THEN}"
        )
    return None


async def _availability(reconciler: AnyReconciler) -> Availability:
    """Ask *reconciler*, which may be a stranger's."""
    try:
        async with asyncio.timeout(_ANSWERS_WITHIN_S):
            return await without_exit(reconciler.availability)
    except TimeoutError:
        return Availability(available=False, reason=f"no answer within {_ANSWERS_WITHIN_S:g} s")
    except Exception as error:  # noqa: BLE001 - one that cannot even be asked must not hide the others
        return Availability(available=False, reason=as_harmony_error(error).message)


def _state_of(answer: Availability) -> CapabilityState:
    return CapabilityState(offered=True, available=answer.available, reason=answer.reason)
