"""``harmony init``, ``harmony plan`` and ``harmony apply``: a fleet as a folder."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harmony_control.fleet import Fleet
from harmony_control.store.home import check_agent_id
from harmony_core.errors import HarmonyError, UsageError
from harmony_core.visible import word

from .common import home_of, out, signers_of, warn
from .confirm import confirm
from .exits import CHANGES, CONVERGED, FAILED, REFUSED, find_gravest
from .freeze import until_words
from .rollout import follow, tell_published
from .score_files import compose_settings
from .text import count_of

if TYPE_CHECKING:
    from harmony_control.device import Foreseen
    from harmony_control.plan.folder import Folder
    from harmony_control.plan.plan import ClassChange, DeviceChange, Difference, Plan

__all__ = ["run"]

_UNABLE_SHOWN = 5
_FLEET_YAML = """\
# A fleet as a folder: what `harmony plan` compares with what is signed, and `harmony apply` makes so.
# Keep it in git.

# Devices that were let in (harmony enroll root@HOST), with the labels by which they belong to classes.
devices: {}
#  pi-1:
#    labels: {role: kiosk, site: attic}

classes:
  # What all devices are to be that the selector selects.
  kiosk:
    selector: role=kiosk
    scores: [kiosk.yaml]
    rollout:
      # The devices of a wave must have been in order for its soak time before the next begins.
      steps:
        - {upto: 1%, soak: 10m}
        - {upto: 10%, soak: 10m}
        - 100%
"""
_KIOSK_YAML = """\
# The Scores of the class kiosk, as `harmony push-score` takes them.
- id: motd
  kind: FileScore
  spec:
    path: /etc/motd
    content: |
      A kiosk of our fleet.
"""
_FLEET_PY = """\
# A fleet as a folder: what `harmony plan` compares with what is signed, and `harmony apply` makes so.
# Keep it in git. A type checker (mypy, pyright) tells what a Pi cannot do before anything is planned.
from harmony_control import Class, DeviceConfig
from harmony_pi_topology import PiTopology
from harmony_scores import FileScore

# Devices that were let in (harmony enroll root@HOST), with the labels by which they belong to classes.
devices: dict[str, DeviceConfig[PiTopology]] = {
    # "pi-1": DeviceConfig(labels={"role": "kiosk", "site": "attic"}),
}

