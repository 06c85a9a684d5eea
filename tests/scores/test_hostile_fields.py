"""Whatever a Score accepts arrives as it was written, in what systemd, sysusers, sysctl, apt and podman read.

Each case is an honest Score with something hostile in one or more of its texts. It is refused, or what it
asks for is rendered and read back by parsers that were written from the manual pages: every field must be
the one that was given, and there may be no other. An *escape* is a path or name that leads elsewhere; an
*injected line* is anything else that reads otherwise than it was written.
"""

from __future__ import annotations

import json
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import attrs
import pytest
import trustme
from pydantic import ValidationError

from harmony_core import (
    Container,
    Directory,
    Download,
    File,
    ImageRegistry,
    Inventory,
    Job,
    Score,
    SystemdUnit,
)
from harmony_core.resources import place_of
from harmony_pi_topology.containers.request import build_request
from harmony_pi_topology.containers.spec import resolve_desired
from harmony_pi_topology.jobs.systemd import service_of
from harmony_pi_topology.registries.configuration import describe_registry
from harmony_scores import (
    AgentScore,
    AptSourceScore,
    ContainerScore,
    DirectoryScore,
    FileScore,
    PackageScore,
    RegistryScore,
    ShellJobScore,
    SwapScore,
    SysctlScore,
    SystemdServiceScore,
    SystemdUnitScore,
    TimerScore,
    UpgradeScore,
    UserScore,
)
from tests.box import Box
from tests.soak import runs, seed, tell

from .systemd_rules import Unit, command_of, environment_of, expanded, parse, words_of

Spec = dict[str, Any]

PROGRAM = ["/usr/bin/run", "argument"]
ARMORED = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEaw==\n-----END PGP PUBLIC KEY BLOCK-----"
CA = trustme.CA().cert_pem.bytes().decode()
UPDATER = Path(__file__).parents[2] / "harmony_scores" / "_agent_update.py"
HONEST: tuple[tuple[type[Score[Any]], Spec], ...] = (
    (
        SystemdServiceScore,
        {
            "name": "x.service",
            "exec_start": PROGRAM,
            "description": "words",
            "user": "pi",
            "working_directory": "/srv/x",
            "environment": {"NAME": "value"},
            "credentials": {"token": "value"},
            "after_units": ["network-online.target"],
            "slice": "x.slice",
        },
    ),
    (
        SystemdUnitScore,
        {"name": "x.socket", "content": "[Socket]\nListenStream=80\n", "enabled": None},
    ),
    (
        TimerScore,
        {
            "name": "x",
            "exec_start": PROGRAM,
            "on_calendar": "daily",
            "description": "words",
            "user": "pi",
            "environment": {"NAME": "value"},
            "credentials": {"token": "value"},
        },
    ),
    (
        UserScore,
        {
            "name": "app",
            "uid": 700,
            "description": "words",
            "home": "/srv/app",
            "shell": "/bin/sh",
            "groups": ["video"],
        },
    ),
    (SysctlScore, {"name": "x", "settings": {"net.ipv4.ip_forward": "1"}}),
    (SwapScore, {"path": "/srv/x", "size_bytes": 1048576, "priority": 1}),
    (FileScore, {"path": "/etc/x", "content": "text", "owner": "pi", "group": "pi"}),
    (
        FileScore,
        {
            "path": "/etc/x",
            "owner": "pi",
            "group": "pi",
            "download": {"url": "https://example.org/a/x?key=1", "sha256": "ab" * 32},
        },
    ),
    (DirectoryScore, {"path": "/srv/x", "owner": "pi", "group": "pi"}),
    (PackageScore, {"name": "x", "packages": ["nginx:arm64=1.26.3-3"], "absent": ["nano"]}),
    (
        AptSourceScore,
        {
            "name": "x",
            "uris": ["https://packages.example.org/debian", "file:/srv/x"],
            "suites": ["bookworm"],
            "components": ["stable"],
            "architectures": ["arm64"],
            "types": ["deb"],
            "key": ARMORED,
            "keyring": None,
        },
    ),
    (
        AptSourceScore,
        {
            "name": "x",
            "uris": ["http://packages.example.org"],
            "suites": ["./"],
            "components": [],
            "architectures": [],
            "types": ["deb"],
            "key": None,
            "keyring": "/usr/share/keyrings/x.gpg",
        },
    ),
    (UpgradeScore, {"window": "Sun 03:00", "origins": "all", "exclude": ["linux-image-*"]}),
    (
        AgentScore,
        {"wheel": {"name": "harmony-1.0-py3-none-any.whl", "size_bytes": 9, "sha256": "a" * 64}},
    ),
    (
        RegistryScore,
        {
            "host": "registry.lan:5000/team",
            "mirrors": ["cache.lan:5000/team", {"location": "old.lan", "insecure": True}],
            "ca": None,
        },
    ),
    (RegistryScore, {"host": "registry.lan:5000", "mirrors": [], "ca": CA}),
    (ShellJobScore, {"name": "x", "script": "true", "environment": {"NAME": "value"}}),
    (
        ContainerScore,
        {
            "name": "x",
            "image": "registry.example/web/app:1.0",
            "command": ["argument"],
            "environment": {"NAME": "value"},
            "mounts": [{"source": "/srv/x", "target": "/data"}],
            "uses": ["/etc/x"],
            "user": "1000:1000",
            "entrypoint": ["/bin/x"],
            "hostname": "web",
            "labels": {"name": "value"},
            "groups": ["video"],
            "devices": [{"source": "/dev/x", "target": "/dev/y"}],
            "sysctls": {"net.core.somaxconn": "1024"},
            "timezone": "Europe/Berlin",
            "dns_search": ["example.org"],
            "extra_hosts": {"db": "192.0.2.1"},
        },
    ),
)

