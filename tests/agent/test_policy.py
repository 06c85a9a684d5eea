"""What a device does not allow, whoever signed it."""

from __future__ import annotations

import pytest

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import JobPolicy, PolicyTable
from harmony_core.claims import NO_VERSION, alike
from harmony_core.needed_packages import is_needed_package
from harmony_core.resources import (
    Asset,
    Bridge,
    Container,
    Directory,
    Download,
    Ethernet,
    File,
    ImageBlob,
    Job,
    Link,
    Mount,
    NetworkProfile,
    Privilege,
    Resource,
    SystemdUnit,
    Vlan,
    Wifi,
)
from harmony_core.secret_values import secret_word

POLICY = DevicePolicy("/etc/harmony", "/opt/harmony", "/var/lib/harmony", "/srv/agent/state")

CLASSES: dict[str, type[Resource]] = {
    each.resource_type: each for each in (File, Directory, SystemdUnit, Container)
}


def opened(*, paths: tuple[str, ...] = (), units: tuple[str, ...] = ()) -> DevicePolicy:
    """The preset open, with what its owner has named."""
    rules = PolicyTable(preset="open", paths=paths, units=units)
    return DevicePolicy("/etc/harmony", rules=rules)


def find_refused(
    resource: File | Directory | SystemdUnit,
    *,
    paths: tuple[str, ...] = (),
    units: tuple[str, ...] = (),
) -> str:
    refusal = opened(paths=paths, units=units).refusal(resource)
    assert refusal is not None
    return refusal


def find_refused_where_units_are(unit: SystemdUnit, pattern: str) -> str:
    rules = PolicyTable.read_text(f'preset = "open"\nunits = ["{pattern}"]\n')
    refusal = DevicePolicy(rules=rules).refusal(unit)
    assert refusal is not None
    return refusal


def find_refused_anywhere(directory: Directory) -> str:
    refusal = DevicePolicy().refusal(directory)
    assert refusal is not None
    return refusal


@pytest.mark.parametrize(
    ("resource_id", "is_refused"),
    [
        ("file:/etc/harmony/agent.toml", True),
        ("directory:/proc/sys", True),
        ("directory:/etc", True),
        ("unit:harmony-agent.service", True),
        ("unit:dbus.service", True),
        ("unit:ssh.service", True),
        ("file:/etc/motd", False),
        ("unit:web.service", False),
        ("container:web", False),
    ],
)
def test_what_may_not_be_touched_may_not_be_taken_away_either(
    resource_id: str, *, is_refused: bool
) -> None:
    resource_class = CLASSES[resource_id.partition(":")[0]]
    assert (POLICY.removal_refusal(resource_id, resource_class) is not None) is is_refused


@pytest.mark.parametrize("interface", ["lo", "podman0", "veth3", "cni-podman0", "docker0"])
@pytest.mark.parametrize("link", [Ethernet, Bridge])
def test_interfaces_of_the_system_and_its_containers_are_refused(
    link: type[Ethernet | Bridge], interface: str
) -> None:
    profile = NetworkProfile(name="office", link=link(interface=interface))
    refusal = POLICY.refusal(profile)
    assert refusal is not None
    assert interface in refusal


@pytest.mark.parametrize(
    "link",
    [
        Ethernet(interface="eth0"),
        Vlan(interface="eth0.7", parent="eth0", id=7),
        Bridge(interface="br0"),
        Wifi(ssid="home"),
        Wifi(ssid="home", interface="wlan0"),
    ],
)
def test_others_may_be_configured(link: Link) -> None:
    assert POLICY.refusal(NetworkProfile(name="office", link=link)) is None


@pytest.mark.parametrize(
    ("allowed", "privileged", "refused"),
    [
        ("none", False, True),
        ("none", True, True),
        ("confined", False, False),
        ("confined", True, True),
        ("any", False, False),
        ("any", True, False),
    ],
)
def test_jobs_are_run_only_where_the_device_says_so(
    allowed: JobPolicy, privileged: bool, refused: bool
) -> None:
    job = Job(name="it", command=("/bin/true",), privileged=privileged)
    rules = PolicyTable(preset="open", jobs=allowed)
    assert (DevicePolicy(rules=rules).refusal(job) is not None) is refused
    assert DevicePolicy().refusal(job) is not None


