"""What each preset allows and refuses, by which line: one table of what is asked of a device."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import pytest
import trustme

from harmony_agent.apply.policy import DevicePolicy
from harmony_agent.policy_toml import PolicyTable
from harmony_core.resources import (
    Container,
    ContainerNetwork,
    Directory,
    Download,
    Ethernet,
    File,
    Firewall,
    ImageRegistry,
    Job,
    Mount,
    NetworkAttachment,
    NetworkProfile,
    Resource,
    SystemdUnit,
    Volume,
    VolumeMount,
)

OPEN = """\
# What this device allows.
preset = "open"
jobs = "none"
paths = ["/etc/containers/registries.conf.d"]
units = ["ssh.service"]
mounts = ["/var/lib/dpkg"]
"""

APPLIANCE = """\
preset = "appliance"

kinds = ["FileScore", "ContainerScore", "Kiosk*"]
paths = [
    "/etc/kiosk",
    "/srv",
]
units = ["kiosk-*.service", "srv-media.mount"]
mounts = ["/srv/kiosk", "/etc/ssl/certs"]
registries = ["ghcr.io/acme", "cache.lan:5000"]
insecure_registries = ["cache.lan:5000/plain"]
digest = true
downloads = ["github.com/acme", "files.example:8443", "[fd00::1]"]
networks = ["office*"]
firewalls = ["base"]
volumes = ["kiosk-*"]
container_networks = ["kiosk"]
packages = ["chromium*"]
jobs = "none"
devices = ["/dev/ttyUSB*", "/dev/dri"]
device_rules = ["c 188:* rw"]
capabilities = ["NET_*"]
host_namespaces = ["network"]
propagation = ["rslave"]
"""

AGENT_S = ("/etc/harmony", "/opt/harmony", "/var/lib/harmony", "/run/harmony")
DIGEST = f"@sha256:{'0' * 64}"
AGENT = "the agent's"
"""Refused by no line, and allowed by none."""

Verdict: TypeAlias = str | None
"""By which field it is refused; None where it is allowed."""


def registry(host: str, fields: dict[str, Any]) -> ImageRegistry:
    return ImageRegistry.model_validate({"host": host, **fields})


def policy(text: str) -> DevicePolicy:
    return DevicePolicy(*AGENT_S, rules=PolicyTable.read_text(text))


def mounting(source: str, *, read_only: bool = True) -> Container:
    mount = Mount(source=source, target="/it", read_only=read_only)
    return Container(name="it", image=f"ghcr.io/acme/it{DIGEST}", mounts=(mount,))


def asking(**fields: Any) -> Container:
    return Container.model_validate({"name": "it", "image": f"ghcr.io/acme/it{DIGEST}", **fields})


def image(reference: str) -> Container:
    return Container(name="it", image=reference)


def attached(volume: str, network: str) -> Container:
    return Container(
        name="it",
        image=f"ghcr.io/acme/it{DIGEST}",
        volumes=(VolumeMount(volume=volume, target="/it"),),
        networks=(NetworkAttachment(network=network),),
    )


def file(path: str) -> File:
    return File(path=path, content=b"")


def downloaded(url: str, path: str = "/srv/it") -> File:
    return File(path=path, content=Download(url=url, sha256="ab" * 32))


def unit(name: str, *, stopped: bool = False) -> SystemdUnit:
    return SystemdUnit(name=name, state="stopped" if stopped else "running")


def packages(*names: str) -> Job:
    claims = tuple(f"package:{name}\tany version" for name in names)
    return Job(name="packages-it", command=("/bin/sh",), claims=claims)


FILES: list[tuple[str, Verdict, Verdict]] = [
    ("/etc/kiosk/conf", None, None),
    ("/srv/kiosk/data", None, None),
    ("/etc/motd", None, "paths"),
    ("/etc/kiosks", None, "paths"),
    ("/usr/local/bin/it", None, "paths"),
    # The agent itself, wherever systemd reads.
    ("/etc/harmony/policy.toml", AGENT, AGENT),
    ("/opt/harmony/bin/python", AGENT, AGENT),
    *(
        (f"{top}/harmony-agent.service{rest}", AGENT, AGENT)
        for rest in ("", ".d/it.conf", ".wants/it.service")
        for top in (
            *("/etc/systemd/system", "/etc/systemd/system.control", "/etc/systemd/system.attached"),
            *("/run/systemd/system", "/run/systemd/system.control", "/run/systemd/system.attached"),
            *("/run/systemd/transient", "/run/systemd/generator", "/run/systemd/generator.early"),
            *("/run/systemd/generator.late", "/usr/local/lib/systemd/system"),
            *("/usr/lib/systemd/system", "/lib/systemd/system"),
        )
    ),
    *(
        (f"{top}/{of}.d/it.conf", "paths", "paths")
        for of in ("service", "harmony-.service")
        for top in (
            *("/etc/systemd/system", "/etc/systemd/system.control", "/etc/systemd/system.attached"),
            *("/usr/local/lib/systemd/system", "/run/systemd/system"),
        )
    ),
    # A unit's file is judged as the unit.
    ("/etc/systemd/system/web.service", None, "units"),
    ("/etc/systemd/system/kiosk-ui.service.d/it.conf", None, None),
    ("/etc/systemd/system.control/kiosk-ui.service.d/it.conf", None, None),
    ("/etc/systemd/system.control/podman.socket.d/it.conf", "units", "units"),
    ("/etc/systemd/system/ssh.service.d/it.conf", None, "units"),
    ("/etc/systemd/system/opt-harmony.automount", AGENT, AGENT),
    ("/etc/systemd/system/boot-firmware.mount", "units", "units"),
    # What root runs without anybody calling it by name.
    *(
        (path, "jobs", "paths")
        for path in (
            *(
                "/etc/cron.d/it",
                "/etc/cron.daily/it",
                "/etc/crontab",
                "/var/spool/cron/crontabs/root",
            ),
            *("/etc/profile.d/it.sh", "/etc/profile", "/etc/rc.local", "/etc/init.d/it"),
            *("/etc/ld.so.preload", "/etc/ld.so.conf.d/it.conf", "/etc/udev/rules.d/70-it.rules"),
            *("/etc/systemd/system-generators/it", "/etc/systemd/system-environment-generators/it"),
            *("/etc/systemd/user-generators/it", "/usr/local/lib/systemd/system-generators/it"),
            *("/etc/systemd/system.conf.d/it.conf", "/etc/systemd/system-sleep/it"),
            *("/etc/systemd/user/it.service", "/etc/tmpfiles.d/it.conf", "/etc/modprobe.d/it.conf"),
            *("/etc/apt/apt.conf.d/99it", "/etc/dpkg/dpkg.cfg.d/it", "/etc/logrotate.d/it"),
            *("/etc/python3.13/sitecustomize.py", "/root/.bashrc", "/root/.ssh/authorized_keys"),
            *(
                "/home/pi/.ssh/authorized_keys",
                "/etc/kernel/postinst.d/it",
                "/etc/update-motd.d/it",
                "/etc/rcS.d/S01it",
                "/usr/local/lib/tmpfiles.d/it.conf",
                "/usr/local/lib/python3.13/dist-packages/sitecustomize.py",
            ),
        )
    ),
    ("/srv/kiosk/.ssh/authorized_keys", "jobs", "jobs"),
    # What is the system's.
    *(
        (path, "paths", "paths")
        for path in (
            *("/etc/passwd", "/etc/shadow", "/etc/shadow-", "/etc/sudoers", "/etc/sudoers.d/it"),
            *("/etc/pam.d/sshd", "/etc/group", "/etc/polkit-1/rules.d/it.rules", "/etc/subuid"),
            *("/etc/dbus-1/system.d/it.conf", "/usr/bin/podman", "/usr/bin/python3.13"),
            *("/usr/sbin/it", "/usr/lib/it", "/bin/sh", "/var/lib/dpkg/status"),
            *("/var/lib/containers/storage/it", "/etc/containers/policy.json"),
            *("/run/containers/it", "/boot/firmware/config.txt", "/boot/cmdline.txt"),
            *("/etc/containers/systemd/it.container", "/etc/NetworkManager/conf.d/it.conf"),
        )
    ),
    ("/etc/containers/registries.conf.d/it.conf", None, "paths"),
]

UNITS: list[tuple[str, bool, Verdict, Verdict]] = [
    ("kiosk-ui.service", False, None, None),
    ("kiosk-ui.service", True, None, None),
    ("web.service", False, None, "units"),
    ("harmony-agent.service", False, AGENT, AGENT),
    ("harmony-agent.socket", True, AGENT, AGENT),
    # By which it asks who uses what is mounted; those that it does not know it takes away.
    ("harmony-mount-needs-it.service", False, AGENT, AGENT),
    # Named by its owner.
    ("ssh.service", True, None, "units"),
    ("ssh.socket", True, "units", "units"),
    ("podman.socket", False, None, "units"),
    *(
        (name, True, "units", "units")
        for name in (
            *("podman.socket", "podman.service", "multi-user.target", "default.target"),
            *("sockets.target", "timers.target", "local-fs.target", "network-online.target"),
            *("boot-firmware.mount", "boot.mount", "home.mount", "usr.mount"),
            *("var-lib-containers.mount", "dbus.socket", "systemd-journald.service"),
        )
    ),
    # A mount that would hide the agent.
    ("etc-harmony.mount", False, AGENT, AGENT),
    ("var.mount", True, AGENT, AGENT),
    ("var-lib.mount", False, AGENT, AGENT),
    ("opt-harmony.mount", False, AGENT, AGENT),
    ("srv-media.mount", False, None, None),
    ("mnt-usb.mount", False, None, "units"),
]

MOUNTS: list[tuple[str, Verdict, Verdict]] = [
    ("/srv/kiosk/data", None, None),
    ("/etc/ssl/certs", None, None),
    ("/srv/other", None, "mounts"),
    ("/var/log", None, "mounts"),
    ("/home/pi/www", None, "mounts"),
    # Named by its owner.
    ("/var/lib/dpkg/status", None, "mounts"),
    *(
        (path, AGENT, AGENT)
        for path in (
            *("/etc/harmony", "/etc/harmony/secrets", "/etc", "/opt", "/var/lib", "/var", "/run"),
        )
    ),
    *(
        (path, "mounts", "mounts")
        for path in (
            *(
                "/boot/firmware",
                "/boot",
                "/usr",
                "/usr/bin",
                "/usr/lib",
                "/usr/sbin/it",
                "/usr/local",
            ),
            *("/etc/cron.d", "/etc/cron.daily", "/etc/sudoers.d", "/etc/pam.d", "/etc/ssh"),
            *("/etc/ssh/ssh_host_ed25519_key", "/etc/shadow", "/etc/passwd", "/etc/ld.so.preload"),
            *("/root", "/root/.ssh", "/home", "/home/pi", "/home/pi/.ssh", "/srv/kiosk/.ssh"),
            *("/var/spool", "/var/spool/cron", "/var/lib/containers/storage", "/etc/containers"),
            *("/run/containers", "/run/podman/podman.sock", "/run/dbus/system_bus_socket"),
            *("/usr/local/lib/python3.13", "/run/libpod", "/var/spool/at", "/etc/rcS.d"),
            *("/proc", "/sys/class/gpio", "/dev/mem", "/run/systemd/private", "/run/docker.sock"),
            *("/etc/systemd", "/etc/systemd/system-generators", "/etc/NetworkManager"),
            *("/etc/profile.d", "/etc/udev/rules.d", "/var/lib/containers", "/etc/apt"),
        )
    ),
    ("/etc/systemd/system.control", "mounts", "mounts"),
]


def mirrors(*places: str, insecure: bool = False) -> dict[str, Any]:
    return {"mirrors": [{"location": each, "insecure": insecure} for each in places]}


CA = trustme.CA().cert_pem.bytes().decode()
REGISTRIES: list[tuple[str, dict[str, Any], Verdict]] = [
    ("ghcr.io", mirrors("cache.lan:5000/ghcr"), None),
    ("ghcr.io/acme/ui", mirrors("cache.lan:5000"), None),
    ("ghcr.io", mirrors("cache.lan:5000/a", "evil.lan"), "registries"),
    ("ghcr.io", mirrors("cache.lan:50000"), "registries"),
    ("ghcr.io", mirrors("cache.lan"), "registries"),
    ("ghcr.io", mirrors("ghcr.io/acmes"), "registries"),
    ("ghcr.iot", mirrors("cache.lan:5000"), "registries"),
    ("docker.io", {"insecure": True}, "registries"),
    ("ghcr.io", {"insecure": True}, "insecure_registries"),
    ("cache.lan:5000", {"insecure": True}, "insecure_registries"),
    ("cache.lan:5000/plain", {"insecure": True}, None),
    ("cache.lan:5000", {"ca": CA}, None),
    ("ghcr.io", {"ca": CA}, "registries"),
    ("ghcr.io", mirrors("cache.lan:5000/plain/a", insecure=True), None),
    ("ghcr.io", mirrors("cache.lan:5000/plainer", insecure=True), "insecure_registries"),
]

OTHERS: list[tuple[Resource, Verdict, Verdict]] = [
    (image(f"ghcr.io/acme/ui{DIGEST}"), None, None),
    (image(f"ghcr.io/acme/ui:1{DIGEST}"), None, None),
    (image("ghcr.io/acme/ui:1"), None, "digest"),
    (image(f"ghcr.io/acmes/ui{DIGEST}"), None, "registries"),
    (image(f"docker.io/library/nginx{DIGEST}"), None, "registries"),
    *((registry(host, fields), None, verdict) for host, fields, verdict in REGISTRIES),
    *(
        (downloaded(f"https://{place}"), None, verdict)
        for place, verdict in (
            ("github.com/acme/ui/x.tar", None),
            ("github.com:443/acme/ui/x.tar?key=1", None),
            ("github.com/acme", None),
            ("github.com/acmes/x", "downloads"),
            ("github.com/Acme/x", "downloads"),
            ("github.com/%61cme/x", "downloads"),
            ("github.com//acme/x", "downloads"),
            ("github.com:8443/acme/x", "downloads"),
            ("github.com.evil.example/acme/x", "downloads"),
            ("example.org/github.com/acme/x", "downloads"),
            ("files.example:8443/x", None),
            ("files.example:8443", None),
            ("files.example/x", "downloads"),
            ("[fd00::1]/x", None),
            ("[fd00::2]/x", "downloads"),
        )
    ),
    (downloaded("https://github.com/acme/x", "/etc/motd"), None, "paths"),
    (downloaded("https://github.com/acme/x", "/etc/shadow"), "paths", "paths"),
    (downloaded("https://github.com/acme/x", "/etc/harmony/policy.toml"), AGENT, AGENT),
    (asking(devices=[{"source": "/dev/ttyUSB0"}]), None, None),
    (asking(devices=[{"source": "/dev/dri"}]), None, None),
    (asking(devices=[{"source": "/dev/dri/card0"}]), None, "devices"),
    (asking(devices=[{"source": "/dev/mem"}]), None, "devices"),
    (asking(device_rules=["c 188:* rw"]), None, None),
    (asking(device_rules=["c 188:* rwm"]), None, "device_rules"),
    (asking(device_rules=["a *:* rwm"]), None, "device_rules"),
    (asking(add_capabilities=["NET_ADMIN"], drop_capabilities=["ALL"]), None, None),
    (asking(add_capabilities=["SYS_ADMIN"]), None, "capabilities"),
    (asking(add_capabilities=["FSETID"]), None, "capabilities"),
    (asking(add_capabilities=["ALL"]), None, "capabilities"),
    (asking(network="host"), None, None),
    (asking(network="none", ipc="shareable", init=True, cpus=1, healthcheck="image"), None, None),
    (asking(pid="host"), None, "host_namespaces"),
    (asking(ipc="host"), None, "host_namespaces"),
    (asking(privileged=True), None, "privileged"),
    (asking(privileged=True, devices=[{"source": "/dev/mem"}]), None, "privileged"),
    *(
        (
            asking(mounts=[{"source": "/srv/kiosk", "target": "/it", "propagation": how}]),
            None,
            by,
        )
        for how, by in (("rslave", None), ("rshared", "propagation"))
    ),
    (NetworkProfile(name="office-1", link=Ethernet(interface="eth0")), None, None),
    (NetworkProfile(name="home", link=Ethernet(interface="eth0")), None, "networks"),
    (NetworkProfile(name="office", link=Ethernet(interface="lo")), AGENT, AGENT),
    (Firewall(name="base"), None, None),
    (Firewall(name="open"), None, "firewalls"),
    (unit("harmony-firewall-undo.timer"), AGENT, AGENT),
    (Volume(name="kiosk-data"), None, None),
    (Volume(name="data"), None, "volumes"),
    (ContainerNetwork(name="kiosk"), None, None),
    (ContainerNetwork(name="kiosks"), None, "container_networks"),
    (attached("kiosk-data", "kiosk"), None, None),
    (attached("harmony-other-data-01234567", "kiosk"), None, "volumes"),
    (attached("kiosk-data", "podman"), None, "container_networks"),
    (Directory(path="/srv/kiosk"), None, None),
    (Directory(path="/srv"), "paths", None),
    (Directory(path="/etc"), AGENT, AGENT),
    (Directory(path="/etc/cron.d", owner="nobody"), "jobs", "paths"),
    (Directory(path="/var/lib/kiosk"), None, "paths"),
    (Job(name="it", command=("/bin/true",)), "jobs", "jobs"),
    (Job(name="it", command=("/bin/true",), privileged=True), "jobs", "jobs"),
    (packages("nginx"), "jobs", "packages"),
    (packages("chromium-browser"), "jobs", "jobs"),
]

TABLE: list[tuple[Resource, Verdict, Verdict]] = [
    *((file(path), at_open, at_appliance) for path, at_open, at_appliance in FILES),
    *(
        (unit(name, stopped=stopped), at_open, at_appliance)
        for name, stopped, at_open, at_appliance in UNITS
    ),
    *((mounting(path), at_open, at_appliance) for path, at_open, at_appliance in MOUNTS),
    *(
        (mounting(path, read_only=False), at_open, at_appliance)
        for path, at_open, at_appliance in MOUNTS
    ),
    *OTHERS,
]


def name_of(resource: Resource) -> str:
    match resource:
        case Container() if beyond := resource.model_dump_json(
            exclude={"name", "image", "mounts"}, exclude_defaults=True
        ).strip("{}"):
            return beyond
        case Container(mounts=(mount,)) if mount.propagation != "rprivate":
            return f"mount:{mount.propagation}"
        case Container(mounts=(mount,)):
            return f"mount:{mount.source}:{'ro' if mount.read_only else 'rw'}"
        case Container(image=reference):
            return f"image:{reference[:40]}"
        case SystemdUnit(state=state):
            return f"{resource.id}:{state}"
        case _:
            return resource.id


@pytest.mark.parametrize("text", [OPEN, APPLIANCE], ids=["open", "appliance"])
@pytest.mark.parametrize(
    ("resource", "at_open", "at_appliance"),
    TABLE,
    ids=lambda it: name_of(it) if isinstance(it, Resource) else None,
)
def test_each_is_allowed_or_refused_by_its_line(
    resource: Resource, at_open: Verdict, at_appliance: Verdict, text: str
) -> None:
    by = at_open if text == OPEN else at_appliance
    refusal = policy(text).refusal(resource)
    if by is None:
        assert refusal is None
        return
    assert refusal is not None
    if by == AGENT:
        assert "refused by" not in refusal
        return
    found = re.search(
        r"refused by /etc/harmony/policy\.toml, line (\d+): (\w+) = .*; to allow it, (.*), as root on the "
        r"device, and run: systemctl restart harmony-agent",
        refusal,
    )
    assert found is not None, refusal
    number, field, remedy = found.groups()
    line = text.splitlines()[int(number) - 1]
    if re.search(rf"^{by} = ", text, re.MULTILINE):
        assert field == by
        assert by in remedy
    else:
        assert field == "preset"
        assert f"and no line has {by}; to allow it, add the line {by} = " in refusal
    assert line.startswith(f"{field} = ")


@pytest.mark.parametrize(
    ("kind", "is_refused"),
    [("FileScore", False), ("KioskScore", False), ("ShellJobScore", True), ("FileScores", True)],
)
def test_an_appliance_interprets_the_kinds_that_it_lists(kind: str, is_refused: bool) -> None:
    assert policy(OPEN).kind_refusal(kind) is None
    refusal = policy(APPLIANCE).kind_refusal(kind)
    assert (refusal is not None) is is_refused
    if refusal is not None:
        assert "line 3: kinds = [" in refusal


def test_what_is_refused_may_not_be_taken_away_either() -> None:
    appliance = policy(APPLIANCE)
    for resource_id, resource_class in (
        ("file:/etc/motd", File),
        ("unit:web.service", SystemdUnit),
        ("network:home", NetworkProfile),
        ("directory:/var/lib/kiosk", Directory),
    ):
        refusal = appliance.removal_refusal(resource_id, resource_class)
        assert refusal is not None
        assert "/etc/harmony/policy.toml, line " in refusal
    assert appliance.removal_refusal("network:office", NetworkProfile) is None
    assert appliance.removal_refusal("registry:evil.lan", ImageRegistry) is None
    assert appliance.removal_refusal("firewall:device", Firewall) is None
    nothing = policy('preset = "appliance"\n')
    assert nothing.removal_refusal("firewall:device", Firewall) is not None
    assert appliance.removal_refusal("file:/etc/kiosk/conf", File) is None


def test_what_is_allowed_to_be_privileged_needs_no_device_or_capability_listed() -> None:
    rules = 'preset = "appliance"\nregistries = ["ghcr.io"]\nprivileged = true\n'
    wish = asking(privileged=True, devices=[{"source": "/dev/mem"}], add_capabilities=["SYS_ADMIN"])
    assert policy(rules).refusal(wish) is None
    assert policy(rules).refusal(asking(privileged=True, network="host")) is not None


def test_an_appliance_that_lists_nothing_allows_nothing() -> None:
    nothing = policy('preset = "appliance"\n')
    everything: list[Resource] = [file("/etc/motd"), unit("web.service"), image("ghcr.io/a/b:1")]
    everything += [NetworkProfile(name="office", link=Ethernet(interface="eth0")), packages("it")]
    for resource in everything:
        refusal = nothing.refusal(resource)
        assert refusal is not None
        assert 'line 1: preset = "appliance", and no line has ' in refusal
    assert nothing.kind_refusal("FileScore") is not None


def test_without_a_file_the_refusal_says_what_to_write() -> None:
    refusal = DevicePolicy().refusal(file("/etc/shadow"))
    assert refusal is not None
    assert (
        'refused by the preset "open", since there is no /etc/harmony/policy.toml; to allow it, write preset '
        '= "open" and paths = ["/etc/shadow"] there, each on a line of its own'
    ) in refusal