HOSTILE = (
    *(
        "\n",
        "\nExecStart=/bin/evil",
        "\r",
        "\r\n[Service]\r\n",
        "\0",
        "\x0b",
        "\x85",
        "\u2028",
        "\u2029",
    ),
    *(
        "\\",
        "\\\n",
        "\\x0a",
        "\\n",
        "%",
        "%n",
        "%%",
        "%h/x",
        "$",
        "$HOME",
        "${HOME}",
        "$$",
        "$(id)",
        "`id`",
    ),
    *(
        "'",
        '"',
        '" evil "',
        '"; EVIL=1',
        ";",
        "; /bin/evil",
        "#",
        "=",
        "-",
        "+",
        "!",
        "@",
        "|",
        ":",
        ",",
    ),
    *(
        " ",
        "\t",
        " x",
        "x ",
        "*",
        "?",
        "~",
        "[",
        "{a,b}",
        "&",
        "<",
        ">",
        "(",
        "\x1b[31m",
        "\x7f",
        "\ud800",
    ),
    *("/", "//", "/.", "/..", "/../../etc/shadow", "../x", "..", ".", "./", "/proc/self/root/etc"),
    *(
        "\u202e",
        "\u200b",
        "\u2024\u2024/",
        "\uff0f",
        "e\u0301",
        "é",
        "\U0001f600",
        "\ufeff",
        "\u00a0",
    ),
    *(
        "--",
        "--option",
        "-o=Dir::Etc=/x",
        "ro,exec",
        ":rw",
        "a" * 300,
        "x" * 9_000,
        "",
        "0",
        "root",
        "LD_PRELOAD",
    ),
)

PLAIN = re.compile(r"[A-Za-z0-9:_.@-]+\Z", re.ASCII)


class Escape(AssertionError):
    """A path or a name leads elsewhere."""


class Injected(AssertionError):
    """Something reads otherwise than it was written."""


@attrs.define
class _Asked:
    """Stands for every capability: keeps what it is asked for, and changes nothing."""

    resources: list[object] = attrs.field(factory=list[object])

    async def ensure(self, *resources: object) -> tuple[()]:
        self.resources += resources
        return ()

    def __getattr__(self, name: str) -> _Asked:
        return self


def _asked_by(score: Score[Any]) -> list[object]:
    """Return the resources for which *score* asks."""
    asked = _Asked()
    running = score.interpret(cast("Inventory", None), asked)
    try:
        running.send(None)  # nothing in it waits
    except StopIteration:
        return asked.resources
    raise AssertionError("a Score has waited for something")


def _check(found: object, given: object, what: str) -> None:
    if found != given:
        raise Injected(f"{what}: {given!a} reads {found!a}")


def _check_path(path: str) -> None:
    if not path.startswith("/") or posixpath.normpath(path) != path or not path.isprintable():
        raise Escape(f"{path!a}")