classes: dict[str, Class[PiTopology]] = {
    # What all devices are to be that the selector selects.
    "kiosk": Class(
        selector="role=kiosk",
        scores={"motd": FileScore(path="/etc/motd", content="A kiosk of our fleet.\\n")},
        # The devices of a wave must have been in order for its soak time before the next begins.
        rollout={
            "steps": [{"upto": "1%", "soak": "10m"}, {"upto": "10%", "soak": "10m"}, "100%"],
        },
    ),
}
"""


def run(options: argparse.Namespace) -> int:
    """Write the first files of a folder, print its plan, or apply it. Return 0 when there is nothing to write
    or all was written, 5 when a plan has changes."""
    match options.name:
        case "init":
            return _init(options)
        case "plan":
            return asyncio.run(_plan(options))
        case _:
            return asyncio.run(_apply(options))


def _init(options: argparse.Namespace) -> int:
    folder = Path(options.folder)
    yaml = {"fleet.yaml": _FLEET_YAML, "kiosk.yaml": _KIOSK_YAML}
    files = {"fleet.py": _FLEET_PY} if options.python else yaml
    for name in ("fleet.yaml", "fleet.py", *files):
        if (folder / name).exists():
            raise UsageError(f"{folder / name} is there already, and is left as it is")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
        out(options, {"event": "wrote", "file": str(folder / name)}, f"wrote {folder / name}")
    return CONVERGED


def _read(options: argparse.Namespace) -> Folder:
    from harmony_control.plan.folder import read_folder
    from harmony_core import plugins

    return read_folder(Path(options.folder), plugins.load(), compose_settings(options))


async def _plan(options: argparse.Namespace) -> int:
    folder = await asyncio.to_thread(_read, options)
    if options.device is not None:
        if options.prune:
            raise UsageError("--prune is of the whole fleet's plan; leave it out, or --device")
        check_agent_id(options.device)
    async with Fleet.connect(home_of(options)) as fleet:
        if options.device is not None:
            found = await fleet.plan_device(folder, options.device, resolve=not options.no_resolve)
            return _judge(options, found)
        plan = await fleet.plan(folder, resolve=not options.no_resolve)
        await _warn_of_freeze(options, fleet)
    _show(options, plan)
    return CHANGES if plan.is_to_be_written(prune=options.prune) else CONVERGED


def _judge(options: argparse.Namespace, found: Sequence[Foreseen]) -> int:
    """Print what a device foresees. Return 3 where its policy refuses a Score, 1 where one would fail, 5 when
    anything would change or cannot be known, else 0."""
    from harmony_control.device import refused_by_policy

    from .diff import is_quiet, show

    show(options, found)
    if refused_by_policy(found, {each.planned.score for each in found}):
        return REFUSED
    if any(each.planned.status == "FAILURE" for each in found):
        return FAILED
    return CONVERGED if is_quiet(found) else CHANGES


async def _warn_of_freeze(options: argparse.Namespace, fleet: Fleet) -> None:
    freeze = await fleet.read_freeze()
    if freeze is None:
        return
    why = f" ({word(freeze.reason)})" if freeze.reason else ""
    when = until_words(freeze.until)
    warn(options, f"the fleet is frozen {when}{why}: no device begins with anything new of a class")


async def _apply(options: argparse.Namespace) -> int:
    from harmony_control.rollout.publish import Published

    folder = await asyncio.to_thread(_read, options)
    async with Fleet.connect(home_of(options), sign_with=signers_of(options)) as fleet:
        plan = await fleet.plan(folder, resolve=not options.no_resolve)
        _show(options, plan)
        await _warn_of_freeze(options, fleet)
        if not plan.is_to_be_written(prune=options.prune):
            return CONVERGED
        if not options.yes and not await confirm("write this?"):
            out(options, {"event": "not applied"}, "nothing was changed")
            return CONVERGED
        rolled_out: list[str] = []
        async for done in fleet.apply(plan, prune=options.prune):
            if isinstance(done, Published):
                rolled_out.append(done.name)
                tell_published(options, done)
            else:
                name, pushed = done
                for warning in pushed.warnings:
                    warn(options, warning)
                fields = {"event": "pushed", "agent": name, "generation": pushed.generation}
                out(options, fields, f"device {name}: generation {pushed.generation}")
        if not options.wait or not rolled_out:
            return CONVERGED
        codes = await asyncio.gather(*(follow(options, fleet.rollout(name)) for name in rolled_out))
        return find_gravest(codes)


def _show(options: argparse.Namespace, plan: Plan) -> None:
    if options.json:
        print(json.dumps(_to_fields(plan)))
        return
    for line in _plan_lines(plan, prune=options.prune):
        print(line)


def _plan_lines(plan: Plan, *, prune: bool) -> Iterator[str]:
    for device in plan.devices:
        yield from _device_lines(device)
    for change in plan.classes:
        yield from _class_lines(change)
    for name, slots in plan.same_slot.items():
        for slot, members in slots.items():
            yield f"class {name}: {_devices(members)} of slot {slot} may begin at once: {_some(members)}"
    for retired in plan.retired:
        yield from _retired_lines(retired, prune=prune)
    if those := plan.not_in_folder:
        stay = "is not in the folder, and stays as it is"
        if len(those) > 1:
            stay = "are not in the folder, and stay as they are"
        yield f"{_devices(those)} {stay}: {_some(those)}"
    if not plan.is_to_be_written(prune=prune):
        yield "nothing else differs" if plan.retired or those else "nothing differs"


def _retired_lines(change: ClassChange, *, prune: bool) -> Iterator[str]:
    whose = _devices(change.members)
    if prune:
        yield f"class {change.name} is not in the folder, and is taken away from {whose}:"
        yield from _score_lines(change.scores)
        yield from _first_of([f"  ! {each}" for each in change.waiting.values()])
    else:
        yield f"class {change.name} is not in the folder, and stays on {whose}; --prune takes it away"


def _device_lines(change: DeviceChange) -> Iterator[str]:
    yield f"device {change.id}:"
    for label, (before, after) in change.labels.items():
        sign = "+" if before is None else "-" if after is None else "~"
        told = before if after is None else after
        yield word(f"  {sign} label {label}={told}")
    yield from _score_lines(change.scores)
    for name in change.without.added:
        yield f"  ~ does without {name}"
    for name in change.without.removed:
        yield f"  ~ does no more without {name}"
    if change.unsigned is not None:
        yield word(f"  ! {change.unsigned.message}")
    if change.unable is not None:
        yield word(f"  ! it cannot follow: {change.unable.message}")


def _class_lines(change: ClassChange) -> Iterator[str]:
    told = "is new" if change.is_new else "changes"
    yield f"class {change.name} {told}, on {_devices(change.members)}:"
    if change.selector is not None and not change.is_new:
        yield word(
            f"  ~ selector {change.selector[0] or '-'} -> {change.selector[1] or 'every device'}"
        )
    if change.priority is not None:
        # It stands in the fleet index, which no gate holds back.
        at_once = ": on all its devices at once, past the waves; an abort does not undo it"
        yield "  ~ priority {} -> {}".format(*change.priority) + ("" if change.is_new else at_once)
    for name, (before, after) in change.rollout.items():
        yield word(f"  ~ rollout.{name}: {before} -> {after}")
    if change.joining and not change.is_new:
        yield f"  + {_devices(change.joining)} join: {_some(change.joining)}"
    if change.leaving:
        yield f"  - {_devices(change.leaving)} leave: {_some(change.leaving)}"
    yield from _score_lines(change.scores)
    if change.unsigned is not None:
        yield word(f"  ! {change.unsigned.message}")
    yield from _first_of([f"  ! {each}" for each in change.waiting.values()])
    if change.unable:
        yield f"  ! {_devices(tuple(change.unable))} cannot follow:"
        why = [change.unable[name].message for name in sorted(change.unable)]
        yield from _first_of([f"      {each}" for each in why])


def _first_of(lines: Sequence[str]) -> Iterator[str]:
    yield from map(word, lines[:_UNABLE_SHOWN])
    if len(lines) > _UNABLE_SHOWN:
        yield f"      … and {len(lines) - _UNABLE_SHOWN} more; all of them: --json"


def _score_lines(scores: Difference) -> Iterator[str]:
    yield from (f"  + Score {each}" for each in scores.added)
    yield from (f"  ~ Score {each}" for each in scores.changed)
    yield from (f"  - Score {each}" for each in scores.removed)


def _devices(ids: Sequence[str]) -> str:
    return count_of(len(ids), "device")


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (" …" if len(ids) > 5 else "")


def _to_fields(plan: Plan) -> Mapping[str, object]:
    return {
        "classes": [_class_fields(each) for each in plan.classes],
        "retired": [_class_fields(each) for each in plan.retired],
        "not_in_folder": list(plan.not_in_folder),
        "same_slot": {
            name: {str(slot): list(members) for slot, members in slots.items()}
            for name, slots in plan.same_slot.items()
        },
        "devices": [
            {
                "id": each.id,
                "labels": {name: list(both) for name, both in each.labels.items()},
                "scores": _difference(each.scores),
                "without": _difference(each.without),
                "unable": _unable_fields(each.unable) if each.unable else None,
                "unsigned": _unable_fields(each.unsigned) if each.unsigned else None,
            }
            for each in plan.devices
        ],
    }


def _class_fields(change: ClassChange) -> Mapping[str, object]:
    return {
        "name": change.name,
        "new": change.is_new,
        "scores": _difference(change.scores),
        "selector": list(change.selector) if change.selector else None,
        "priority": list(change.priority) if change.priority else None,
        "rollout": {name: list(both) for name, both in change.rollout.items()},
        "members": list(change.members),
        "joining": list(change.joining),
        "leaving": list(change.leaving),
        "waiting": dict(change.waiting),
        "unable": {name: _unable_fields(each) for name, each in sorted(change.unable.items())},
        "unsigned": _unable_fields(change.unsigned) if change.unsigned else None,
    }


def _unable_fields(error: HarmonyError) -> Mapping[str, str]:
    return {"code": error.code, "message": error.message}


def _difference(found: Difference) -> Mapping[str, object]:
    return {
        "added": list(found.added),
        "changed": list(found.changed),
        "removed": list(found.removed),
    }
