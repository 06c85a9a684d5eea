"""Settings of the host, in memory and by daemons that are served on a private bus: contract and faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError
from sdbus import (
    DbusFailedError,
    DbusInterfaceCommonAsync,
    dbus_method_async_override,
    dbus_property_async_override,
)
from sdbus.dbus_exceptions import DbusInvalidArgsError

from harmony_core import HostSetting
from harmony_core.change import Change
from harmony_core.errors import (
    CapabilityUnavailable,
    DidNotStick,
    InvalidResource,
    TimedOut,
    UnsafePath,
)
from harmony_core.reconciler import MemoryRecords
from harmony_core.testing import (
    FakeHost,
    FakePi,
    HostConfiguratorContract,
    HostUnderTest,
    interpret_twice,
)
from harmony_pi_topology.common.dbus_connection import Connection
from harmony_pi_topology.host.daemons import (
    HOSTNAMED,
    LOCALED,
    TIMEDATED,
    Hostnamed,
    Localed,
    SdbusHost,
    Timedated,
)
from harmony_pi_topology.host.locale_files import value_in
from harmony_scores import HostnameScore, KeyboardScore, LocaleScore, TimezoneScore

from .served_systemd import hang, private_bus

ZONES = "../usr/share/zoneinfo/"


class TestFakeHost(HostConfiguratorContract):
    @pytest.fixture
    def host(self) -> HostUnderTest:
        fake = FakeHost()
        return HostUnderTest(settings=fake, bystander=fake)


class ServedHostnamed(Hostnamed):
    """Writes /etc/hostname below *root*, and is the kernel too."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.file = root / "etc/hostname"
        self.kernel = "raspberrypi"
        self.asked = 0
        self.hangs = self.fails = self.ignores = False

    @dbus_method_async_override()
    async def set_static_hostname(self, hostname: str, interactive: bool) -> None:
        if self.hangs:
            await hang()
        if self.fails:
            raise DbusFailedError("the disk is full")
        if not self.ignores:
            await asyncio.to_thread(self.file.write_text, f"{hostname}\n")
            self.kernel = hostname

    @dbus_method_async_override()
    async def set_hostname(self, hostname: str, interactive: bool) -> None:
        self.kernel = hostname

    @dbus_property_async_override()
    def hostname(self) -> str:
        self.asked += 1
        return self.kernel


class ServedTimedated(Timedated):
    """Makes the link /etc/localtime below *root*."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.link = root / "etc/localtime"
        self.zone = "Europe/London"

    @dbus_method_async_override()
    async def set_timezone(self, timezone: str, interactive: bool) -> None:
        if timezone == "Europe/Nowhere":
            raise DbusInvalidArgsError(f"Invalid or not installed time zone '{timezone}'")
        await asyncio.to_thread(self.link.unlink)
        await asyncio.to_thread(self.link.symlink_to, f"{ZONES}{timezone}")
        self.zone = timezone

    @dbus_property_async_override()
    def timezone(self) -> str:
        return self.zone


class ServedLocaled(Localed):
    """Reads what Debian 13 has below *root*, where each file has two names."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.locale_conf, self.keyboard = root / "etc/locale.conf", root / "etc/default/keyboard"
        (root / "etc/default").mkdir()
        (root / "etc/default/locale").symlink_to("../locale.conf")
        (root / "etc/vconsole.conf").symlink_to("default/keyboard")
        self.locale_conf.write_text("LANG=en_GB.UTF-8\nLC_TIME=en_DK.UTF-8\n")
        self.keyboard.write_text('# theirs\nXKBMODEL="pc105"\nXKBLAYOUT="gb"\nXKBVARIANT=""\n')
        for each in ("C.utf8", "en_GB.utf8"):
            (root / "usr/lib/locale" / each).mkdir(parents=True)
        (root / "usr/lib/locale/locale-archive").write_bytes(b"\x09\0de_DE.utf8\0xx_XX")

    def write(self, name: str, value: str) -> None:
        """As somebody with an editor."""
        if name == "locale":
            self.locale_conf.write_text(f"LANG={value}\n")
        else:
            layout, _, variant = value.removesuffix(")").partition("(")
            self.keyboard.write_text(f"XKBLAYOUT={layout}\nXKBVARIANT={variant}\n")

    def layout(self) -> str:
        return value_in(self.keyboard, "keyboard") if self.keyboard.exists() else ""

    @dbus_property_async_override()
    def locale(self) -> list[str]:
        return self.locale_conf.read_text(errors="replace").split()

    @dbus_property_async_override()
    def x11_layout(self) -> str:
        return self.layout().partition("(")[0]

    @dbus_property_async_override()
    def x11_variant(self) -> str:
        return self.layout().partition("(")[2].removesuffix(")")