def _check_name(name: str) -> None:
    if not PLAIN.match(name) or name in {".", ".."}:
        raise Escape(f"{name!a}")


def _unit(found: object, sections: Mapping[str, set[str]]) -> Unit:
    """Return the unit as systemd reads it; it has these keys in these sections and no others."""
    assert isinstance(found, SystemdUnit)
    assert found.content is not None
    _check_name(found.name)
    try:
        unit = parse(found.content)
    except ValueError as error:
        raise Injected(str(error)) from error
    _check({name: set(keys) for name, keys in unit.items()}, sections, found.name)
    return unit


def _one(unit: Unit, section: str, key: str) -> str:
    values = unit[section][key]
    _check(len(values), 1, f"how many {key}=")
    return values[0]


def _check_service(spec: Spec, asked: Sequence[object]) -> None:
    *provided, found = asked
    keys = {"Type", "ExecStart", "Restart", "User", "WorkingDirectory", "LoadCredential"}
    optional = {"Environment": "environment", "Slice": "slice"}
    unit = _unit(
        found,
        {
            "Unit": {"Description", *(["Wants", "After"] if spec["after_units"] else [])},
            "Service": keys | {key for key, field in optional.items() if spec[field]},
            "Install": {"WantedBy"},
        },
    )
    _check_program(unit, spec)
    _check(
        _one(unit, "Service", "WorkingDirectory"), spec["working_directory"], "working_directory"
    )
    _check_path(spec["working_directory"])
    if spec["slice"]:
        _check(_one(unit, "Service", "Slice"), spec["slice"], "slice")
    for key in ("Wants", "After") if spec["after_units"] else ():
        _check(_one(unit, "Unit", key).split(), list(spec["after_units"]), "after_units")
    _check_credentials(spec, spec["name"], unit, provided)


def _check_unit_file(spec: Spec, asked: Sequence[object]) -> None:
    (found,) = asked
    assert isinstance(found, SystemdUnit)
    _check((found.name, found.content), (spec["name"], spec["content"]), "content")


def _check_credentials(spec: Spec, name: str, unit: Unit, provided: Sequence[object]) -> None:
    """Check that each comes into a file of its own, which root alone may read, and no text into the unit."""
    directory, *files = provided
    assert isinstance(directory, Directory)
    _check((directory.path, directory.mode), (f"/etc/harmony-credentials/{name}", 0o700), "where")
    found: Spec = {}
    loaded: list[str] = []
    for file in files:
        assert isinstance(file, File)
        assert isinstance(file.content, bytes)
        _check_path(file.path)
        _check((file.mode, file.owner, file.group), (0o600, "root", "root"), "who may read it")
        own = file.path.removeprefix(f"{directory.path}/")
        _check_name(own.replace("+", "-"))
        found[own] = file.content.decode()
        loaded.append(f"{own}:{file.path}")
    _check(found, spec["credentials"], "credentials")
    _check(unit["Service"]["LoadCredential"], loaded, "LoadCredential")


def _check_program(unit: Unit, spec: Spec) -> None:
    """Check what services have in common."""
    told = spec["description"] or spec["name"].removesuffix(".service")
    _check(expanded(_one(unit, "Unit", "Description")), told, "description")
    _check(command_of(_one(unit, "Service", "ExecStart")), list(spec["exec_start"]), "exec_start")
    _check_path(spec["exec_start"][0])
    _check(
        environment_of(unit["Service"].get("Environment", [])), spec["environment"], "environment"
    )
    _check(_one(unit, "Service", "User"), spec["user"], "user")


def _check_timer(spec: Spec, asked: Sequence[object]) -> None:
    *provided, service, timer = asked
    keys = {
        "Type",
        "ExecStart",
        "Restart",
        "User",
        "LoadCredential",
        *(["Environment"] if spec["environment"] else []),
    }
    run = _unit(service, {"Unit": {"Description"}, "Service": keys})
    _check_program(run, spec)
    _check_credentials(spec, f"{spec['name']}.service", run, provided)
    own = {"OnCalendar", "Persistent", "AccuracySec", "RandomizedDelaySec"}
    unit = _unit(timer, {"Unit": {"Description"}, "Timer": own, "Install": {"WantedBy"}})
    _check(_one(unit, "Timer", "OnCalendar"), spec["on_calendar"].strip(), "on_calendar")
    _check(
        expanded(_one(unit, "Unit", "Description")),
        spec["description"] or spec["name"],
        "description",
    )