@pytest.mark.parametrize(
    "name",
    [
        "dbus.service",
        "dbus.socket",
        "dbus-org.freedesktop.login1.service",
        "polkit.service",
        "systemd-journald.service",
        "systemd-journald.socket",
        "systemd-logind.service",
        "systemd-udevd.service",
        "systemd-resolved.service",
        "systemd-fsck@dev-sda1.service",
        "systemd-poweroff.service",
        "init.service",
        "sysinit.target",
        "reboot.target",
        "poweroff.target",
        "runlevel6.target",
        "ctrl-alt-del.target",
        "factory-reset.target",
    ],
)
def test_what_keeps_a_device_running_is_no_score_s_business(name: str) -> None:
    unit = SystemdUnit(name=name)
    assert f'units = ["{name}"]' in find_refused(unit)
    assert opened(units=(name,)).refusal(unit) is None
    assert f'add "{name}" to units' in find_refused_where_units_are(unit, "*")


@pytest.mark.parametrize(
    "name",
    [
        *("systemd-sysv", "python3.13-minimal", "network-manager", "openssh-server", "podman"),
        *("firmware-brcm80211", "firmware-realtek", "firmware-misc-nonfree", "bluez-firmware"),
        *("isc-dhcp-client", "dhcpcd-base", "udhcpc", "ca-certificates", "cryptsetup-initramfs"),
        *("initramfs-tools-core", "dropbear-initramfs", "sudo", "netavark", "crun", "conmon"),
        *("raspi-firmware", "rpi-eeprom", "linux-image-rpi-v8", "wpasupplicant", "iw"),
        *("wireless-regdb", "openssh-sftp-server", "libpam-systemd", "nftables", "chrony"),
        *("debian-archive-keyring", "wireguard-tools", "netplan.io", "polkitd", "e2fsprogs"),
    ],
)
def test_packages_that_a_device_needs_are_not_taken_away(name: str) -> None:
    def job(wish: str) -> Job:
        claims = (alike(f"package:{name}", wish),)
        return Job(name="packages-x", command=("/bin/true",), privileged=True, claims=claims)

    open_to_jobs = DevicePolicy(rules=PolicyTable(preset="open", jobs="any"))
    assert open_to_jobs.refusal(job("any version")) is None
    refusal = open_to_jobs.refusal(job(NO_VERSION))
    assert refusal is not None
    assert f'packages = ["{name}"]' in refusal
    rules = PolicyTable(preset="open", jobs="any", packages=(name,))
    assert DevicePolicy(rules=rules).refusal(job(NO_VERSION)) is None


@pytest.mark.parametrize(
    "name", ["nginx", "rsync", "nano", "raspi-config", "libnginx-mod-http-lua", "sudoku", "ntpstat"]
)
def test_packages_that_a_device_can_do_without_are_a_score_s_to_take_away(name: str) -> None:
    assert not is_needed_package(name)


@pytest.mark.parametrize(
    "name",
    [
        "NetworkManager.service",
        "wpa_supplicant.service",
        "wpa_supplicant@wlan0.service",
        "systemd-networkd.service",
        "systemd-networkd.socket",
        "networking.service",
        "dhcpcd.service",
        "iwd.service",
        "ssh.service",
        "ssh.socket",
        "sshd.service",
    ],
)
def test_what_a_device_is_reached_by_may_be_had_running_and_no_more(name: str) -> None:
    assert POLICY.refusal(SystemdUnit(name=name)) is None
    assert POLICY.refusal(SystemdUnit(name=name, enabled=None, state=None)) is None
    for change in (
        SystemdUnit(name=name, state="stopped"),
        SystemdUnit(name=name, enabled=False),
        SystemdUnit(name=name, content="[Service]\nExecStart=/bin/false\n"),
        SystemdUnit(name=name, uses=("/etc/ssh/sshd_config",)),
    ):
        assert f'units = ["{name}"]' in find_refused(change)
        assert opened(units=(name,)).refusal(change) is None


