"""What each flag of `podman run` makes of its value in a ContainerScore.

What cannot be done is a ValueError, which says what to do instead.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from harmony_control.image_names import with_registry
from harmony_core.references import is_secret_name, suggest_secret_name

from .draft import Draft, Reader
from .words import duration_s, is_true, size_bytes

__all__ = [
    "add_device",
    "add_host",
    "add_label",
    "add_mount",
    "add_network",
    "add_ports",
    "add_tmpfs",
    "add_ulimit",
    "add_volume",
    "amount",
    "capabilities",
    "each",
    "entrypoint",
    "environment",
    "environment_file",
    "finish_container",
    "health_command",
    "heed",
    "image",
    "keep",
    "keep_switch",
    "log_driver",
    "log_option",
    "memory",
    "name",
    "no_more_than",
    "number",
    "one_of",
    "pairs",
    "restart",
    "seconds",
    "security_option",
    "size",
    "switch",
    "text",
    "whole_seconds",
]

_NO_SELINUX = "Raspberry Pi OS and Debian have no SELinux"


def text(field: str) -> Reader:
    """Return a reader that takes the value as it is."""
    return lambda draft, value: draft.put(field, value)


def each(field: str) -> Reader:
    """Return a reader that adds to a list."""
    return lambda draft, value: draft.add(field, value)


def switch(field: str) -> Reader:
    """Return a reader of true and false."""
    return lambda draft, value: draft.put(field, is_true(value))


def number(field: str) -> Reader:
    """Return a reader of a whole number; 0 and -1 are no limit, and leave the field out."""

    def read(draft: Draft, value: str) -> None:
        if (found := _whole(value)) > 0:
            draft.put(field, found)

    return read


def amount(field: str) -> Reader:
    """Return a reader of a number with a fraction; 0 is no limit, and leaves the field out."""

    def read(draft: Draft, value: str) -> None:
        try:
            found = float(value)
        except ValueError:
            raise ValueError(f"{value!r} is no number; write one as in 1.5") from None
        if found:
            draft.put(field, found)

    return read


def size(field: str) -> Reader:
    """Return a reader of a size, such as 64m; 0 is no limit, and leaves the field out."""

    def read(draft: Draft, value: str) -> None:
        if found := size_bytes(value):
            draft.put(field, found)

    return read


def memory(draft: Draft, value: str) -> None:
    """Read memory and swap together, of which -1 is no limit."""
    draft.put("memory_swap_bytes", -1 if value == "-1" else size_bytes(value))


def whole_seconds(field: str) -> Reader:
    """Return a reader of seconds as a plain number."""
    return lambda draft, value: draft.put(field, _whole(value))


def seconds(field: str) -> Reader:
    """Return a reader of a duration of health checks."""

    def read(draft: Draft, value: str) -> None:
        if value == "disable":
            raise ValueError("a check without an interval is never run; leave the check out")
        draft.put_key("healthcheck", field, duration_s(value))

    return read


def no_more_than(field: str) -> Reader:
    """Return a reader of a count of health checks."""
    return lambda draft, value: draft.put_key("healthcheck", field, _whole(value))


def pairs(field: str) -> Reader:
    """Return a reader of NAME=VALUE."""

    def read(draft: Draft, value: str) -> None:
        key, equals, given = value.partition("=")
        if not equals:
            raise ValueError(f"{value!r} has no =; write NAME=VALUE")
        draft.put_key(field, key, given)

    return read


def keep(what: str) -> Reader:
    """Return a reader that keeps the value until all is read."""
    return lambda draft, value: draft.keep(what, value)


def keep_switch(what: str) -> Reader:
    """Return a reader that keeps true or false until all is read."""

    def read(draft: Draft, value: str) -> None:
        is_true(value)
        draft.keep(what, value)

    return read


def one_of(field: str, known: Mapping[str, str], otherwise: str) -> Reader:
    """Return a reader of the values that are *known*, each with that of ours; "" leaves the field out."""

    def read(draft: Draft, value: str) -> None:
        if value not in known:
            raise ValueError(f"{value}: {otherwise}")
        if known[value]:
            draft.put(field, known[value])

    return read


def heed(meaningless: Mapping[str, str], otherwise: str) -> Reader:
    """Return a reader of values that have no meaning here, each with why; "" says nothing. All others are
    refused."""

    def read(draft: Draft, value: str) -> None:
        if value not in meaningless:
            raise ValueError(f"{value}: {otherwise}")
        if meaningless[value]:
            draft.note(meaningless[value])

    return read


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{value!r} is no whole number; write one") from None


def name(draft: Draft, value: str) -> None:
    """Read the container's name."""
    draft.put("name", value.removeprefix("/"))