def _check_user(spec: Spec, asked: Sequence[object]) -> None:
    lasting = {"Type", "ExecStart", "RemainAfterExit", "Restart"}
    make = _unit(asked[0], {"Unit": {"Description"}, "Service": lasting, "Install": {"WantedBy"}})
    look = _unit(asked[1], {"Unit": {"Description"}, "Service": {"Type", "ExecStart", "Restart"}})
    _unit(
        asked[2],
        {"Unit": {"Description"}, "Path": {"PathChanged", "Unit"}, "Install": {"WantedBy"}},
    )
    name = spec["name"]
    fields = [name, str(spec["uid"]), spec["description"], spec["home"] or "", spec["shell"] or ""]
    for does, unit in (("make", make), ("look", look)):
        words = command_of(_one(unit, "Service", "ExecStart"))
        _check(words[4:7], ["sh", does, f"harmony-user-{name}.service"], "the unit")
        _check(words[8:], [*fields, *spec["groups"]], "the user's fields")
        # sysusers.d(5): words with quotes, in which specifiers are expanded
        line = [expanded(each) for each in words_of(words[7])]
        _check(line, ["u", *fields], "sysusers' line")
    _check_path(spec["home"])
    _check_path(spec["shell"])
    for each in (name, *spec["groups"]):
        _check_name(each)


def _check_sysctl(spec: Spec, asked: Sequence[object]) -> None:
    undoing, service, file = asked
    keys = {"Type", "ExecStart", "RemainAfterExit", "Restart"}
    unit = _unit(service, {"Unit": {"Description"}, "Service": keys, "Install": {"WantedBy"}})
    undone = _unit(
        undoing,
        {"Unit": {"Description"}, "Service": {*keys, "ExecStop"}, "Install": {"WantedBy"}},
    )
    assert isinstance(file, File)
    assert isinstance(file.content, bytes)
    _check(file.path, f"/etc/sysctl.d/60-harmony-{spec['name']}.conf", "path")
    _check_path(file.path)
    _check(_settings(file.content.decode()), spec["settings"], "sysctl.d")
    words = command_of(_one(unit, "Service", "ExecStart"))[5:]
    for each in (words, command_of(_one(undone, "Service", "ExecStop"))[5:]):
        _check(each[:2], [spec["name"], file.path], "name")
    _check(words[3::2], [value for _, value in sorted(spec["settings"].items())], "values")
    for key in words[2::2]:
        _check_path(f"/proc/sys/{key}")


def _check_swap(spec: Spec, asked: Sequence[object]) -> None:
    taking_away, looking, make, look, timer = asked
    assert isinstance(taking_away, Job)
    assert isinstance(looking, Job)
    keys = {"Type", "ExecStart", "Restart"}
    made = _unit(
        make,
        {
            "Unit": {"Description", "RequiresMountsFor"},
            "Service": {*keys, "RemainAfterExit"},
            "Install": {"WantedBy"},
        },
    )
    looked = _unit(look, {"Unit": {"Description"}, "Service": keys})
    times = {"OnBootSec", "OnUnitInactiveSec", "Unit"}
    _unit(timer, {"Unit": {"Description"}, "Timer": times, "Install": {"WantedBy"}})
    _check(_one(made, "Unit", "RequiresMountsFor"), spec["path"], "path")
    _check_path(spec["path"])
    for command in (
        taking_away.undo,
        looking.command,
        looking.unless,
        *(command_of(_one(unit, "Service", "ExecStart")) for unit in (made, looked)),
    ):
        wanted = [str(spec[name]) for name in ("path", "size_bytes", "priority")]
        _check([*command[5:8]], wanted, "path")


def _settings(text: str) -> dict[str, str]:
    """Return what sysctl.d(5) reads: a line each, its key and value stripped; no comment, nothing ignored."""
    found: dict[str, str] = {}
    for line in re.split(r"[\n\r\0]", text)[:-1]:
        key, equals, value = line.partition("=")
        if not equals or line.lstrip()[:1] in set("#;-") or set("*?[") & set(key):
            raise Injected(f"sysctl.d: {line!a}")
        found[key.strip()] = value.strip()
    return found