def test_the_agent_is_never_a_score_s_business() -> None:
    unit = SystemdUnit(name="harmony-agent.service", enabled=None, state=None)
    assert "the agent itself" in find_refused(unit, units=(unit.name, "*"))
    for path in (
        "/etc/harmony/agent.toml",
        "/etc/systemd/system/harmony-agent.service.d/mine.conf",
        "/etc/systemd/system/harmony-agent.service",
        "/etc/systemd/system/harmony-job-it.service.d/mine.conf",
        "/run/systemd/system/harmony-job-.service.d/mine.conf",
    ):
        assert "the agent itself" in find_refused(
            File(path=path, content=b""), paths=(path, "/etc"), units=("harmony-agent.service",)
        )


@pytest.mark.parametrize(
    "name",
    [
        "web.service",
        "chrony.service",
        "getty@tty1.service",
        "bluetooth.service",
        "NetworkManager-wait-online.service",
        "systemd-timesyncd.service",
        "systemd-networkd-wait-online.service",
        "sshguard.service",
        "apt-daily.timer",
    ],
)
def test_other_units_may_be_stopped(name: str) -> None:
    unit = SystemdUnit(name=name, enabled=False, state="stopped")
    assert POLICY.refusal(unit) is None


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/vm/swappiness",
        "/boot/firmware/config.txt",
        "/run/systemd/resolve/resolv.conf",
        "/etc/NetworkManager/system-connections/office.nmconnection",
        "/etc/NetworkManager/NetworkManager.conf",
        "/run/NetworkManager/system-connections/office.nmconnection",
        "/usr/lib/NetworkManager/conf.d/it.conf",
        "/etc/netplan/90-office.yaml",
        "/etc/wpa_supplicant/wpa_supplicant.conf",
        "/etc/systemd/network/office.network",
        "/etc/network/interfaces",
        "/etc/systemd/system/service.d/it.conf",
        "/etc/systemd/system/harmony-.service.d/it.conf",
    ],
)
def test_files_of_the_system_and_its_network_are_refused_unless_they_are_allowed(path: str) -> None:
    file = File(path=path, content=b"")
    assert f'paths = ["{path}"]' in find_refused(file)
    assert opened(paths=(path,)).refusal(file) is None
    for too_wide_or_beside in ("/etc", "/run", "/etc/NetworkManagers", path[:-1]):
        find_refused(file, paths=(too_wide_or_beside,))


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/etc/systemd/system/NetworkManager.service", "NetworkManager.service"),
        ("/etc/systemd/system/ssh.service.d/it.conf", "ssh.service"),
        ("/etc/systemd/system.control/dbus.service.d/it.conf", "dbus.service"),
        ("/etc/systemd/system.attached/podman.socket", "podman.socket"),
        ("/run/systemd/transient/systemd-udevd.service", "systemd-udevd.service"),
        ("/usr/lib/systemd/system/systemd-logind.service", "systemd-logind.service"),
        ("/usr/local/lib/systemd/system/multi-user.target.wants/it.service", "multi-user.target"),
        ("/etc/systemd/system/system.slice.d/it.conf", "system.slice"),
        ("/etc/systemd/system/user.slice", "user.slice"),
        ("/etc/systemd/system/user-1000.slice.d/it.conf", "user-1000.slice"),
        ("/etc/systemd/system/machine-libpod_pod.slice", "machine-libpod_pod.slice"),
    ],
)
def test_the_file_of_a_unit_is_judged_as_the_unit(path: str, unit: str) -> None:
    file = File(path=path, content=b"")
    assert f'units = ["{unit}"]' in find_refused(file)
    assert opened(units=(unit,)).refusal(file) is None
    find_refused(file, units=("*",), paths=("/etc", "/run", "/usr"))


