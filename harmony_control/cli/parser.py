"""What can be typed. Imports nothing but argparse: ``harmony --help`` is read by waiting people."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from .import_parser import add_import
from .rollout_parser import add_rollout
from .secret_parser import add_secret
from .trust_parser import add_trust
from .volume_parser import add_volume

__all__ = ["parser"]

_EXITS = (
    "exit codes: 0 in order, 1 a Score failed, 2 bad input or usage, 3 refused before pushing, "
    "4 not reachable or no answer in time, 5 a plan has changes"
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line. ``options.module`` names the module that runs the
    command."""
    top = _Parser(
        prog="harmony",
        description="Desired state for fleets of small machines.",
        epilog=_EXITS,
        parents=[_common()],
        # What scripts write in full goes on to mean the same.
        allow_abbrev=False,
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="name")
    # Accepted before the command and after it; what is not repeated there is left as it is.
    common = _common(default=argparse.SUPPRESS)

    def command(
        name: str, module: str, text: str, taking: _Parser = common
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, parents=[taking], help=text, description=text, epilog=_EXITS, allow_abbrev=False
        )
        made.set_defaults(module=module)
        return made

    _server(command("server", "server", "run the message server, NATS (safe to run twice)"))
    _serve(command("serve", "serve", "show the fleet in a browser and over HTTP"))
    _serve_user(
        command("serve-user", "serve", "manage the users who may sign in to `harmony serve`")
    )
    _alerts(
        command(
            "alerts", "alerts", "send a test alert to every receiver of `harmony serve --alerts`"
        )
    )
    _keygen(command("keygen", "keygen", "make the operator's keys"))
    _add_operator(command("add-operator", "operators", "let another operator into this fleet"))
    _remove_operator(command("remove-operator", "operators", "cut another operator off"))
    _join(
        command(
            "join", "operators", "join a fleet as an operator; its server runs on another machine"
        )
    )
    _enroll(
        command("enroll", "enroll", "install the agent on a device over ssh, and enrol the device")
    )
    _invite(command("invite", "invite", "make an invitation, with which a device enrols itself"))
    _accept(command("accept", "accept", "accept devices that wait, or list them"))
    _add_agent(command("add-agent", "add_agent", "enrol a device, and write its agent.toml"))
    _agents_named(command("revoke", "revoke", "cut off devices whose keys somebody else may have"))
    _retire(command("retire", "retire", "remove devices from the fleet, and delete their records"))
    trust = command(
        "trust", "trust", "manage the keys that may sign, and what they may sign, on all devices"
    )
    add_trust(trust, common, _completes_files)
    _push(command("push-score", "push", "add or replace Scores on a device"))
    _begin(command, common)
    _plan(command("plan", "plan", "show what the folder of a fleet would change"))
    _apply(command("apply", "plan", "apply the folder of a fleet, wave by wave"))
    rollout = command("rollout", "rollout", "show rollouts; pause, resume, abort or promote them")
    add_rollout(rollout, common, _cosigning)
    _freeze(command("freeze", "freeze", "stop devices from starting new generations of classes"))
    _cosigning(command("thaw", "freeze", "end a freeze"))
    _explain(
        command("explain", "explain", "explain why a Score is on a device, missing, or waiting")
    )
    _remove(
        command(
            "remove-score", "push", "remove Scores from a device, with everything that they made"
        )
    )
    _label(
        command("label", "label", "show or set the labels of a device, which its Scores can read")
    )
    _keep(command, common)
    _approve(command("approve", "approve", "confirm a large removal"))
    _agents(
        command(
            "agents",
            "agents",
            "list devices, one row each; --where filters them",
            _common_of_rows(),
        )
    )
    _status(
        command("status", "status", "show the state of all devices, or of one device in detail")
    )
    _look(command, common)
    _agent(command("history", "history", "list the revisions of a device"))
    _rollback(command("rollback", "history", "roll a device back to an earlier revision"))
    _diff(command("diff", "diff", "ask the device what a push would change"))
    _logs(command("logs", "logs", "show the logs of a Score's services and containers"))
    _events(command("events", "events", "list the changes on a device, with the reason of each"))
    _audit(command("audit", "audit", "verify a device's audit events against what was seen before"))
    _do_now(command)
    _kinds(command("kinds", "kinds", "list the kinds of Score, or the fields of one kind"))
    _completion(command("completion", "completion", "print a script for shell completion"))
    return top