def _check_file(spec: Spec, asked: Sequence[object]) -> None:
    (found,) = asked
    assert isinstance(found, File | Directory)
    _check(
        (found.path, found.owner, found.group), (spec["path"], spec["owner"], spec["group"]), "file"
    )
    _check_path(found.path)
    _check_name(found.owner)
    _check_name(found.group)
    if isinstance(found, File) and isinstance(found.content, Download):
        _check_download(found.content, spec["download"])
    elif isinstance(found, File):
        _check(found.content, spec["content"].encode(), "content")


def _check_download(found: Download, spec: Spec) -> None:
    """Its address has to be one that another reader of addresses has in the same parts."""
    _check((found.url, found.sha256), (spec["url"], spec["sha256"]), "download")
    parts = urlsplit(found.url)
    if parts.scheme != "https" or parts.username is not None or parts.fragment:
        raise Escape(f"the address {found.url!a}")
    if not found.url.isascii() or not found.url.isprintable() or " " in found.url:
        raise Injected(f"the address {found.url!a}")
    path = "/top" + re.sub("/+", "/", unquote(parts.path)).rstrip("/")
    if posixpath.normpath(path) != path or "\\" in path:
        raise Escape(f"the path of {found.url!a}")
    if place_of(found.url) != f"{parts.netloc}{parts.path}":
        raise Escape(f"the place of {found.url!a}")


def _told(asked: Sequence[object]) -> tuple[list[str], list[str]]:
    """Return the program and the environment of which systemd is told over D-Bus."""
    (found,) = asked
    assert isinstance(found, Job)
    _check_name(found.name)
    told = {name: value for name, (_, value) in service_of(found, found.name)}
    ((program, arguments, how),) = told["ExecStartEx"]
    _check((program, how), ("/bin/sh", ["no-env-expand"]), "the program")
    return cast("list[str]", arguments), cast("list[str]", told["Environment"])


def _check_packages(spec: Spec, asked: Sequence[object]) -> None:
    arguments, _ = _told(asked)
    absent = sorted(spec["absent"])
    _check(
        arguments[5:], [spec["name"], "", " ".join(absent), *sorted(spec["packages"])], "packages"
    )
    for each in (*spec["packages"], *absent):
        # deb-control(5): a name of two letters at least, and a version without what a shell or apt reads
        form = r"[a-z0-9][a-z0-9.+-]+(:[a-z0-9-]*[a-z0-9])?(=[A-Za-z0-9.+:~-]+)?"
        if not re.fullmatch(form, each, re.ASCII):
            raise Injected(f"a package: {each!a}")


def _check_source(spec: Spec, asked: Sequence[object]) -> None:
    for place in asked[:-1]:
        assert isinstance(place, Job)
        _check_name(place.name)
        _check((place.command[0], len(place.command)), ("/bin/true", 2), "what does nothing")
    arguments, _ = _told(asked[-1:])
    name, text, key, _ = arguments[5:]
    _check_name(name)
    # deb822(5), without lines that go on
    comment, *lines = text.split("\n")
    _check(comment[0], "#", "the comment")
    read = dict(line.split(": ", 1) for line in lines)
    fields = {"Types": "types", "URIs": "uris", "Suites": "suites", "Components": "components"}
    for field, its in {**fields, "Architectures": "architectures"}.items():
        _check(read.pop(field, "").split(" "), [*spec[its]] or [""], its)
    keyring = spec["keyring"] or f"/etc/apt/keyrings/{name}.asc"
    _check(read, {"Signed-By": keyring}, "the rest")
    _check_path(keyring)
    for each in (*spec["uris"], *spec["suites"], *spec["components"]):
        if not each.isprintable() or not each.isascii() or "[" in each.partition("//")[0]:
            raise Injected(f"a word: {each!a}")
    if key and not key.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----"):
        raise Injected(f"a key: {key!a}")


