"""Every key of the Compose Specification is done, refused or of no meaning: nothing is left out unsaid."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harmony_control.compose.keys import DONE, NO_MEANING, REFUSED, find_meaning
from harmony_control.compose.schema import keys_of_schema
from harmony_core.errors import ComposeFileError

from .compose_files import read


def test_every_key_of_the_schema_is_in_one_list() -> None:
    keys = list(keys_of_schema())
    assert len(keys) > 300
    assert {key: len(find_meaning(key)) for key in keys if len(find_meaning(key)) != 1} == {}


def test_the_lists_have_no_other_keys() -> None:
    assert {*DONE, *REFUSED, *NO_MEANING} <= {*keys_of_schema()}


def test_a_key_in_none_or_two_would_be_found() -> None:
    assert find_meaning("services.*.image_of_tomorrow") == []
    assert Counter(means for means, _, _ in find_meaning("services.*.build.context")) == {
        "refused": 1
    }


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_refusal_says_what_to_do(key: str) -> None:
    words = REFUSED[key]
    remedies = ["write", "remove", "use", "run", "push", "copy", "set", "have", "roll", "policy"]
    assert any(each in words for each in remedies), words
    assert words == words.strip()
    assert not words.endswith(".")


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("build: .", "services.web.build: nothing is built on a device"),
        ("deploy: {mode: global}", "services.web.deploy.mode: it is for Swarm"),
        ("scale: 2", "services.web.scale: a device runs one of each"),
        ("deploy: {replicas: 3}", "services.web.scale: a device runs one of each"),
        ("network_mode: service:db", "services.web.network_mode: a container has a network of its own"),
        ("ports: ['80']", "services.web.ports[0]: no port of the device leads to 80"),
        ("ports: ['80:80/sctp']", "services.web.ports[0]: 'sctp' is not published"),
        ("volumes: [/data]", "services.web.volumes[0]: has no name"),
        ("volumes: ['data:/d:nocopy']", "services.web.volumes[0].volume: a volume is mounted whole"),
        ("volumes: [{type: image, source: x, target: /x}]", "'image' is not mounted"),
        ("volumes: ['/a:/b:shared']", "services.web.volumes[0].bind.propagation: 'shared' is not done"),
        ("devices: [nvidia.com/gpu=all]", "services.web.devices[0]: nvidia.com/gpu=all is not below"),
        ("security_opt: [apparmor=unconfined]", "services.web.security_opt[0]: "),
        ("ipc: service:db", "services.web.ipc: 'service:db' is not done; write host"),
        ("logging: {driver: syslog}", "services.web.logging.driver: 'syslog' is not done"),
        (
            "logging: {driver: journald, options: {max-size: 1m}}",
            "services.web.logging.options.max-size: the journal has limits of its own",
        ),
        (
            "logging: {driver: journald, options: {labels: a}}",
            "services.web.logging.options.labels: podman has no such option of journald; remove it",
        ),
        (
            "logging: {driver: journald, options: {env: A}}",
            "services.web.logging.options.env: podman has no such option of journald; remove it",
        ),
        ("deploy: {restart_policy: {condition: any}}\n    restart: on-failure",
         "services.web.deploy.restart_policy: is always, which differs from restart"),
        ("deploy: {restart_policy: {}}\n    restart: 'no'",
         "services.web.deploy.restart_policy: is always, which differs from restart"),
        ("restart: sometimes", "services.web.restart: 'sometimes' is no rule"),
        ("extra_hosts: [a=1.1.1.1, a=1.1.1.2]", "services.web.extra_hosts.a: has several addresses"),
        ("links: ['db:mysql']", "services.web.links[0]: write the alias mysql at db"),
    ],
)  # fmt: skip
def test_what_no_container_can_have_is_refused_by_name(
    tmp_path: Path, says: str, told: str
) -> None:
    text = (
        f"services:\n  db: {{image: db}}\n  web:\n    image: web\n    {says}\nvolumes: {{data: }}\n"
    )
    with pytest.raises(ComposeFileError) as raised:
        read(tmp_path, text)
    (line,) = raised.value.message.splitlines()
    assert line.startswith(f"{tmp_path}/compose.yaml:5: services.web.")
    assert told in line


def test_what_says_no_to_something_is_as_it_is_here(tmp_path: Path) -> None:
    text = """
    services:
      web: {image: web, tty: false, depends_on: {db: {condition: service_started, restart: false}}}
      db: {image: db, stdin_open: true}
    """
    project = read(tmp_path, text)
    assert "tty" not in project.document["services"]["web"]
    (note,) = project.notes
    assert "services.db.stdin_open has no meaning here" in note


def test_what_has_no_meaning_is_left_out_and_said_once(tmp_path: Path) -> None:
    text = """
    version: "3.8"
    x-mine: {anything: [goes]}
    services:
      web: {image: web, tty: true, expose: [80], x-own: 1}
      db: {image: db, tty: true, logging: {options: {max-size: 1m, max-file: "3"}}}
    volumes: {unused: }
    """
    project = read(tmp_path, text)
    assert project.document["services"]["web"] == {"image": "web", "networks": {"default": None}}
    assert project.document["services"]["db"]["logging"] == {"options": {"max-size": "1m"}}
    assert "x-mine" not in project.document
    notes = [note.removeprefix(f"{tmp_path}/compose.yaml:") for note in project.notes]
    assert [note.partition(";")[0] for note in notes] == [
        "7: volumes.unused: no service uses it, and it is not made",
        "2: version has no meaning here: compose files have no versions any more",
        "5: services.web.tty has no meaning here: nobody is at its terminal",
        "5: services.*.expose has no meaning here: containers on one network reach every port of each other",
        "6: services.db.tty has no meaning here: nobody is at its terminal",
        "6: the logging option max-file has no meaning here: podman keeps one file, and begins it anew",
    ]