def _look(
    command: Callable[[str, str, str], argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the commands that show what one device is and has."""
    for name, what in (
        ("describe", "show everything that is known of a device, with reasons"),
        ("inventory", "show a device's hardware"),
        ("volumes", "list the volumes of a device, with their owners"),
    ):
        _agent(command(name, name, what))
    add_volume(
        command("volume", "volumes", "list, save and load the volumes of a device"),
        common,
        _agent,
        _completes_files,
    )


def _do_now(command: Callable[[str, str, str], argparse.ArgumentParser]) -> None:
    """Add the commands that make a device do now what it would do later."""
    _reconcile(command("reconcile", "reconcile", "make a device check its Scores now"))
    _release(command("release", "reconcile", "apply the changes that an application has postponed"))
    _reboot(command("reboot", "reboot", "reboot devices, and wait until they are back in order"))


def _begin(
    command: Callable[[str, str, str], argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the commands for starting to write Scores."""
    imports = command(
        "import", "import_scores", "convert what podman or Docker runs to Scores, and print them"
    )
    add_import(imports, common, _completes_files, _of_compose)
    _new(command("new", "new", "write a small folder of Scores to start from"))
    _init(command("init", "plan", "write a folder that describes a fleet, to start from"))


def _keep(
    command: Callable[[str, str, str], argparse.ArgumentParser], common: argparse.ArgumentParser
) -> None:
    """Add the commands for what Scores take from elsewhere than a Score file."""
    add_secret(
        command("secret", "secret", "store the secrets that Scores use as ${secret.NAME}"),
        common,
        lambda action: _completes(action, _FILES),
    )
    _assets(
        command("assets", "assets", "list or delete files that are too large for manifests"), common
    )
    _bundle(
        command(
            "bundle",
            "bundle",
            "write everything that a device would fetch to a file that you carry to it",
        )
    )


def _assets(made: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    whats = made.add_subparsers(required=True, metavar="WHAT", dest="verb")

    def what(name: str, text: str) -> argparse.ArgumentParser:
        return whats.add_parser(
            name, parents=[common], help=text, description=text, allow_abbrev=False
        )

    what("list", "list the assets on the server, with the devices and classes that need each")
    pruned = what("prune", "delete the assets from the server that no manifest names")
    pruned.add_argument("--yes", action="store_true", help="do not ask")
    removed = what("remove", "delete an asset from the server; you can push it again from its file")
    removed.add_argument("asset", metavar="ID", help="the asset's id, as `list` shows it")


def _new(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "template",
        choices=("kiosk", "web-app", "mqtt", "compose", "python-score"),
        metavar="TEMPLATE",
        help="kiosk, web-app, mqtt, compose, or python-score for a kind of your own",
    )
    folder = made.add_argument(
        "folder", metavar="FOLDER", help="target folder; no file is overwritten"
    )
    _completes(folder, _DIRECTORIES)


def _completion(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "shell",
        nargs="?",
        default="bash",
        choices=("bash", "zsh", "tcsh"),
        help='for bash, in ~/.bashrc: eval "$(harmony completion bash)"',
    )
    made.add_argument(
        "--list", choices=("devices", "scores", "kinds", "operators"), help=argparse.SUPPRESS
    )


def _common(
    default: str | None = None,
    *,
    outputs: Sequence[str] = ("json",),
    told: str = "the same as --json",
) -> _Parser:
    common = _Parser(add_help=False)
    home = common.add_argument(
        "--home",
        default=default,
        metavar="DIR",
        help="the operator's directory (default: $HARMONY_HOME, ~/.harmony)",
    )
    _completes(home, _DIRECTORIES)
    off = default or False
    common.add_argument("--json", action="store_true", default=off, help="one JSON document a line")
    common.add_argument("-o", dest="output", default=default, choices=outputs, help=told)
    common.add_argument(
        "--no-color", action="store_true", default=off, help="no colours (also: NO_COLOR)"
    )
    return common


def _common_of_rows() -> _Parser:
    return _common(
        argparse.SUPPRESS,
        outputs=("json", "yaml", "wide", "name"),
        told="output format instead of the table; wide adds vitals and labels (--json is -o json)",
    )


def _server(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="address to listen on (default: 127.0.0.1:4222); use 0.0.0.0:4222 for devices",
    )
    made.add_argument("--fleet", metavar="NAME", help='the fleet\'s name (default: "home")')
    for name, what in (
        ("--tls-cert", "the server's certificate (PEM), issued by your own authority"),
        ("--tls-key", "its key"),
        ("--tls-ca", "the certificate of that authority, which devices will trust"),
    ):
        _completes(made.add_argument(name, metavar="FILE", help=what), _FILES)
    instead = made.add_mutually_exclusive_group()
    _completes(
        instead.add_argument(
            "--export",
            metavar="DIR",
            help="do not start a server; write the configuration for your own NATS server to DIR",
        ),
        _FILES,
    )
    made.add_argument(
        "--cluster",
        metavar="HOST,HOST,HOST",
        help="with --export: three servers that form a cluster, such as nats-1,nats-2,nats-3",
    )
    made.add_argument(
        "--leaf",
        metavar="SITE=HOST:PORT",
        help="with --export: add a site with its own server (a NATS leaf node) at that address",
    )
    made.add_argument(
        "--new-key",
        action="store_true",
        help="with --leaf: make a new key for the site's server; the old key is rejected",
    )
    made.add_argument(
        "--remove-leaf",
        metavar="SITE",
        help="with --export: remove that site, which must have no devices; its server is rejected",
    )
    made.add_argument(
        "--jwt",
        action="store_true",
        help="with --export: authenticate users by JWTs, which `harmony server` sends to that "
        "server",
    )
    made.add_argument(
        "--expire",
        metavar="TIME",
        help="with --jwt: lifetime of a device's JWT, such as 90d; devices renew it in time "
        "(default: no limit)",
    )
    instead.add_argument(
        "--check", metavar="URL", help="do not start a server; check the one at URL"
    )
    _completes(
        made.add_argument(
            "--device",
            metavar="FILE",
            help="with --check: an agent.toml; also check the rights of this device",
        ),
        _FILES,
    )


def _serve(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--listen",
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="address to listen on (default: 127.0.0.1:8080); addresses that other machines can "
        "reach need TLS",
    )
    for name, what in (("--tls-cert", "a certificate (PEM)"), ("--tls-key", "its key")):
        _completes(made.add_argument(name, metavar="FILE", help=what), _FILES)
    made.add_argument(
        "--behind-proxy",
        action="store_true",
        help="a proxy in front of this server terminates TLS, and only the proxy can reach this "
        "port",
    )
    token = made.add_argument(
        "--metrics-token-file",
        metavar="FILE",
        help="serve /metrics to clients that send the token in FILE as Authorization: Bearer",
    )
    _completes(token, _FILES)
    made.add_argument(
        "--metrics-listen",
        metavar="HOST:PORT",
        help="serve /metrics at this separate address, without TLS and without a token",
    )
    alerts = made.add_argument(
        "--alerts", metavar="FILE", help="send alerts to the receivers that FILE names (TOML)"
    )
    _completes(alerts, _FILES)


def _alerts(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "verb",
        choices=("test",),
        metavar="test",
        help="send a test alert to every receiver in FILE",
    )
    _completes(made.add_argument("file", metavar="FILE", help="the alerts file (TOML)"), _FILES)


def _serve_user(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "verb",
        choices=("add", "remove", "list"),
        metavar="VERB",
        help="add (or change), remove or list users; the command asks for the password, or reads "
        "it from standard input",
    )
    made.add_argument("user", nargs="?", metavar="NAME", help="the name of the user")
    made.add_argument(
        "--role",
        choices=("viewer", "operator", "approver"),
        default="viewer",
        help="viewer: look (the default); operator: also reconcile devices, and pause rollouts; "
        "approver: also resume and abort rollouts",
    )


def _add_operator(made: argparse.ArgumentParser) -> None:
    made.set_defaults(verb="add-operator")
    made.add_argument("name", metavar="NAME", help="a name for the operator, such as bob")
    _completes(
        made.add_argument("file", metavar="FILE", help="the operator's operator.pub"), _FILES
    )
    made.add_argument(
        "--read-only",
        action="store_true",
        help="the operator may look and not push, and no device trusts the key",
    )
    _tried_url(made, "the operator")
    _completes(
        made.add_argument(
            "--out", metavar="FILE", help="the file to send back (default: NAME.fleet)"
        ),
        _FILES,
    )


def _remove_operator(made: argparse.ArgumentParser) -> None:
    made.set_defaults(verb="remove-operator")
    name = made.add_argument(
        "name", metavar="NAME", help="the operator's name, as given to add-operator"
    )
    _completes(name, _OPERATORS)


def _join(made: argparse.ArgumentParser) -> None:
    made.set_defaults(verb="join")
    file = made.add_argument(
        "file", metavar="FILE", help="the file that `harmony add-operator` has written"
    )
    _completes(file, _FILES)


def _enroll(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "destinations",
        nargs="+",
        metavar="USER@HOST",
        help="a destination for ssh, such as root@pi-1",
    )
    made.add_argument("--id", metavar="ID", help="the device's id (default: the host's name)")
    _url(made)
    _over_ssh(made)
    _wheel(made)
    _replacing(made)


def _wheel(made: argparse.ArgumentParser) -> None:
    _completes(
        made.add_argument(
            "--wheel",
            metavar="FILE",
            help="the wheel to install (default: the version that is installed here)",
        ),
        _FILES,
    )


def _over_ssh(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--ssh",
        default="ssh",
        metavar="COMMAND",
        help='the ssh command to use, such as "ssh -p 2222"',
    )
    made.add_argument(
        "--sudo", action="store_true", help="the user on the device is not root, but may use sudo"
    )


def _invite(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "agent",
        nargs="?",
        metavar="ID",
        help="the only device that may use the invitation (default: each device names its own id)",
    )
    _tried_url(made)
    made.add_argument(
        "--count", type=int, default=1, metavar="N", help="how many devices may use it (default: 1)"
    )
    made.add_argument(
        "--expires-in",
        default="1d",
        metavar="TIME",
        help="how long devices may use it (default: 1d)",
    )
    made.add_argument(
        "--ask", action="store_true", help="devices that use it wait until `harmony accept`"
    )
    made.add_argument(
        "--withdraw", action="store_true", help="make no invitation; withdraw all open invitations"
    )
    written = made.add_mutually_exclusive_group()
    _completes(
        written.add_argument("--out", metavar="FILE", help="write the invitation to FILE"), _FILES
    )
    _completes(
        written.add_argument(
            "--first-boot",
            metavar="FILE",
            help="write a user-data file for cloud-init: a Pi installs the agent and enrols at its "
            "first boot; the content of an existing file is kept",
        ),
        _FILES,
    )
    _wheel(made)
    _replacing(made)


def _accept(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "agents",
        nargs="*",
        metavar="ID",
        help="the ids of the devices: all or none (default: list them)",
    )
    made.add_argument(
        "--refuse", action="store_true", help="refuse the devices, and delete their requests"
    )
    made.add_argument("--yes", action="store_true", help="do not ask")


def _url(made: argparse.ArgumentParser, who: str = "the device") -> None:
    made.add_argument("--url", help=f"the server's address as {who} sees it: tls://HOST:PORT")


def _tried_url(made: argparse.ArgumentParser, who: str = "the device") -> None:
    _url(made, who)
    made.add_argument(
        "--no-try",
        dest="is_tried",
        action="store_false",
        help="write that address untried: it is not reached from this machine",
    )


def _replacing(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--replace",
        action="store_true",
        help="if the device has a key, make a new one and revoke the old one",
    )


def _add_agent(made: argparse.ArgumentParser) -> None:
    made.add_argument("agent", metavar="ID", help="the device's id, such as pi-1")
    _tried_url(made)
    _completes(made.add_argument("--out", metavar="FILE", help="where to write agent.toml"), _FILES)
    _replacing(made)
    made.add_argument(
        "--site",
        metavar="SITE",
        help="the device connects to the server of that site (harmony server --leaf)",
    )


def _keygen(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--token",
        metavar="URI",
        help="sign with a key in a hardware token, such as 'pkcs11:token=NAME;object=ada'",
    )


def _retire(made: argparse.ArgumentParser) -> None:
    _agents_named(made)
    made.add_argument(
        "--uninstall",
        metavar="USER@HOST",
        help="also remove the agent from the one device, over ssh",
    )
    _over_ssh(made)
    made.add_argument("--yes", action="store_true", help="do not ask")


def _cosigning(made: argparse.ArgumentParser) -> None:
    _completes(
        made.add_argument(
            "--sign-with",
            action="append",
            metavar="KEY",
            help="sign also with this key, if several must sign: a file, or a URI as for `harmony "
            "trust sign`; repeatable",
        ),
        _FILES,
    )


def _agents_named(made: argparse.ArgumentParser) -> None:
    _completes(
        made.add_argument(
            "agents", nargs="+", metavar="AGENT", help="the devices' ids: all or none"
        ),
        _DEVICES,
    )


def _agents_chosen(made: argparse.ArgumentParser) -> None:
    _completes(
        made.add_argument(
            "agent",
            metavar="AGENT",
            help="the device's id, several (pi-1,pi-2), or a pattern ('kiosk-*')",
        ),
        _DEVICES,
    )
    _where(made)


def _where(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--where",
        metavar="EXPR",
        help="instead of AGENT: all devices that match EXPR, such as 'labels.site == attic'",
    )


def _agent(made: argparse.ArgumentParser) -> None:
    _completes(made.add_argument("agent", metavar="AGENT", help="the device's id"), _DEVICES)


def _score(made: argparse.ArgumentParser) -> None:
    _completes(made.add_argument("score", metavar="SCORE", help="the Score's id"), _SCORES)


def _of_compose(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--profile",
        action="append",
        default=[],
        metavar="NAME",
        help="(compose files) activate this profile; repeatable",
    )
    files = made.add_argument(
        "--env-file",
        action="append",
        default=[],
        metavar="FILE",
        help="(compose files) read variables from FILE instead of .env; repeatable",
    )
    _completes(files, _FILES)


def _push(made: argparse.ArgumentParser) -> None:
    _agents_chosen(made)
    files = made.add_argument(
        "files",
        nargs="*",
        default=[],
        metavar="FILE",
        help="Score files (Python, YAML or JSON; - is standard input), or compose files",
    )
    _completes(files, _FILES)
    made.add_argument(
        "--all", action="store_true", help="push again what was pushed last from this home"
    )
    _checking(made)
    made.add_argument(
        "--expires-in",
        metavar="TIME",
        help="how long (12h, 30d) devices may accept the push; applied Scores stay (default: "
        "never expires)",
    )
    made.add_argument(
        "--dry-run",
        action="store_true",
        help="push nothing; show what would change, like `harmony diff`",
    )
    made.add_argument(
        "--prune",
        dest="whole",
        action="store_true",
        help="also remove the Scores that are in none of the files (asks first)",
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    _class(made)
    _of_compose(made)
    _cosigning(made)
    _waiting(
        made,
        or_of_a_class=" (a class: no limit by default; after the time, this command opens no more waves)",
    )
    made.set_defaults(timeout=None)


def _class(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--class",
        dest="cls",
        metavar="CLASS",
        help="instead of AGENT: push a new generation to the devices of a class, wave by wave",
    )
    made.add_argument(
        "--selector",
        metavar="LABELS",
        help="labels of the devices in the class, such as role=kiosk (default: as before)",
    )
    made.add_argument(
        "--canary",
        metavar="LABELS",
        help="labels of the devices in the first wave, such as ring=canary (default: as before)",
    )
    made.add_argument(
        "--step",
        action="append",
        default=[],
        metavar="UPTO[:SOAK]",
        help="a wave: up to how many devices, and how long they must be in order, such as "
        "1%%:10m; repeatable (default: as before; for a new class, all devices at once)",
    )


def _init(made: argparse.ArgumentParser) -> None:
    _folder(made)
    made.add_argument(
        "--python",
        action="store_true",
        help="write fleet.py, which a type checker can check, instead of fleet.yaml",
    )


def _folder(made: argparse.ArgumentParser) -> None:
    folder = made.add_argument(
        "folder",
        nargs="?",
        default=".",
        metavar="DIR",
        help="the folder with fleet.yaml or fleet.py (default: the current folder)",
    )
    _completes(folder, _FILES)


def _plan(made: argparse.ArgumentParser) -> None:
    _folder(made)
    device = made.add_argument(
        "--device", metavar="AGENT", help="ask this device what would change on it"
    )
    _completes(device, _DEVICES)
    _resolving(made)
    _of_compose(made)
    _pruning(made)


def _pruning(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--prune",
        action="store_true",
        help="also remove classes that are not in the folder, in their own waves",
    )


def _apply(made: argparse.ArgumentParser) -> None:
    _folder(made)
    _resolving(made)
    _of_compose(made)
    _pruning(made)
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument(
        "--no-wait",
        dest="wait",
        action="store_false",
        help="open only the first wave; `harmony rollout run CLASS` opens the others",
    )
    _cosigning(made)


def _freeze(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--until",
        metavar="TIME",
        help="a duration (12h, 2d), or the end (2026-12-27 08:00); default: until `harmony thaw`",
    )
    made.add_argument(
        "--reason", metavar="TEXT", help="the reason, which is shown with each device"
    )
    _cosigning(made)


def _explain(made: argparse.ArgumentParser) -> None:
    _agent(made)
    _score(made)


def _remove(made: argparse.ArgumentParser) -> None:
    _agent(made)
    ids = made.add_argument("ids", nargs="+", metavar="ID", help="the Scores' ids")
    _completes(ids, _SCORES)
    _forcing(made)
    _cosigning(made)
    _waiting(made)


def _label(made: argparse.ArgumentParser) -> None:
    _agent(made)
    made.add_argument(
        "labels",
        nargs="*",
        default=[],
        metavar="LABEL",
        help="key=value sets a label, key- removes it (default: show all)",
    )
    _forcing(made)
    _cosigning(made)
    _waiting(made)


def _approve(made: argparse.ArgumentParser) -> None:
    _agent(made)
    made.add_argument("--yes", action="store_true", help="do not ask")
    _cosigning(made)
    _waiting(made)


def _rollback(made: argparse.ArgumentParser) -> None:
    _agent(made)
    made.add_argument(
        "--to",
        type=_revision,
        metavar="REVISION",
        help="the generation of the revision, as `harmony history` shows it; if there are several "
        "epochs, EPOCH:GENERATION (default: the last revision that differs)",
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    made.add_argument("--force", action="store_true", help="skip the check of the device's policy")
    _cosigning(made)
    _waiting(made)


def _diff(made: argparse.ArgumentParser) -> None:
    _agents_chosen(made)
    files = made.add_argument(
        "files",
        nargs="*",
        default=[],
        metavar="FILE",
        help="Score files (Python, YAML or JSON; - is standard input), or compose files",
    )
    _completes(files, _FILES)
    made.add_argument(
        "--exit-code",
        action="store_true",
        help="exit with 1 if anything would change, like git diff",
    )
    made.add_argument(
        "--whole",
        action="store_true",
        help="assume that all other Scores are removed, as with --prune",
    )
    _of_compose(made)
    _checking(made)


def _logs(made: argparse.ArgumentParser) -> None:
    _agent(made)
    _score(made)
    _reading(made, "lines")


def _events(made: argparse.ArgumentParser) -> None:
    agent = made.add_argument(
        "agent", nargs="?", metavar="AGENT", help="the device's id; or use --fleet"
    )
    _completes(agent, _DEVICES)
    score = made.add_argument(
        "score", nargs="?", metavar="SCORE", help="only the changes of this Score"
    )
    _completes(score, _SCORES)
    made.add_argument(
        "--fleet", action="store_true", help="the changes of all devices that are online"
    )
    made.add_argument(
        "--where",
        metavar="EXPR",
        help="with --fleet: only devices that match EXPR, such as 'labels.site == attic'",
    )
    _reading(made, "changes")


def _audit(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "verb",
        choices=("verify",),
        metavar="verify",
        help="verify that the events are complete and match the signed reports",
    )
    _agent(made)


def _reconcile(made: argparse.ArgumentParser) -> None:
    _agent(made)
    scores = made.add_argument(
        "scores", nargs="*", default=[], metavar="SCORE", help="only these Scores (default: all)"
    )
    _completes(scores, _SCORES)
    made.add_argument(
        "--enforce",
        action="store_true",
        help="also correct drift, once, of Scores with `policy.drift: report`",
    )
    _timeout(made, "after that, the device continues what it has started")


def _reboot(made: argparse.ArgumentParser) -> None:
    agents = made.add_argument(
        "agents",
        nargs="*",
        default=[],
        metavar="AGENT",
        help="devices, by their ids or a pattern ('kiosk-*')",
    )
    _completes(agents, _DEVICES)
    _where(made)
    made.add_argument(
        "--if-needed",
        action="store_true",
        help="only devices on which a Score or a Debian package needs a reboot",
    )
    made.add_argument(
        "--serial",
        action="store_true",
        help="one at a time; stop at the first device that is not in order afterwards",
    )
    made.add_argument("--yes", action="store_true", help="do not ask")
    _waiting(made, then="after that, the requested devices still reboot", timeout_s=600.0)


def _release(made: argparse.ArgumentParser) -> None:
    _agent(made)
    _score(made)


def _reading(made: argparse.ArgumentParser, what: str) -> None:
    made.add_argument("-f", "--follow", action="store_true", help="keep showing new lines")
    made.add_argument(
        "--since", metavar="TIME", help="only what is newer: a duration (10m, 2h, 1d), or a time"
    )
    made.add_argument(
        "--lines", type=_lines, default=100, metavar="N", help=f"the newest N {what} (100)"
    )


def _checking(made: argparse.ArgumentParser) -> None:
    _forcing(made)
    _resolving(made)


def _resolving(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--no-resolve",
        action="store_true",
        help="do not resolve image tags to digests here; the device does",
    )


def _forcing(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--force",
        action="store_true",
        help="skip the checks of enrolment, capabilities, device policy, generation and "
        "signature; ignore damaged local records",
    )


def _waiting(
    made: argparse.ArgumentParser,
    *,
    then: str = "after that, the push stays effective",
    or_of_a_class: str = "",
    timeout_s: float = 300.0,
) -> None:
    made.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait until the device has converged (the default)",
    )
    _timeout(made, f"{then}{or_of_a_class}", timeout_s)


def _timeout(made: argparse.ArgumentParser, then: str, timeout_s: float = 300.0) -> None:
    made.add_argument(
        "--timeout",
        type=_seconds,
        default=timeout_s,
        metavar="SECONDS",
        help=f"how long to wait, in seconds (default: {timeout_s:g}); {then}",
    )


def _status(made: argparse.ArgumentParser) -> None:
    agent = made.add_argument(
        "agent", nargs="?", metavar="AGENT", help="the id of one device, to show it in detail"
    )
    _completes(agent, _DEVICES)
    made.add_argument("--watch", action="store_true", help="keep showing changes")


def _agents(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--where",
        metavar="EXPR",
        help="only devices that match EXPR, such as 'device == Silent or memory < 64MiB'",
    )
    made.add_argument(
        "--sort",
        default="id",
        metavar="FIELD",
        help="sort by FIELD; a leading minus sorts descending (--sort=-temperature)",
    )
    made.add_argument("--watch", action="store_true", help="keep showing changes")


def _kinds(made: argparse.ArgumentParser) -> None:
    kind = made.add_argument("kind", nargs="?", metavar="KIND", help="show the fields of this kind")
    _completes(kind, _KINDS)
    made.add_argument(
        "--schema", action="store_true", help="print the JSON Schema of a Score file, for editors"
    )


_FILES = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}
_DIRECTORIES = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "tcsh": "d"}
_DEVICES = {"bash": "_harmony_devices", "zsh": "_harmony_devices"}
_SCORES = {"bash": "_harmony_scores", "zsh": "_harmony_scores"}
_KINDS = {"bash": "_harmony_kinds", "zsh": "_harmony_kinds"}
_OPERATORS = {"bash": "_harmony_operators", "zsh": "_harmony_operators"}
"""How shtab has each shell complete paths; written out, because importing it costs more than --help."""


def _completes(action: argparse.Action, how: dict[str, str]) -> None:
    setattr(action, "complete", how)  # noqa: B010 - shtab's own attribute, unknown to argparse


def _completes_files(action: argparse.Action) -> None:
    _completes(action, _FILES)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds up to 86400")
    return seconds


def _revision(text: str) -> int | tuple[int, int]:
    epoch, colon, number = text.rpartition(":")
    if not (number.isascii() and number.isdigit() and int(number) > 0) or (
        colon and not (epoch.isascii() and epoch.isdigit())
    ):
        raise argparse.ArgumentTypeError(f"{text!r} is not a revision; see harmony history")
    return (int(epoch), int(number)) if colon else int(number)


def _lines(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 10_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def _bundle(made: argparse.ArgumentParser) -> None:
    _agent(made)
    file = made.add_argument("file", metavar="FILE", help="output file; must not exist")
    _completes_files(file)
    made.add_argument(
        "--platform",
        metavar="PLATFORM",
        help="target platform of the images, such as linux/arm64 (default: the platform that the "
        "device reported last; linux/arm64 if it has never reported)",
    )
    made.add_argument(
        "--no-images",
        action="store_true",
        help="leave out images; the device has them, or can reach their registry",
    )
    made.add_argument(
        "--no-downloads",
        action="store_true",
        help="leave out downloads; the device has them, or can reach their servers",
    )


class _Parser(argparse.ArgumentParser):
    """Says which command was meant where one was mistyped."""

    def error(self, message: str) -> NoReturn:
        begin, typed, rest = "invalid choice: ", "", ""
        if begin in message:
            typed, _, rest = message.partition(begin)[2].partition(" (choose from ")
        if rest:
            from harmony_core.close_names import did_you_mean

            known = [each.strip(" '\"") for each in rest.rstrip(")").split(",")]
            if hint := did_you_mean(typed.strip("'\""), known):
                message = f"{typed} is not one of the choices{hint}"
        super().error(message)


class _Version(argparse.Action):
    """Prints the installed version; looked up only then."""

    def __init__(self, option_strings: list[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib import metadata

        print(metadata.version("harmony"))
        parser.exit()