def image(draft: Draft, value: str) -> None:
    """Read an image. A name without a registry is Docker Hub's, and that is said."""
    short = value.removeprefix("docker://")
    full = with_registry(short)
    draft.put("image", full)
    if full != short:
        draft.note(f"{value} is taken as {full}; if another registry is meant, write it")


def capabilities(field: str) -> Reader:
    """Return a reader of capabilities, in whatever way they are written."""

    def read(draft: Draft, value: str) -> None:
        for each_one in value.split(","):
            draft.add(field, each_one.strip().upper().removeprefix("CAP_"))

    return read


def environment(draft: Draft, value: str) -> None:
    """Read NAME=VALUE of the environment."""
    key, equals, given = value.partition("=")
    if not equals:
        raise ValueError(
            f"{value} is taken from the environment of whoever runs it; write {value}=VALUE, or for a secret "
            f"'{value}=${{secret.NAME}}', kept by `harmony secret set NAME`"
        )
    draft.put_key("environment", key, given)
    draft.keep("environment", key)


def environment_file(draft: Draft, value: str) -> None:
    """Read a file of NAME=VALUE, one a line, as it is here and now. What is said outright counts more."""
    path = draft.directory / Path(value)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read here; copy it from the device, or write its variables out"
        ) from error
    outright = {key for _, key in draft.later.get("environment", ())}
    for at, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, given = line.lstrip().partition("=")
        if not equals:
            raise ValueError(f"{path}:{at}: {key} has no value; write {key}=VALUE")
        if key not in outright:
            draft.put_key("environment", key, given)
    draft.note(
        "what was in the file is written out, for all to read; in the place of a secret write "
        "${secret.NAME}, and keep it by `harmony secret set NAME`"
    )


def add_secret(draft: Draft, value: str) -> None:
    """Read NAME[,type=mount|env][,target=…][,uid=…][,gid=…][,mode=…]. Its value is kept by the operator."""
    name, *options = value.split(",")
    given: dict[str, str] = {}
    for option in options:
        key, _, text = option.partition("=")
        given[key] = text
    if not is_secret_name(name):
        like = suggest_secret_name(name)
        raise ValueError(
            f"{name!r} can be no secret's name here, which has lower-case letters, digits and ._-; call it "
            f"{like}, with target={name} where that is to stay"
        )
    unknown = given.keys() - {"type", "target", "uid", "gid", "mode"}
    if unknown or given.get("type", "mount") not in {"mount", "env"}:
        raise ValueError(f"{value!r} cannot be read; write NAME,type=mount|env,target=…,mode=0400")
    content, target = f"${{secret.{name}}}", given.get("target") or name
    if given.get("type") == "env":
        draft.put_key("environment", target, content)
        draft.keep("environment", target)
    else:
        place = target if target.startswith("/") else f"/run/secrets/{target}"
        secret: dict[str, object] = {"content": content, "target": place}
        try:
            secret |= {key: int(given[key]) for key in ("uid", "gid") if key in given}
            if "mode" in given:
                secret["mode"] = f"{int(given['mode'], 8):04o}"
        except ValueError as error:
            raise ValueError("uid and gid are numbers, and mode is octal, as in 0400") from error
        draft.add("secrets", secret)
    draft.note(
        f"the value of {name} is not here: `harmony secret set {name}` keeps it. podman on the device has it "
        f"still (podman secret inspect --showsecret {name})"
    )


