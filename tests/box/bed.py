"""A bed: a private network with boxes and a registry in it. This process joins the network."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from .box import Box, forget_group
from .layers import cache, layers
from .registry import Registry

__all__ = ["GATEWAY", "Bed"]

GATEWAY = "10.77.0.1"
"""This process, as the boxes see it."""

_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


class Bed:
    """Use as a context manager, from the main thread. Several may exist on one machine."""

    def __init__(self) -> None:
        self.name = f"harmony-{os.getpid()}-{next(_numbers)}"
        self.boxes: dict[str, Box] = {}
        self._directory = cache() / "beds" / self.name
        self._outside = -1

    def __enter__(self) -> Self:
        # Before anything else: pip and apt need the network outside.
        self.layers = layers()
        _sweep()
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self._directory.mkdir(parents=True)
        for step in ("addr add 10.77.0.1/24 dev br0", "link set br0 up", "link set lo up"):
            if step.startswith("addr"):
                self._ip("link add br0 type bridge")
            self._ip(step)
        self._outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        _join(_NETNS / self.name)
        return self

    def __exit__(self, *_: object) -> None:
        for box in self.boxes.values():
            box.end()
        for name in ("registry", "private_registry"):
            if name in self.__dict__:
                self.__dict__[name].stop()
        if self._outside >= 0:
            _setns(self._outside)
            os.close(self._outside)
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        forget_group(self.name)
        shutil.rmtree(self._directory, ignore_errors=True)

    def boot(self, name: str, layers: Sequence[Path] | None = None) -> Box:
        """A new Pi, up in a second or two, of other *layers* if wanted. Addresses are given in order:
        10.77.0.11, .12 …"""
        address = f"10.77.0.{11 + len(self.boxes)}"
        box = Box(name, address, layers or self.layers, self._directory / name, self.name)
        self.boxes[name] = box
        box.power_on()
        if "registry" in self.__dict__:
            self.registry.make_known_to(box)
        return box

    @cached_property
    def private_registry(self) -> Registry:
        """Another, which wants a password. Started when first asked for."""
        registry = Registry(
            self._directory / "private-registry", self.layers[-1], GATEWAY, is_private=True
        )
        registry.start()
        return registry

    @cached_property
    def registry(self) -> Registry:
        """A real registry in this network, trusted by every box. Started when first asked for."""
        registry = Registry(self._directory / "registry", self.layers[-1], GATEWAY)
        registry.start()
        for box in self.boxes.values():
            if box.pid:  # those of earlier modules are off for good
                registry.make_known_to(box)
        return registry

    def _ip(self, arguments: str) -> None:
        subprocess.run(["ip", "-n", self.name, *arguments.split()], check=True)


def _sweep() -> None:
    """Remove what beds left whose owner is gone: killed boxes end by themselves, names do not."""
    beds = cache() / "beds"
    left = {path.name for base in (_NETNS, beds) if base.is_dir() for path in base.iterdir()}
    for name in left:
        parts = name.split("-")
        if parts[0] == "harmony" and len(parts) == 3 and not Path(f"/proc/{parts[1]}").exists():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
            forget_group(name)
            shutil.rmtree(beds / name, ignore_errors=True)


def _join(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(descriptor)
    finally:
        os.close(descriptor)


def _setns(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")
