"""NetworkManager as the daemon behind `NetworkReconciler`: what each verb is over D-Bus.

Profiles are written with all that they have, secrets included, since what is left out would be lost. A write
never applies anything by itself, and does not bring a wired profile up that is not in use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from types import MappingProxyType
from typing import Final, TypeVar

from sdbus.dbus_exceptions import DbusFailedError
from sdbus.exceptions import SdBusBaseError

from harmony_core.errors import NetworkFailed
from harmony_pi_topology.common.dbus import error_name

from .daemon import CheckpointTaken
from .link_settings import MADE
from .nm_bus import NetworkBus, NetworkLink
from .nm_dbus import NO_OBJECT, RawSettings
from .nm_look import active_path, device_path, look, profile_path, whole
from .nm_settings import from_bytes, merge, read_known, read_secrets, to_bytes
from .records import FoundNetwork
from .settings import Secrets, Settings

__all__ = ["NetworkManagerDaemon"]

_TO_DISK: Final = 0x1
_IN_MEMORY: Final = 0x2
_BLOCK_AUTOCONNECT: Final = 0x20
_NO_REAPPLY: Final = 0x40

_MODULES: Final[Mapping[str, str]] = MappingProxyType(
    {"vlan": "8021q", "bridge": "bridge", "bond": "bonding", "wireguard": "wireguard"}
)
"""Of the kernel, by the type of a link whose interface it makes."""

T = TypeVar("T")


class NetworkManagerDaemon:
    """A `NetworkDaemon` over D-Bus."""

    def __init__(self, bus: NetworkBus) -> None:
        self._bus = bus

    async def look(self, name: str, uuid: str, interface: str | None) -> FoundNetwork:
        return await self._bus.ask(
            f"looking at the network profile {name}",
            lambda link: look(link, name, uuid, interface),
        )

    async def add(
        self, uuid: str, name: str, settings: Settings, secrets: Secrets, *, keep: bool
    ) -> None:
        raw = merge({}, settings, secrets, name=name, uuid=uuid)
        await self._bus.ask(
            f"cannot make the network profile {name}",
            lambda link: link.settings.add_connection2(raw, _flags(keep) | _quiet(raw), {}),
        )

    async def change(self, uuid: str, settings: Settings, secrets: Secrets, *, keep: bool) -> None:
        async def change(link: NetworkLink) -> None:
            path = await _there(link, uuid)
            raw = merge(await whole(link, path), settings, secrets)
            await _write(link, path, raw, uuid, keep=keep)

        await self._bus.ask("cannot change a network profile", change)

    async def delete(self, uuid: str) -> None:
        async def delete(link: NetworkLink) -> None:
            path = await profile_path(link, uuid)
            if path is not None:
                await link.profile(path).delete()

        await self._bus.ask("cannot remove a network profile", delete)

    async def activate(self, uuid: str, interface: str | None) -> None:
        async def activate(link: NetworkLink) -> None:
            path = await _there(link, uuid)
            raw = await link.profile(path).get_settings()
            device = NO_OBJECT
            if interface is not None and raw["connection"]["type"][1] not in MADE:
                device = await device_path(link, interface) or NO_OBJECT
            try:
                await link.manager.activate_connection(path, device, NO_OBJECT)
            except SdBusBaseError as error:
                _refuse_unknown_type(raw, error)
                raise

        await self._bus.ask("cannot bring up a network profile", activate)

    async def apply(self, uuid: str) -> bool:
        async def apply(link: NetworkLink) -> bool:
            active = await active_path(link, uuid)
            devices = await link.active(active).devices if active is not None else []
            if not devices:
                return False
            return await _well(link.device(devices[0]).reapply({}, 0, 0))

        return await self._bus.ask("cannot apply a network profile", apply)

    async def deactivate(self, uuid: str) -> None:
        async def deactivate(link: NetworkLink) -> None:
            active = await active_path(link, uuid)
            if active is not None:
                await _well(link.manager.deactivate_connection(active))

        await self._bus.ask("cannot take down a network profile", deactivate)

    async def snapshot(self, uuid: str) -> bytes:
        async def snapshot(link: NetworkLink) -> bytes:
            return to_bytes(await whole(link, await _there(link, uuid)))

        return await self._bus.ask("cannot keep a network profile", snapshot)

    async def restore(self, snapshot: bytes, *, keep: bool) -> None:
        raw = from_bytes(snapshot)
        uuid = str(raw["connection"]["uuid"][1])

        async def restore(link: NetworkLink) -> None:
            path = await profile_path(link, uuid)
            if path is None:
                await link.settings.add_connection2(raw, _flags(keep) | _quiet(raw), {})
            else:
                await _write(link, path, raw, uuid, keep=keep)

        await self._bus.ask("cannot put back a network profile", restore)

    def settings_in(self, snapshot: bytes) -> Settings:
        return read_known(from_bytes(snapshot))

    def secrets_in(self, snapshot: bytes) -> Mapping[str, str]:
        return read_secrets(from_bytes(snapshot))

    async def checkpoint(self, interfaces: Collection[str], *, within_s: int) -> str:
        async def checkpoint(link: NetworkLink) -> str | None:
            devices = await _devices_of(link, interfaces)
            try:
                path = await link.manager.checkpoint_create(devices, within_s, 0)
            except SdBusBaseError as error:
                if "already included in checkpoint" in str(error):
                    return None
                raise
            return await _name_checkpoint(link, path)

        made = await self._bus.ask("cannot make a checkpoint of the network", checkpoint)
        if made is None:
            raise CheckpointTaken
        return made

    async def waits(self, checkpoint: str) -> bool:
        return await self._bus.ask(
            "looking at checkpoints", lambda link: _is_there(link, checkpoint)
        )

    async def commit(self, checkpoint: str) -> bool:
        return await self._of_checkpoint(
            "cannot confirm a change of the network",
            checkpoint,
            lambda link, path: link.manager.checkpoint_destroy(path),
        )

    async def roll_back(self, checkpoint: str) -> None:
        await self._of_checkpoint(
            "cannot take back a change of the network",
            checkpoint,
            lambda link, path: link.manager.checkpoint_rollback(path),
        )

    async def _of_checkpoint(
        self, what: str, checkpoint: str, ask: Callable[[NetworkLink, str], Awaitable[object]]
    ) -> bool:
        """Ask about *checkpoint*. Return False when it does not exist any more."""

        async def ask_forgiving(link: NetworkLink) -> bool:
            if not await _is_there(link, checkpoint):
                return False
            try:
                await ask(link, _path_of(checkpoint))
            except SdBusBaseError as error:
                if error_name(error).endswith(".InvalidArguments"):
                    return False
                raise
            return True

        return await self._bus.ask(what, ask_forgiving)


def _refuse_unknown_type(raw: RawSettings, error: SdBusBaseError) -> None:
    """Raise `NetworkFailed`, with an explanation, where the kernel cannot make the interface of *raw*."""
    kind = raw["connection"]["type"][1]
    if kind in _MODULES and "Operation not supported" in str(error):
        interface = raw["connection"].get("interface-name", ("s", ""))[1]
        module = _MODULES[kind]
        raise NetworkFailed(
            f"the kernel of this device makes no interface of the type {kind}, which {interface} is to be; "
            f"see on the device why it has no module for it: modprobe {module}"
        ) from error


async def _name_checkpoint(link: NetworkLink, path: str) -> str:
    """Return the name of the checkpoint at *path*. Do not use the path alone: a daemon that was restarted
    gives it to its next checkpoint, which may be somebody else's."""
    return f"{path} {await link.checkpoint(path).created}"