def add_host(draft: Draft, value: str) -> None:
    """Read NAME[;NAME]:ADDRESS."""
    names, colon, address = value.partition(":")
    if not colon:
        raise ValueError(f"{value!r} has no address; write NAME:ADDRESS")
    for host in names.split(";"):
        draft.put_key("extra_hosts", host, address.removeprefix("[").removesuffix("]"))


def add_label(draft: Draft, value: str) -> None:
    """Read NAME[=VALUE]."""
    key, _, given = value.partition("=")
    draft.put_key("labels", key, given)


def add_device(draft: Draft, value: str) -> None:
    """Read SOURCE[:TARGET][:ACCESS]."""
    source, *more = value.split(":")
    if not source.startswith("/"):
        raise ValueError(
            f"{source} is a device by the name of its vendor (CDI); name its nodes below /dev"
        )
    if len(more) > 2:
        raise ValueError(f"{value!r} has too many parts; write SOURCE[:TARGET][:ACCESS]")
    device = {"source": source.rstrip("/")}
    for part in more:
        if part.startswith("/"):
            if part != source:
                device["target"] = part.rstrip("/")
        else:
            device["access"] = "".join(sorted(part, key="rwm".find))
    draft.add("devices", device)


def add_ports(draft: Draft, value: str) -> None:
    """Read [[ADDRESS:]HOST:]CONTAINER[/PROTOCOL], either of them also a range."""
    rest, _, protocol = value.partition("/")
    rest, colon, inside = rest.rpartition(":")
    address, _, outside = rest.rpartition(":")
    if not colon or not outside:
        raise ValueError(
            f"{value} leaves the port of the device to podman; write HOST:CONTAINER, as in 8080:80"
        )
    hosts, containers = _ports(outside), _ports(inside)
    if len(hosts) != len(containers):
        raise ValueError(f"{value}: the ranges differ in length; write two of the same")
    for host, container in zip(hosts, containers, strict=True):
        port: dict[str, object] = {"host": host, "container": container}
        if protocol:
            port["protocol"] = protocol
        if bare := address.removeprefix("[").removesuffix("]"):
            port["address"] = "" if bare == "0.0.0.0" else bare  # noqa: S104 - all addresses of IPv4
        draft.add("ports", port)


_PORT_MOST = 65_535


def _ports(value: str) -> range:
    first, dash, last = value.partition("-")
    begin = _whole(first)
    end = _whole(last) if dash else begin
    if not 0 < begin <= end <= _PORT_MOST:
        raise ValueError(f"{value} is no port, nor a range of them; write one from 1 to 65535")
    return range(begin, end + 1)


def add_volume(draft: Draft, value: str) -> None:
    """Read [SOURCE:]TARGET[:OPTIONS]."""
    source, *more = value.split(":")
    if not more:
        raise ValueError(
            f"{value} makes a volume without a name, whose data nobody finds again; name it, as in "
            f"data:{value}"
        )
    if len(more) > 2:
        raise ValueError(f"{value!r} has too many parts; write SOURCE:TARGET[:OPTIONS]")
    options = more[1].split(",") if len(more) > 1 and more[1] else []
    _attach(draft, source, more[0], _mount_options(draft, options))


def _attach(
    draft: Draft, source: str, target: str, options: Mapping[str, object], kind: str = ""
) -> None:
    """Add what stands at *source*, a path of the device or the name of a volume."""
    target = target.rstrip("/") or "/"
    if source.startswith((".", "~")):
        raise ValueError(
            f"{source} is relative to where it was run; write the path that it has on the device"
        )
    if source == "/etc/localtime":
        draft.put("timezone", "local")
        draft.note(
            "/etc/localtime is a link on the device, so its time zone is taken: timezone: local"
        )
        return
    if source.endswith("/docker.sock"):
        raise ValueError(
            "there is no Docker on the device; podman's socket is /run/podman/podman.sock, and whoever has "
            "it is root there"
        )
    if source.startswith("/var/run/"):
        raise ValueError(f"/var/run is a link on the device; write {source.removeprefix('/var')}")
    if kind == "bind" or (source.startswith("/") and kind != "volume"):
        mount = {"source": source.rstrip("/") or "/", "target": target, "read_only": False}
        draft.add("mounts", {**mount, **options})
        return
    if "propagation" in options:
        raise ValueError("a volume has no propagation; leave it out")
    draft.add("volumes", {"volume": source, "target": target, **options})
    draft.name_another("VolumeScore", source)