def _check_upgrade(spec: Spec, asked: Sequence[object]) -> None:
    job, service, timer = asked
    arguments, _ = _told([job])
    _check(arguments[5:], [spec["origins"], " ".join(sorted(spec["exclude"]))], "what is upgraded")
    for each in spec["exclude"]:
        # A pattern of case in a shell, and of Package in apt_preferences(5), that reads the same in both.
        if not re.fullmatch(r"[a-z0-9*?][a-z0-9.+*?-]*", each, re.ASCII) or not each.strip("*?"):
            raise Injected(f"a pattern: {each!a}")
    keys = {"Type", "ExecStart", "Restart"}
    noted = _unit(service, {"Unit": {"Description"}, "Service": keys})
    words = command_of(_one(noted, "Service", "ExecStart"))
    _check(words[5:], [spec["window"].strip(), "7200"], "the window")
    times = {"OnCalendar", "OnActiveSec", "AccuracySec"}
    unit = _unit(timer, {"Unit": {"Description"}, "Timer": times, "Install": {"WantedBy"}})
    _check(_one(unit, "Timer", "OnCalendar"), spec["window"].strip(), "window")


def _check_agent(spec: Spec, asked: Sequence[object]) -> None:
    taking_away, looking, file, unit = asked
    assert isinstance(taking_away, Job)
    assert isinstance(looking, Job)
    assert isinstance(file, File)
    name = spec["wheel"]["name"]
    # Of pip, which reads it as a name and a version.
    if not re.fullmatch(r"harmony-[0-9][A-Za-z0-9.+!]*-py3-none-any\.whl", name, re.ASCII):
        raise Injected(f"the wheel {name!a}")
    path = f"/var/lib/harmony-update/{name}"
    _check(file.path, path, "where the wheel is")
    _check_path(file.path)
    keys = {"Type", "ExecStart", "RemainAfterExit", "Restart"}
    sections = {"Unit": {"Description"}, "Service": keys, "Install": {"WantedBy"}}
    words = command_of(_one(_unit(unit, sections), "Service", "ExecStart"))
    for command, verb in ((words, "update"), (looking.unless, "look")):
        _check([*command[:3], *command[4:]], ["/usr/bin/python3", "-I", "-c", verb, path], verb)
        _check(command[3], UPDATER.read_text(), "the program")


def _check_registry(spec: Spec, asked: Sequence[object]) -> None:
    (found,) = asked
    assert isinstance(found, ImageRegistry)
    for path in ImageRegistry.paths_of(found.host):
        _check_path(path)
        _check(path.count("/"), 5 if path.endswith(".crt") else 4, "how deep a file is")
    # toml.io, by a reader that is none of ours
    read = tomllib.loads(describe_registry(found).decode())
    given: list[Spec] = [
        {"location": each} if isinstance(each, str) else each for each in spec["mirrors"]
    ]
    entry = {"prefix": spec["host"], "location": spec["host"]}
    _check(
        read, {"registry": [{**entry, **({"mirror": given} if given else {})}]}, "registries.conf"
    )
    for place in (spec["host"], *(each["location"] for each in given)):
        if not re.fullmatch(r"[a-z0-9.:/_-]+", place, re.ASCII):
            raise Injected(f"a place: {place!a}")
    if found.ca is not None:
        # What is around a certificate is no part of it.
        _check(found.ca.strip(), CA.strip(), "ca")


def _check_job(spec: Spec, asked: Sequence[object]) -> None:
    arguments, environment = _told(asked)
    _check(arguments, ["/bin/sh", "-eu", "-c", spec["script"]], "script")
    _check(dict(each.split("=", 1) for each in environment), spec["environment"], "environment")


def _check_container(spec: Spec, asked: Sequence[object]) -> None:
    (found,) = asked
    assert isinstance(found, Container)
    request = json.loads(json.dumps(build_request(resolve_desired(found, {}), {}, {})))
    _check(request["name"], spec["name"], "name")
    _check_name(request["name"])
    _check(request["image"], spec["image"], "image")
    _check(request["env"], spec["environment"], "environment")
    _check(request.get("command", []), list(spec["command"]), "command")
    _check(request["user"], spec["user"], "user")
    _check(
        [(each["source"], each["destination"], each["options"]) for each in request["mounts"]],
        [(each["source"], each["target"], ["rbind", "ro", "rprivate"]) for each in spec["mounts"]],
        "mounts",
    )
    _check(request["entrypoint"], list(spec["entrypoint"]), "entrypoint")
    _check(request["hostname"], spec["hostname"], "hostname")
    labels = request["labels"]
    ours = {name: labels.pop(name) for name in [*labels] if name.startswith("harmony.")}
    _check(len(ours), 6, "labels of Harmony's")
    _check(labels, spec["labels"], "labels")
    _check(request["groups"], list(spec["groups"]), "groups")
    _check(request["sysctl"], spec["sysctls"], "sysctls")
    _check(request["timezone"], spec["timezone"], "timezone")
    _check(request["dns_search"], list(spec["dns_search"]), "dns_search")
    _check(
        dict(each.split(":", 1) for each in request["hostadd"]), spec["extra_hosts"], "extra_hosts"
    )
    for device in found.devices:
        _check_path(device.source)
        _check_path(device.inside)
    for each in spec["mounts"]:
        _check_path(each["source"])
        _check_path(each["target"])
    for path in found.uses:
        _check_path(path)
    _check(request["privileged"], False, "privileged")
    _check(len(request["volumes"]), 0, "volumes")