@pytest.mark.parametrize(
    ("directory", "why"),
    [
        ("service.d", "is for every service, also for those that this device needs"),
        ("slice.d", "is for every slice, also for those that this device needs"),
        ("harmony-.service.d", "whose name begins with harmony-, also for harmony-…, which"),
        ("systemd-.service.d", "whose name begins with systemd-, also for systemd-…"),
        ("systemd-journal-.service.d", "begins with systemd-journal-, also for systemd-journal-…"),
        ("soft-.target.d", "whose name begins with soft-, also for soft-reboot, which"),
    ],
)
def test_a_drop_in_for_many_units_is_refused_for_those_of_them_that_the_device_needs(
    directory: str, why: str
) -> None:
    path = f"/etc/systemd/system/{directory}/it.conf"
    told = find_refused(File(path=path, content=b""))
    assert why in told
    assert "write it for a single unit, as in web.service.d" in told


@pytest.mark.parametrize(
    "path",
    [
        "/etc/motd",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/fstab",
        "/etc/ssh/sshd_config.d/it.conf",
        "/etc/sysctl.d/60-it.conf",
        "/etc/systemd/system/web.service",
        "/etc/systemd/system/web.service.d/it.conf",
        "/etc/systemd/system/getty@tty1.service.d/autologin.conf",
        "/etc/systemd/system/cam-.service.d/it.conf",
        "/etc/systemd/system/cam-front-.timer.d/it.conf",
        "/etc/systemd/system/cam-.service",
        "/etc/systemd/timesyncd.conf",
        "/usr/local/bin/it",
        "/srv/it",
    ],
)
def test_other_files_may_be_written(path: str) -> None:
    assert POLICY.refusal(File(path=path, content=b"")) is None


@pytest.mark.parametrize(
    "path",
    [
        *("/bin", "/boot", "/boot/firmware", "/dev", "/etc", "/home", "/lib", "/media", "/mnt"),
        *("/opt", "/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var"),
        *("/usr/bin", "/usr/lib/aarch64-linux-gnu", "/usr/share/dbus-1", "/usr/local"),
        *("/etc/dbus-1", "/etc/dbus-1/system.d", "/etc/ssl/certs", "/etc/systemd/system"),
        *("/etc/NetworkManager", "/etc/netplan", "/run/systemd", "/run/dbus"),
        *("/var/lib", "/var/log", "/var/cache", "/var/spool", "/var/tmp"),
    ],
)
def test_directories_of_the_system_are_refused_unless_they_are_allowed(path: str) -> None:
    directory = Directory(path=path, mode=0, owner="nobody")
    assert f'paths = ["{path}"]' in find_refused_anywhere(directory)
    rules = PolicyTable(preset="open", paths=(path,), jobs="any")
    assert DevicePolicy(rules=rules).refusal(directory) is None


@pytest.mark.parametrize(
    "path", ["/etc", "/opt", "/var", "/var/lib", "/srv", "/srv/agent", "/srv/agent/state"]
)
def test_no_directory_that_holds_what_is_the_agent_s_is_changed_whatever_is_allowed(
    path: str,
) -> None:
    owned = ("/etc/harmony", "/opt/harmony", "/var/lib/harmony", "/srv/agent/state")
    rules = PolicyTable(preset="open", paths=(path,))
    refusal = DevicePolicy(*owned, rules=rules).refusal(Directory(path=path))
    assert refusal is not None
    assert "the agent itself" in refusal


@pytest.mark.parametrize(
    "path",
    [
        *("/srv/app", "/opt/app", "/home/pi", "/var/lib/app", "/var/log/app", "/etc/app"),
        *("/usr/local/share/app", "/etc/systemd/system/web.service.d", "/srv/agents"),
    ],
)
def test_directories_of_applications_may_be_had(path: str) -> None:
    assert POLICY.refusal(Directory(path=path, mode=0o700, owner="nobody")) is None


@pytest.mark.parametrize(
    ("source", "is_refused"),
    [
        ("/etc", True),
        ("/var/lib", True),
        ("/opt", True),
        ("/srv/agent", True),
        ("/srv/agent/state/ledger.db", True),
        ("/run/podman/podman.sock", True),
        ("/var/lib/app", False),
        ("/srv/www", False),
        ("/etc/ssl/certs", False),
        ("/run/user/1000/bus", True),
    ],
)
def test_no_container_is_handed_the_device(source: str, is_refused: bool) -> None:
    mount = Mount(source=source, target="/it")
    container = Container(name="it", image=f"localhost/web@sha256:{'0' * 64}", mounts=(mount,))
    assert (POLICY.refusal(container) is not None) is is_refused


