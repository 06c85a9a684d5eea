"""Where in a YAML or JSON Score file something stands: looked for only once something is wrong there."""

# ruamel.yaml is untyped; what crosses this seam is typed below.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

__all__ = ["Lines"]


class Lines:
    """The lines of one file that could be read. JSON is read as the YAML that it nearly always is."""

    def __init__(self, data: bytes) -> None:
        try:
            self._root: Node | None = YAML(typ="safe", pure=True).compose(data.decode())
        except (YAMLError, ValueError, RecursionError):
            self._root = None

    def of(self, path: Sequence[int | str]) -> int | None:
        """Return the line of the last part of *path* that stands in the file, counted from 1; None if none
        does."""
        node, line = self._root, None
        for part in path:
            found = _below(node, part)
            if found is None:
                break
            node, line = found
        return line


def _below(node: Node | None, part: int | str) -> tuple[Node, int] | None:
    """Return what stands under a name or at a place, and the line in which that begins."""
    if isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        child: Node = node.value[part]
        return child, child.start_mark.line + 1
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if key.value == part:
                return value, key.start_mark.line + 1
    return None
