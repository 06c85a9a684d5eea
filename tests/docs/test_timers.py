"""docs/timers.md says what the code says, and leaves no time out."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from harmony_core import resources

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "timers.md").read_text()
PACKAGES = (
    "harmony_core",
    "harmony_scores",
    "harmony_pi_topology",
    "harmony_agent",
    "harmony_control",
)
CONSTANTS = re.findall(r"^\| .* \| ([^|]+) \| `([\w/]+\.py)` `([\w.]+)` \|$", PAGE, re.MULTILINE)
FIELDS = re.findall(r"^\| .* \| ([^|]+) \| `(\w+)\.(\w+)` \|$", PAGE, re.MULTILINE)
UNITS = {
    "": 1,
    "s": 1,
    "min": 60,
    "h": 3_600,
    "days": 86_400,
    "KiB": 1024,
    "MiB": 1024**2,
}
MODELS: Mapping[str, type[BaseModel]] = {
    name: value
    for name, value in vars(resources).items()
    if isinstance(value, type) and issubclass(value, BaseModel)
}
OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Mult: lambda one, other: one * other,
    ast.Pow: math.pow,
    ast.Sub: lambda one, other: one - other,
}


def as_number(text: str) -> float:
    amount, _, unit = text.partition(" ")
    return float(amount.replace(",", "")) * UNITS[unit]


def numbers(module: Path) -> Iterator[tuple[str, float]]:
    """Yield the numbers that *module* gives a name to, and those of its objects as ``NAME.field``."""
    known: dict[str, float] = {}
    for statement in ast.parse(module.read_text()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if isinstance(value, ast.Call):
            for field in value.keywords:
                part = worked_out(field.value, known)
                if part is not None:
                    yield f"{name}.{field.arg}", part
            continue
        number = worked_out(value, known)
        if number is not None:
            known[name] = number
            yield name, number


def worked_out(value: ast.expr, known: Mapping[str, float]) -> float | None:
    match value:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name):
            return known.get(name)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in OPERATORS:
            one, other = worked_out(left, known), worked_out(right, known)
            return None if one is None or other is None else OPERATORS[type(operator)](one, other)
        case _:
            return None


def test_each_constant_is_what_is_told() -> None:
    found = {module: dict(numbers(TREE / module)) for _, module, _ in CONSTANTS}
    wrong = [
        f"{module} {name} is {found[module].get(name)}, not {told}"
        for told, module, name in CONSTANTS
        if found[module].get(name) != as_number(told)
    ]
    assert wrong == []


def test_each_field_has_the_default_that_is_told() -> None:
    assert FIELDS
    for told, model, name in FIELDS:
        assert (name, MODELS[model].model_fields[name].default) == (name, as_number(told))


def test_no_time_and_no_public_bound_is_left_out() -> None:
    told = {(module, name) for _, module, name in CONSTANTS}
    missing = [
        f"{module} {name}"
        for package in PACKAGES
        for path in sorted((TREE / package).rglob("*.py"))
        if "testing" not in path.parts
        for module in [str(path.relative_to(TREE))]
        for name, number in numbers(path)
        if is_to_be_told(name, number) and (module, name) not in told
    ]
    assert missing == []


def is_to_be_told(name: str, number: float) -> bool:
    if name.endswith(("_S", "_s")):
        return 0.1 <= number < 86_400
    is_bound = re.search(r"(^|_)(MOST|MAX|BYTES)(_|$)", name)
    return is_bound is not None and not name.startswith("_")