class Served:
    """All of them, and a folder that stands for the host."""

    def __init__(self, root: Path, address: str) -> None:
        (root / "etc").mkdir(parents=True)
        (root / "etc/hostname").write_text("# theirs\nraspberrypi\n")
        (root / "etc/localtime").symlink_to(f"{ZONES}Europe/London")
        self.hostnamed, self.timedated = ServedHostnamed(root), ServedTimedated(root)
        self.localed = ServedLocaled(root)
        self.settings = SdbusHost(
            records=MemoryRecords(), address=address, root=str(root), answer_within_s=1.0
        )

    async def set(self, name: str, value: str) -> None:
        if name == "hostname":
            await self.hostnamed.set_static_hostname(value, False)
        elif name == "timezone":
            await self.timedated.set_timezone(value, False)
        else:
            await asyncio.to_thread(self.localed.write, name, value)

    def value(self, name: str) -> str:
        match name:
            case "hostname":
                return self.hostnamed.kernel
            case "timezone":
                return self.timedated.zone
            case "locale":
                return value_in(self.localed.locale_conf, name)
            case _:
                return value_in(self.localed.keyboard, name)

    async def apply(self, value: str) -> Change | Exception:
        wish = HostSetting(name="hostname", value=value)
        (result,) = await self.settings.converge([wish], apply=True)
        return result


@pytest.fixture
async def served(tmp_path: Path) -> AsyncGenerator[Served]:
    async with private_bus(tmp_path) as bus:
        connection = Connection(bus.address, closed=lambda: None)
        it = await asyncio.to_thread(Served, tmp_path / "root", bus.address)
        served: Sequence[tuple[DbusInterfaceCommonAsync, tuple[str, str]]] = [
            (it.hostnamed, HOSTNAMED),
            (it.timedated, TIMEDATED),
            (it.localed, LOCALED),
        ]
        for daemon, (name, path) in served:
            await connection.bus.request_name_async(name, 0)
            daemon.export_to_dbus(path, connection.bus)
        yield it
        await it.settings.close()
        connection.close()


class TestServedHost(HostConfiguratorContract):
    @pytest.fixture
    def host(self, served: Served) -> HostUnderTest:
        return HostUnderTest(settings=served.settings, bystander=served)


async def test_the_daemons_are_asked_once_as_long_as_nothing_changes(served: Served) -> None:
    await served.apply("kiosk-1")
    asked = served.hostnamed.asked
    for _ in range(5):
        change = await served.apply("kiosk-1")
        assert isinstance(change, Change)
        assert not change.changed
    assert (await served.settings.availability()).available
    assert served.hostnamed.asked == asked


async def test_a_name_that_only_the_kernel_was_told_is_put_right(served: Served) -> None:
    await served.apply("kiosk-1")
    served.hostnamed.kernel = "dhcp-7"
    state = await served.settings.observe("hostname")
    assert state is not None
    assert not state.is_ready
    change = await served.apply("kiosk-1")
    assert isinstance(change, Change)
    assert change.actions == ("hostname in force dhcp-7 → kiosk-1",)
    assert served.hostnamed.kernel == "kiosk-1"


async def test_what_a_daemon_does_wrong_is_told(served: Served) -> None:
    served.hostnamed.ignores = True
    error = await served.apply("kiosk-1")
    assert isinstance(error, DidNotStick)
    assert (error.wanted, error.found) == ("kiosk-1", "raspberrypi")
    served.hostnamed.fails = True
    error = await served.apply("kiosk-1")
    assert isinstance(error, CapabilityUnavailable)
    assert "the disk is full" in error.message
    served.hostnamed.hangs = True
    assert isinstance(await served.apply("kiosk-1"), TimedOut)


async def test_every_other_line_stays_and_a_link_is_followed(served: Served) -> None:
    localed = served.localed
    for name, value in (("locale", "de_DE.UTF-8"), ("keyboard", "de(bone)")):
        (done,) = await served.settings.converge(
            [HostSetting.model_validate({"name": name, "value": value})], apply=True
        )
        assert isinstance(done, Change), done
    assert localed.locale_conf.read_text() == "LANG=de_DE.UTF-8\nLC_TIME=en_DK.UTF-8\n"
    assert localed.keyboard.read_text() == (
        '# theirs\nXKBMODEL="pc105"\nXKBLAYOUT="de"\nXKBVARIANT="bone"\n'
    )
    assert (localed.locale_conf.parent / "default/locale").is_symlink()


async def test_where_there_is_no_file_one_is_made(served: Served) -> None:
    served.localed.keyboard.unlink()
    (done,) = await served.settings.converge([HostSetting(name="keyboard", value="us")], apply=True)
    assert isinstance(done, Change)
    assert done.actions == ("keyboard none → us",)
    assert served.localed.keyboard.read_text() == 'XKBLAYOUT="us"\n'