def _path_of(checkpoint: str) -> str:
    return checkpoint.partition(" ")[0]


async def _is_there(link: NetworkLink, checkpoint: str) -> bool:
    path = _path_of(checkpoint)
    if path not in await link.manager.checkpoints:
        return False
    # An agent from before has noted the path alone.
    return checkpoint in {path, await _name_checkpoint(link, path)}


async def _there(link: NetworkLink, uuid: str) -> str:
    path = await profile_path(link, uuid)
    if path is None:
        raise NetworkFailed("the network profile was removed meanwhile; it is made again later")
    return path


async def _write(link: NetworkLink, path: str, raw: RawSettings, uuid: str, *, keep: bool) -> None:
    in_use = await active_path(link, uuid) is not None
    flags = _flags(keep) | _NO_REAPPLY | (0 if in_use else _quiet(raw))
    await link.profile(path).update2(raw, flags, {})


async def _devices_of(link: NetworkLink, interfaces: Collection[str]) -> list[str]:
    """Return the devices of *interfaces*, and the ports of the bridges among them."""
    found = list[str]()
    for name in sorted(interfaces):
        path = await device_path(link, name)
        # One that is not there yet is named by its profile all the same.
        if path is not None and await link.device(path).state > 0:
            found += [path, *await link.device(path).ports]
    if not found:
        # None would stand for all of them.
        raise NetworkFailed(f"this device has no network interface {', '.join(interfaces)}")
    return list(dict.fromkeys(found))


async def _well(call: Awaitable[object]) -> bool:
    """Return whether NetworkManager carried out *call*. Still raise a failure of the bus."""
    try:
        await call
    except DbusFailedError:
        return False
    except SdBusBaseError as error:
        if not error_name(error):
            raise
        return False
    return True


def _flags(keep: bool) -> int:
    return _TO_DISK if keep else _IN_MEMORY


def _quiet(raw: RawSettings) -> int:
    """Return the flag that keeps a wired profile or an access point from being activated because it was
    written; 0 for a Wi-Fi client, whose network may be what is waited for."""
    mode = raw.get("802-11-wireless", {}).get("mode", ("s", "infrastructure"))[1]
    waited_for = raw["connection"]["type"][1] == "802-11-wireless" and mode != "ap"
    return 0 if waited_for else _BLOCK_AUTOCONNECT