APPLIANCE = DevicePolicy(
    rules=PolicyTable(
        preset="appliance", paths=("/etc",), units=("kiosk*",), kinds=("*",), jobs="none"
    )
)


class Rule(Resource):
    """A stranger's: a file, in which there may be programs that root runs."""

    resource_type = "rule"

    name: str
    does: frozenset[Privilege] | None = frozenset()

    @property
    def key(self) -> str:
        return self.name

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...] | None:
        return (f"/etc/{key}.d", f"/etc/rules.d/{key}")

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...] | None:
        return ()

    @property
    def privileges(self) -> frozenset[Privilege] | None:
        return self.does


class Silent(Rule):
    """Says nothing of its paths."""

    resource_type = "silent"

    @classmethod
    def paths_of(cls, key: str) -> tuple[str, ...] | None:
        return None


def test_a_stranger_s_resource_is_allowed_when_it_says_what_it_does() -> None:
    assert POLICY.refusal(Rule(name="probe")) is None
    assert POLICY.removal_refusal("rule:probe", Rule) is None


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("ssh", "/etc/ssh came with the system"),
        ("sudoers", "/etc/sudoers.d is of those who decide"),
        ("harmony", "/etc/harmony belongs to the agent itself"),
        ("network", "/etc/network is of the network"),
        ("pam", "/etc/pam.d is of those who decide"),
    ],
)
def test_a_stranger_s_resource_is_refused_the_paths_that_files_are_refused(
    key: str, why: str
) -> None:
    class Taking(Rule):
        @classmethod
        def paths_of(cls, key: str) -> tuple[str, ...]:
            return (f"/etc/{key}.d", f"/etc/{key}")

    refusals = POLICY.refusal(Taking(name=key)), POLICY.removal_refusal(f"rule:{key}", Taking)
    assert all(each is not None and why in each for each in refusals), refusals


class Stopping(Rule):
    """A stranger's that asks systemd over D-Bus, and brings no file for it."""

    resource_type = "stopping"

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...] | None:
        return (f"{key}.service",)


class Unsaid(Rule):
    """Says nothing of the units that it touches, as one that was written before it could."""

    resource_type = "unsaid"

    @classmethod
    def units_of(cls, key: str) -> tuple[str, ...] | None:
        return None


@pytest.mark.parametrize("key", ["ssh", "dbus", "systemd-logind", "harmony-agent", "podman"])
def test_a_stranger_s_resource_is_refused_the_units_that_scores_are_refused(key: str) -> None:
    unit = SystemdUnit(name=f"{key}.service", state="stopped", enabled=None)
    for policy in (POLICY, APPLIANCE):
        refusals = policy.refusal(Stopping(name=key)), policy.refusal(unit)
        assert refusals[0] == refusals[1] is not None
        assert policy.removal_refusal(f"stopping:{key}", Stopping) is not None


def test_an_appliance_lets_a_stranger_s_resource_touch_the_units_that_it_lists() -> None:
    assert POLICY.refusal(Stopping(name="kiosk")) is None
    assert APPLIANCE.refusal(Stopping(name="kiosk")) is None
    other = APPLIANCE.refusal(Stopping(name="other"))
    assert other is not None
    assert "other.service is not a Score's to manage" in other


def test_a_resource_that_says_nothing_of_its_units_is_refused_by_an_appliance_alone() -> None:
    assert POLICY.refusal(Unsaid(name="x")) is None
    refusal = APPLIANCE.refusal(Unsaid(name="x"))
    assert refusal is not None
    assert "has to give it units_of" in refusal
    assert APPLIANCE.removal_refusal("unsaid:x", Unsaid) is not None


@pytest.mark.parametrize(
    ("resource", "what"),
    [(Silent(name="x"), "paths_of"), (Rule(name="x", does=None), "privileges")],
)
def test_a_resource_that_does_not_say_what_it_does_is_refused(
    resource: Resource, what: str
) -> None:
    refusal = POLICY.refusal(resource)
    assert refusal is not None
    assert "does not say what it would do to this device" in refusal
    assert what in refusal
    assert (POLICY.removal_refusal(resource.id, Silent)) is not None