async def test_a_link_out_of_etc_is_not_followed(served: Served, tmp_path: Path) -> None:
    link = tmp_path / "root/etc/locale.conf"
    link.unlink()
    link.symlink_to("/srv/shared/locale.conf")
    (error,) = await served.settings.converge(
        [HostSetting(name="locale", value="C.UTF-8")], apply=True
    )
    assert isinstance(error, UnsafePath)


async def test_a_layout_that_the_device_does_not_have_is_refused(
    served: Served, tmp_path: Path
) -> None:
    symbols = tmp_path / "root/usr/share/X11/xkb/symbols"
    symbols.mkdir(parents=True)
    (symbols / "us").touch()
    wishes = [HostSetting(name="keyboard", value=each) for each in ("us(intl)", "qq")]
    done, error = await served.settings.converge(wishes, apply=True)
    assert isinstance(done, Change)
    assert isinstance(error, InvalidResource)
    assert served.value("keyboard") == "us(intl)"


@pytest.mark.parametrize(
    ("name", "before", "wish"),
    [
        ("keyboard", 'XKBLAYOUT="us,de"\nXKBVARIANT=",nodeadkeys"\n', "us"),
        ("keyboard", 'XKBLAYOUT="qq"\n', "us"),
        ("locale", "LANG=xx_YY.UTF-8\n", "C.UTF-8"),
    ],
)
async def test_what_was_there_before_is_put_back_though_it_could_not_be_wished_for(
    served: Served, tmp_path: Path, name: str, before: str, wish: str
) -> None:
    symbols = tmp_path / "root/usr/share/X11/xkb/symbols"
    symbols.mkdir(parents=True)
    (symbols / "us").touch()
    localed = served.localed
    path = localed.keyboard if name == "keyboard" else localed.locale_conf
    path.write_bytes(b"# M\xfcller\n" + before.encode())
    (done,) = await served.settings.converge(
        [HostSetting.model_validate({"name": name, "value": wish})], apply=True
    )
    assert isinstance(done, Change), done
    assert b"# M\xfcller\n" in path.read_bytes()
    (gone,) = await served.settings.remove([name], apply=True)
    assert isinstance(gone, Change), gone
    assert path.read_bytes() == b"# M\xfcller\n" + before.encode()


async def test_what_was_there_before_and_is_not_taken_any_more_is_left_and_told() -> None:
    host = FakeHost()
    await host.converge([HostSetting(name="timezone", value="Asia/Tokyo")], apply=True)
    host.zones.remove("Europe/London")
    (gone,) = await host.remove(["timezone"], apply=True)
    assert isinstance(gone, Change), gone
    assert gone.actions[0].startswith("left: timezone Europe/London is not taken any more")
    assert host.value("timezone") == "Asia/Tokyo"
    (again,) = await host.remove(["timezone"], apply=True)
    assert isinstance(again, Change)
    assert not again.changed


async def test_without_a_bus_it_is_not_available(tmp_path: Path) -> None:
    host = SdbusHost(records=MemoryRecords(), address=f"unix:path={tmp_path}/none")
    assert not (await host.availability()).available
    await host.close()


async def test_the_scores_set_them_once() -> None:
    pi = FakePi()
    for score in (
        HostnameScore(name="kiosk-1"),
        TimezoneScore(name="Asia/Tokyo"),
        LocaleScore(name="de_DE.UTF-8"),
        KeyboardScore(layout="de(nodeadkeys)"),
    ):
        first, second = await interpret_twice(score, pi.offers)
        assert (first.status, second.status) == ("SUCCESS", "NOOP")
    assert (pi.host.value("hostname"), pi.host.value("timezone")) == ("kiosk-1", "Asia/Tokyo")


@pytest.mark.parametrize("name", ["", "Kiosk", "-a", "a-", "a_b", "a..b", "x" * 65, "a b", "a\n"])
def test_what_is_no_hosts_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="lower-case"):
        HostnameScore(name=name)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/x", "Europe/", "a b", "Europe/x\n"])
def test_what_is_no_time_zones_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="time zone"):
        TimezoneScore(name=name)


@pytest.mark.parametrize("name", ["", "english", "de_de", "../de_DE", "de_DE.UTF-8\n", "x" * 65])
def test_what_is_no_locales_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"en_GB\.UTF-8"):
        LocaleScore(name=name)


@pytest.mark.parametrize("layout", ["", "DE", "de(", "de()", "de(a)(b)", "../de", "de\n", "us,de"])
def test_what_is_no_keyboards_layout_is_refused(layout: str) -> None:
    with pytest.raises(ValidationError, match="write a layout"):
        KeyboardScore(layout=layout)