_PROPAGATIONS = {"rprivate", "rslave", "rshared"}
_AS_IT_IS = {"rw", "rbind", "copy"}
"""Options that say what is so anyway."""


def _mount_options(draft: Draft, options: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for option in options:
        if option == "ro":
            found["read_only"] = True
        elif option in {"z", "Z"}:
            draft.note(_NO_SELINUX)
        elif option in _PROPAGATIONS:
            found["propagation"] = option
        elif option == "U":
            raise ValueError("U gives what is there to another user; own it by a DirectoryScore")
        elif option not in _AS_IT_IS:
            raise ValueError(f"a mount has no option {option}; leave it out")
    return found


def add_tmpfs(draft: Draft, value: str) -> None:
    """Read TARGET[:OPTIONS]."""
    target, _, options = value.partition(":")
    draft.add("tmpfs", _tmpfs(target, [*filter(None, options.split(","))]))


def _tmpfs(target: str, options: list[str]) -> dict[str, object]:
    found: dict[str, object] = {"target": target.rstrip("/")}
    for option in options:
        key, _, given = option.partition("=")
        match key:
            case "size":
                found["size_bytes"] = size_bytes(given)
            case "mode":
                found["mode"] = given.lstrip("0").rjust(3, "0")
            case "rw" | "nosuid" | "nodev" | "exec" | "tmpcopyup" | "rprivate":
                pass
            case _:
                raise ValueError(f"a tmpfs has no option {option}; leave it out")
    return found


_SAME = {
    "src": "source",
    "dst": "target",
    "dest": "target",
    "destination": "target",
    "readonly": "ro",
    "chown": "U",
    "tmpfs-size": "size",
    "tmpfs-mode": "mode",
}
_OPTIONS_OF_TMPFS = {"size", "mode"}


def add_mount(draft: Draft, value: str) -> None:
    """Read type=…,source=…,target=….  The type is volume where it is left out, as podman has it."""
    given: dict[str, str] = {}
    try:
        parts = next(csv.reader([value]))
    except csv.Error as error:
        raise ValueError(
            f"its parts cannot be told apart ({error}); put commas between them"
        ) from error
    for part in parts:
        key, _, said = part.partition("=")
        given[_SAME.get(key, key)] = said
    kind, source, target = (
        given.pop("type", "volume"),
        given.pop("source", ""),
        given.pop("target", ""),
    )
    if not target:
        raise ValueError("it has no target; add target=PATH")
    match kind:
        case "tmpfs":
            draft.add("tmpfs", _tmpfs(target, [*_flat(given, _OPTIONS_OF_TMPFS)]))
        case "bind" | "volume" if source:
            _attach(draft, source, target, _mount_options(draft, [*_flat(given, set())]), kind)
        case "volume":
            raise ValueError(
                "it makes a volume without a name, whose data nobody finds again; add source=NAME"
            )
        case "bind":
            raise ValueError("it has no source; add source=PATH")
        case _:
            raise ValueError(
                f"type={kind}: a container has bind, volume and tmpfs; use one of them"
            )


def _flat(given: Mapping[str, str], valued: set[str]) -> Iterator[str]:
    """Yield options of a mount as -v has them."""
    for key, said in given.items():
        if key == "bind-propagation":
            yield said
        elif key == "relabel":
            yield "z"
        elif key in valued:
            yield f"{key}={said}"
        elif said in {"", "true"}:
            yield key
        elif said != "false":
            yield f"{key}={said}"


_MODES = {"host", "none"}
_PODMANS_OWN = {"bridge", "default", "podman", "private", ""}


def add_network(draft: Draft, value: str) -> None:
    """Read a mode, or a network's NAME[:OPTIONS]; also Docker's name=…,alias=…."""
    mode, colon, said = value.partition(":")
    options = said.split(",") if said else []
    if not colon and "=" in mode:
        options = mode.split(",")
        mode = next((each_one[5:] for each_one in options if each_one.startswith("name=")), "")
        options = [each_one for each_one in options if not each_one.startswith("name=")]
    match mode:
        case "container" | "ns":
            raise ValueError(
                f"{value}: a container that is made anew would leave the other without a network; put both "
                "on a network of their own, or use host"
            )
        case "slirp4netns" | "pasta":
            raise ValueError(
                f"{mode} is for containers without root, and Harmony's are root's; leave it out"
            )
        case _ if mode in _MODES:
            if options:
                raise ValueError(f"{mode} has no options; leave them out")
            draft.put("network", mode)
        case _ if mode in _PODMANS_OWN:
            if options:
                raise ValueError("podman's own network has no names and addresses; name a network")
        case _:
            for each_one in mode.split(","):
                _join(draft, each_one, options)


def _join(draft: Draft, network: str, options: list[str]) -> None:
    joined: dict[str, object] = {"network": network}
    aliases: list[str] = []
    for option in options:
        key, _, given = option.partition("=")
        match key:
            case "alias":
                aliases.append(given)
            case "ip" | "ip6":
                if "address" in joined:
                    raise ValueError("it has two addresses on one network; leave one to podman")
                joined["address"] = given
            case _:
                raise ValueError(f"a network has no option {option}; leave it out")
    if aliases:
        joined["aliases"] = aliases
    draft.add("networks", joined)
    draft.name_another("ContainerNetworkScore", network)


def add_ulimit(draft: Draft, value: str) -> None:
    """Read NAME=SOFT[:HARD]."""
    key, equals, limits = value.partition("=")
    if not equals:
        raise ValueError(f"{value}: write NAME=SOFT:HARD, as in nofile=1024:2048")
    soft, _, hard = limits.partition(":")
    draft.put_key("ulimits", key, {"soft": _whole(soft), "hard": _whole(hard or soft)})


def security_option(draft: Draft, value: str) -> None:
    """Read one option of security: that nothing gains privileges."""
    key, _, given = value.replace("=", ":", 1).partition(":")
    match key:
        case "no-new-privileges":
            draft.put("no_new_privileges", is_true(given or "true"))
        case "label":
            draft.note(_NO_SELINUX)
        case _:
            raise ValueError(
                f"{value}: Harmony keeps its own profile, so that nothing in a container becomes root on the "
                "device; leave it out, or use --privileged"
            )


def restart(draft: Draft, value: str) -> None:
    """Read when podman starts it again."""
    match value:
        case "no" | "never":
            draft.put("restart", "no")
        case "always" | "on-failure":
            draft.put("restart", value)
        case "unless-stopped":
            draft.put("restart", "always")
            draft.note("a container that somebody stops is started again, since it is wanted")
        case _:
            raise ValueError(
                f"{value}: podman's attempts are not counted; write always, on-failure or no"
            )


def log_driver(draft: Draft, value: str) -> None:
    """Read who keeps the log: the journal, or podman, in a file."""
    match value:
        case "journald":
            draft.put("log_driver", value)
        case "k8s-file" | "json-file" | "local" | "file":
            draft.note("Harmony has podman keep the log in a file, for `harmony logs`")
        case _:
            raise ValueError(
                f"{value}: a log is kept for `harmony logs`; write journald or k8s-file, or leave it out"
            )


def log_option(draft: Draft, value: str) -> None:
    """Read one option of the log."""
    key, _, given = value.partition("=")
    match key:
        case "max-size":
            draft.put("log_bytes", size_bytes(given, thousand=1000))
        case "max-file":
            draft.note("a log that is full begins anew, and no older one is kept")
        case "tag" if given == "{{.Name}}":
            draft.note("the journal calls it by its name, unless it is told otherwise")
        case "tag":
            draft.put("log_tag", given)
        case _:
            raise ValueError(f"a log has no option {key}; leave it out")


def health_command(draft: Draft, value: str) -> None:
    """Read a command: a JSON list, or a line for a shell; CMD and CMD-SHELL before it as Docker has them."""
    if value.strip() in {"none", ""}:
        draft.keep("no-healthcheck", "true")
        return
    listed = _json_list(value)
    if listed == []:
        raise ValueError("an empty list is no command; write one, or none")
    first, *rest = listed or value.split(None, 1)
    if first == "CMD":
        draft.put_key("healthcheck", "command", rest if listed else " ".join(rest).split())
    elif first == "CMD-SHELL":
        draft.put_key("healthcheck", "shell", " ".join(rest))
    elif listed:
        draft.put_key("healthcheck", "command", listed)
    else:
        draft.put_key("healthcheck", "shell", value)


def entrypoint(draft: Draft, value: str) -> None:
    """Read a program: one word, or a JSON list; nothing is none."""
    words = _json_list(value)
    draft.put("entrypoint", words if words is not None else [value] if value else [])


def _json_list(value: str) -> list[str] | None:
    if not value.lstrip().startswith("["):
        return None
    try:
        found: object = json.loads(value)
    except ValueError as error:
        raise ValueError(f'{value} is no list in JSON; write one as in ["a", "b"]') from error
    return [str(word) for word in cast("list[object]", found)] if isinstance(found, list) else None


_READ_WRITE = ("/run", "/tmp", "/var/tmp")  # noqa: S108 - where a container that is read-only may write


def finish_container(draft: Draft) -> None:
    """Put together what means something only with the rest."""
    _finish_health(draft)
    _finish_networks(draft)
    _finish_read_only(draft)
    _finish_user(draft)


def _finish_health(draft: Draft) -> None:
    check = draft.spec.get("healthcheck")
    if any(is_true(value) for _, value in draft.later.get("no-healthcheck", ())):
        draft.spec.pop("healthcheck", None)
    elif isinstance(check, dict) and not {"command", "shell"} & check.keys():
        draft.importing.refuse(
            draft.where_of(("healthcheck",), ""),
            "the image's own check is taken as it is; give its command, too (--health-cmd)",
        )
        del draft.spec["healthcheck"]


def _finish_networks(draft: Draft) -> None:
    networks: list[dict[str, Any]] = draft.spec.get("networks", [])
    for where, alias in draft.later.get("network-alias", ()):
        if not networks:
            draft.importing.refuse(where, "podman's own network has no names; name a network")
        for network in networks:
            network["aliases"] = [*network.get("aliases", ()), alias]
    for where, address in draft.later.get("ip", ()):
        if not networks or len(networks) > 1:
            draft.importing.refuse(
                where,
                "which network the address is of is not known; name one network, as its option ip=",
            )
        elif "address" in networks[0]:
            draft.importing.refuse(
                where, "it has two addresses on one network; leave one to podman"
            )
        else:
            networks[0]["address"] = address
            draft.origins["networks", 0] = where


def _finish_read_only(draft: Draft) -> None:
    """Add the directories in which podman lets a container write that is read-only."""
    _, wanted = draft.later.get("read-only-tmpfs", [("", "true")])[-1]
    if not draft.spec.get("read_only") or not is_true(wanted):
        return
    taken = {
        each_one["target"]
        for field in ("mounts", "volumes", "tmpfs")
        for each_one in draft.spec.get(field, ())
    }
    draft.where = draft.origins.get(("read_only",), "")
    for target in _READ_WRITE:
        if target not in taken:
            draft.add("tmpfs", {"target": target})


def _finish_user(draft: Draft) -> None:
    """Put user and group together, which Quadlet has apart."""
    for where, group in draft.later.get("group", ()):
        if "user" not in draft.spec:
            draft.importing.refuse(where, "a group without its user; add User")
        else:
            draft.spec["user"] = f"{draft.spec['user']}:{group}"