@pytest.mark.parametrize(
    ("does", "allowed_by"),
    [
        (frozenset[Privilege](), {"none", "confined", "any"}),
        (frozenset[Privilege]({"run"}), {"confined", "any"}),
        (frozenset[Privilege]({"run-as-root"}), {"any"}),
        (frozenset[Privilege]({"run", "run-as-root"}), {"any"}),
    ],
)
@pytest.mark.parametrize("jobs", ["none", "confined", "any"])
def test_what_runs_programs_is_allowed_where_jobs_of_that_kind_are(
    does: frozenset[Privilege], allowed_by: set[str], jobs: JobPolicy
) -> None:
    rules = PolicyTable(preset="open", jobs=jobs)
    refusal = DevicePolicy(rules=rules).refusal(Rule(name="x", does=does))
    assert (refusal is None) is (jobs in allowed_by)
    if refusal is not None:
        assert "as rule:x would; refused by " in refusal
        assert 'and jobs = "' in refusal


@pytest.mark.parametrize(
    "resource_class", [File, Directory, SystemdUnit, Container, NetworkProfile, Job]
)
def test_all_of_ours_say_what_they_do(resource_class: type[Resource]) -> None:
    assert resource_class.paths_of("x") is not None
    assert resource_class.units_of("x") is not None
    assert resource_class.privileges is not Resource.privileges


@pytest.mark.parametrize(
    "install",
    [
        "Alias=ssh.service",
        "Alias=radio.service systemd-logind.service",
        "Alias=\\\nssh.service",
        "Alias=\\\n# a comment \\\n; and another\nssh.service",
        "# a comment that does not go on \\\nAlias=ssh.service",
        "\u00a0[Nothing]\nAlias=ssh.service",
        "X-Nothing=a\\\n\u00a0# no comment\nAlias=ssh.service",
        "Alias=%j.service",
        "Alias=%H.service",
        "Alias=harmony-agent.service",
        "Also=harmony-agent.service",
        "Also=systemd-logind.service",
        "RequiredBy=harmony-agent.service",
        "WantedBy=multi-user.target harmony-agent.service",
    ],
)
def test_a_unit_is_judged_by_all_names_that_enabling_it_touches(install: str) -> None:
    text = f"[Service]\nExecStart=/usr/bin/sleep 1\n[Install]\n{install}\n"
    rules = PolicyTable(preset="appliance", units=("kiosk-*", "radio.service"), paths=("/etc",))
    unit = "kiosk-ssh.service"
    for policy in (opened(), DevicePolicy(rules=rules)):
        for resource in (
            SystemdUnit(name=unit, content=text),
            File(path=f"/etc/systemd/system/{unit}", content=text.encode()),
            File(path=f"/etc/systemd/system/{unit}.d/it.conf", content=text.encode()),
            File(path=f"/etc/systemd/system/{unit}", content=text.replace("\n", "\r").encode()),
        ):
            refusal = policy.refusal(resource)
            assert refusal is not None, resource
            assert "kiosk-ssh.service has " in refusal


def test_a_mark_before_the_first_line_hides_nothing_of_a_unit() -> None:
    text = "\ufeff[Install]\nAlias=ssh.service\n[Service]\nExecStart=/usr/bin/sleep 1\n"
    refusal = opened().refusal(SystemdUnit(name="kiosk.service", content=text))
    assert refusal is not None
    assert "kiosk.service has Alias=ssh.service" in refusal


def test_the_file_of_a_unit_is_no_asset_since_nobody_could_judge_it() -> None:
    asset = Asset(sha256="ab" * 32, size_bytes=1, name="it", key="cd" * 32)
    for path in ("/etc/systemd/system/it.service", "/etc/systemd/system/it.service.d/it.conf"):
        refusal = opened().refusal(File(path=path, content=asset))
        assert refusal is not None
        assert "is of it.service, and an asset is not read before it is there" in refusal
    assert opened().refusal(File(path="/srv/it.service", content=asset)) is None