CHECKS: Mapping[type[Score[Any]], Callable[[Spec, Sequence[object]], None]] = {
    SystemdServiceScore: _check_service,
    SystemdUnitScore: _check_unit_file,
    TimerScore: _check_timer,
    UserScore: _check_user,
    SysctlScore: _check_sysctl,
    SwapScore: _check_swap,
    FileScore: _check_file,
    DirectoryScore: _check_file,
    PackageScore: _check_packages,
    AptSourceScore: _check_source,
    UpgradeScore: _check_upgrade,
    AgentScore: _check_agent,
    RegistryScore: _check_registry,
    ShellJobScore: _check_job,
    ContainerScore: _check_container,
}


def _places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield where texts are in *value*; of a key of a table, its place with None behind it."""
    match value:
        case str():
            yield path
        case list():
            for number, each in enumerate(cast("list[object]", value)):
                yield from _places(each, (*path, number))
        case dict():
            for key, each in cast("dict[str, object]", value).items():
                if path and path[-1] in {"environment", "settings", "credentials"}:
                    yield (*path, key, None)
                yield from _places(each, (*path, key))
        case _:
            pass


def _changed(spec: Spec, place: Sequence[object], change: Callable[[str], str]) -> Spec:
    """Return *spec* with the text at *place* changed."""
    spec = deepcopy(spec)
    key_of_table = place[-1] is None
    *way, last = place[:-1] if key_of_table else place
    at: Any = spec
    for each in way:
        at = at[each]
    if key_of_table:
        at[change(cast("str", last))] = at.pop(last)
    else:
        at[last] = change(at[last])
    return spec


def directed() -> Iterator[tuple[type[Score[Any]], Spec]]:
    """Yield every text of every honest Score with each hostile one before, behind and instead of it."""
    for kind, spec in HONEST:
        for place in _places(spec):
            for hostile in HOSTILE:
                for change in (_before, _behind, _instead):
                    yield kind, _changed(spec, place, partial(change, hostile))


def _before(hostile: str, text: str) -> str:
    return hostile + text


def _behind(hostile: str, text: str) -> str:
    return text + hostile


def _instead(hostile: str, text: str) -> str:
    return hostile


def _generated(random: Random, count: int) -> Iterator[tuple[type[Score[Any]], Spec]]:
    """Yield honest Scores with one to three texts changed at random."""
    for _ in range(count):
        kind, spec = random.choice(HONEST)
        for _ in range(random.randint(1, 3)):
            place = random.choice(list(_places(spec)))
            spec = _changed(spec, place, lambda text: _damaged(text, random))
        yield kind, spec


def _damaged(text: str, random: Random) -> str:
    for _ in range(random.randint(1, 3)):
        at = random.randint(0, len(text))
        piece = random.choice(HOSTILE) if random.random() < 0.7 else chr(random.randrange(0x3000))
        text = text[:at] + piece + text[at + random.choice((0, 0, 0, 1)) :]
    return text


@attrs.define
class Tally:
    """What came of the cases."""

    cases: int = 0
    accepted: int = 0
    escapes: list[str] = attrs.field(factory=list[str])
    injected: list[str] = attrs.field(factory=list[str])
    crashed: list[str] = attrs.field(factory=list[str])

    def add(self, kind: type[Score[Any]], spec: Spec) -> list[object]:
        """Judge one case; return what it asks for when it was accepted."""
        self.cases += 1
        try:
            score = kind.model_validate(spec)
        except ValidationError:
            return []
        self.accepted += 1
        shown = f"{kind.__name__} {spec!a:.600}"
        try:
            asked = _asked_by(score)
            CHECKS[kind](spec, asked)
        except Escape as error:
            self.escapes.append(f"{error} of {shown}")
        except Injected as error:
            self.injected.append(f"{error} of {shown}")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told with its case
            self.crashed.append(f"{error!r:.400} of {shown}")
        else:
            return asked
        return []

    def told(self) -> str:
        return (
            f"{self.cases} fields and paths, {self.accepted} accepted, {len(self.escapes)} escapes, "
            f"{len(self.injected)} injected lines, {len(self.crashed)} crashed"
        )

    def judge(self) -> None:
        wrong = [*self.escapes, *self.injected, *self.crashed]
        assert not wrong, f"{len(wrong)}, such as\n" + "\n".join(wrong[:: max(1, len(wrong) // 10)])


def test_what_is_changed_by_nobody_is_accepted_and_arrives() -> None:
    tally = Tally()
    for kind, spec in HONEST:
        tally.add(kind, spec)
    assert tally.accepted == len(HONEST)
    tally.judge()


@pytest.mark.security
def test_hostile_texts_in_every_field_are_refused_or_arrive_as_they_were() -> None:
    tally = Tally()
    for kind, spec in directed():
        tally.add(kind, spec)
    assert tally.cases >= 500
    tell("fields", f"directed: {tally.told()}")
    tally.judge()


@pytest.mark.security
@pytest.mark.timeout(1800)
def test_damage_at_random_to_fields_is_refused_or_arrives_as_it_was() -> None:
    tally = Tally()
    for kind, spec in _generated(Random(seed()), runs(200_000, part=100)):
        tally.add(kind, spec)
    tell("fields", f"generated: {tally.told()}")
    tally.judge()


MANY = ["x" * 8_000] * 9


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (SystemdServiceScore, {"name": "x.service", "exec_start": ["/bin/x", *MANY]}),
        (TimerScore, {"name": "x", "every_s": 60, "exec_start": ["/bin/x", *MANY]}),
        (UserScore, {"name": "app", "groups": [f"group-{n:022}" for n in range(3_000)]}),
        (SysctlScore, {"name": "x", "settings": {f"net.x{n}": "1" * 1_000 for n in range(70)}}),
        (UserScore, {"name": "app", "description": "a\u2028b"}),
        (ShellJobScore, {"name": "x", "script": "true\0"}),
        (
            AptSourceScore,
            {
                "name": "x",
                "uris": ["https://packages.example.org"],
                "suites": ["./"],
                "key": ARMORED.replace("mDME", "mD\0ME"),
            },
        ),
    ],
)
def test_what_no_unit_can_hold_is_refused_with_the_fields_and_not_on_the_device(
    kind: type[Score[Any]], spec: Spec
) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(spec)


@pytest.mark.security
def test_systemd_itself_reads_what_was_accepted_without_a_complaint(pi: Box) -> None:
    """Of a unit that holds what systemd does not take, it says so here, and goes on without it."""
    pi.write("/usr/bin/run", "#!/bin/sh\n", mode=0o755)
    units: list[str] = []
    users: list[str] = []
    for kind, spec in directed():
        if kind not in {SystemdServiceScore, TimerScore, UserScore}:
            continue
        for asked in Tally().add(kind, spec):
            if isinstance(asked, File | Directory):
                continue  # its credentials
            assert isinstance(asked, SystemdUnit)
            assert asked.content is not None
            if kind is UserScore and asked.name.endswith(".service"):
                words = command_of(_one(parse(asked.content), "Service", "ExecStart"))
                users.append(words[7])
            elif kind is SystemdServiceScore:
                units.append(f"/run/verified/x{len(units)}.service")
                pi.write(units[-1], asked.content)
    assert len(units) > 100
    assert len(users) > 100
    # That there is no such program on this device is no complaint of what is read.
    told = pi.run(["systemd-analyze", "verify", "--man=no", *units], check=False)
    complaints = told.stderr.decode().splitlines()
    assert [
        each for each in complaints if not each.rpartition(":")[0].endswith(" is not executable")
    ] == []
    for line in sorted(set(users)):
        pi.run(["systemd-sysusers", "--dry-run", "--inline", line])
    tell(
        "fields",
        f"{len(units)} units and {len(set(users))} users read by systemd itself, 0 complaints",
    )