def test_nor_is_it_a_download() -> None:
    download = Download(url="https://example.org/it.service", sha256="ab" * 32)
    refusal = opened().refusal(File(path="/etc/systemd/system/it.service", content=download))
    assert refusal is not None
    assert "is of it.service, and a download is not read before it is there" in refusal


def test_an_appliance_says_from_where_it_would_have_to_download() -> None:
    rules = PolicyTable.read_text('preset = "appliance"\npaths = ["/srv"]\n')
    policy = DevicePolicy("/etc/harmony", rules=rules)
    for url, line in (
        ("https://example.org/a/b/model-1.bin?key=1", 'downloads = ["example.org/a/b"]'),
        ("https://example.org/model-1.bin", 'downloads = ["example.org"]'),
        ("https://example.org", 'downloads = ["example.org"]'),
    ):
        download = Download(url=url, sha256="ab" * 32)
        refusal = policy.refusal(File(path="/srv/model", content=download))
        assert refusal is not None
        assert "is nowhere that this device downloads from; refused by" in refusal
        assert f"add the line {line} there" in refusal
        assert "key=1" not in refusal
        allowed = PolicyTable.read_text(f'preset = "appliance"\npaths = ["/srv"]\n{line}\n')
        found = DevicePolicy("/etc/harmony", rules=allowed)
        assert found.refusal(File(path="/srv/model", content=download)) is None
    assert opened().download_refusal("https://example.org/model") is None


def test_an_appliance_takes_images_of_archives_where_localhost_is_listed() -> None:
    blob = ImageBlob(sha256="1" * 64, size_bytes=7, name="app: the image's manifest")
    image = f"localhost/app:1@sha256:{'1' * 64}"
    wanted = Container(name="app", image=image, image_blobs=(blob,))
    for listed, is_refused in (
        ('"ghcr.io"', True),
        ('"localhost/other"', True),
        ('"localhost"', False),
        ('"localhost/app"', False),
    ):
        rules = PolicyTable.read_text(f'preset = "appliance"\nregistries = [{listed}]\n')
        refusal = DevicePolicy("/etc/harmony", rules=rules).refusal(wanted)
        assert (refusal is not None) == is_refused, listed
        if refusal is not None:
            assert "localhost/app comes from nowhere that this device takes images from" in refusal
            assert 'add "localhost/app" to registries there' in refusal


def test_no_secret_comes_into_the_file_of_a_unit_since_nobody_could_judge_it() -> None:
    word = secret_word("it", "db", "00" * 8)
    text = f"[Service]\nEnvironment=PASSWORD={word}\n".encode()
    for path in ("/etc/systemd/system/it.service", "/run/systemd/system/it.service.d/it.conf"):
        refusal = opened().refusal(File(path=path, content=text, mode=0o600))
        assert refusal is not None
        assert "is of it.service, and what a secret brings into it is not judged" in refusal
    assert opened().refusal(File(path="/srv/it.env", content=text, mode=0o600)) is None


@pytest.mark.parametrize(
    "install",
    [
        "WantedBy=multi-user.target",
        "Alias=radio.service",
        "Alias=%n",
        "Also=ssh.socket",
        "Also=radio-%i.timer",
        "#Alias=ssh.service",
        "X-Alias=ssh.service",
    ],
)
def test_a_unit_may_have_other_names_and_companions(install: str) -> None:
    text = f"[Unit]\nAlias=ssh.service\n[Install]\n{install}\n"
    assert opened().refusal(SystemdUnit(name="kiosk.service", content=text)) is None
    file = File(path="/etc/systemd/system/kiosk.service", content=text.encode())
    assert opened().refusal(file) is None


def test_an_appliance_lists_the_other_names_of_a_unit_too() -> None:
    policy = DevicePolicy(rules=PolicyTable(preset="appliance", units=("kiosk-*.service",)))
    for install in ("Alias=web.service", "Also=cron.service"):
        unit = SystemdUnit(name="kiosk-ui.service", content=f"[Install]\n{install}\n")
        refusal = policy.refusal(unit)
        assert refusal is not None
        assert f"kiosk-ui.service has {install}: " in refusal
