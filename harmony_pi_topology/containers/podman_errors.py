"""The one place where what podman says becomes one of Harmony's errors.

podman tells causes in English only; what is matched here was seen on podman 5.4. A text that is not
recognised becomes the general error of what was asked, with podman's own words in it.
"""

from __future__ import annotations

import re

from harmony_core.errors import (
    CapabilityError,
    CapabilityUnavailable,
    ContainerFailed,
    ImageNotFound,
    InUse,
    PortTaken,
    RegistryUnreachable,
    TimedOut,
    TransientError,
    WriteFailed,
)
from harmony_core.resources import resource_id

from .podman_reply import Refusal
from .podman_wire import PodmanSilent

SOCKET_REMEDY = "systemctl enable podman.socket && systemctl restart podman.socket"
"""Makes the socket also where its unit is active and its file, or directory, was deleted."""

_PORT_TAKEN = re.compile(r"(?i)(?::(?P<port>\d+): bind: )?address already in use")
_NO_NAME_SERVER = re.compile(
    r"aardvark.*failed to bind \w+ listener on (\S+:53)\b.*in use", re.DOTALL
)
_NO_SUCH_IMAGE = re.compile(
    r"(?i)manifest unknown|name unknown|no such image|image not known|no image found"
    r"|not found|unauthorized|authentication required|access to the resource is denied"
)
_NOT_LOGGED_IN = re.compile(
    r"(?i)unauthorized|authentication required|denied|invalid username/password|forbidden"
)
_TOO_MANY = re.compile(r"(?i)toomanyrequests|too many requests|rate limit")
_DISK_FULL = re.compile(r"(?i)no space left on device|disk quota exceeded|read-only file system")


_IN_USE = re.compile(r"(?i)being used|in use|associated containers")
_NO_CONTROLLER = re.compile(
    r"controller `(?P<controller>\w+)` is not available|opening file `(?P<file>\w+)\.[\w.]+` for writing"
)
"""crun, where the kernel has no such control group."""
_LIMITED_BY = {
    "memory": "memory_bytes, memory_reservation_bytes and memory_swap_bytes need",
    "cpu": "cpus and cpu_shares need",
    "cpuset": "cpuset needs",
    "pids": "pids needs",
}
_SAID = "; correct what it names in the Score"
_NO_INIT = re.compile(r'lookup init binary|container-init binary not found|"catatonit": executable')


_TORN = re.compile(r"container not known")
"""Said of one that podman lists, where its storage knows nothing of it."""


def is_torn(refusal: Refusal) -> bool:
    """Return whether podman refused because a part of the container is gone."""
    return _TORN.search(refusal.message) is not None


def silent(silence: PodmanSilent, what: str, *, timed_out: bool) -> TransientError:
    """Return the error where podman did not answer when asked to do *what*. *timed_out* says that Harmony
    stopped waiting."""
    if timed_out or silence.timed_out:
        return TimedOut(
            f"podman did not answer in time when asked to {what}; "
            "if it hangs, run: systemctl restart podman.service"
        )
    return CapabilityUnavailable(
        f"podman does not answer ({silence.reason}); is it running? run: {SOCKET_REMEDY}"
    )


def to_refusal(refusal: Refusal, what: str) -> TransientError:
    return _disk(refusal) or CapabilityUnavailable(
        f"podman could not {what}: {refusal.message} (status {refusal.status}); "
        "'journalctl -u podman' may say more"
    )


def to_in_use(refusal: Refusal, what: str) -> TransientError:
    """Return the error where podman did not do *what*, which removes a volume or a network."""
    if _IN_USE.search(refusal.message):
        return InUse(
            f"podman could not {what}: {refusal.message}; remove the containers that use it, or the Scores "
            "that make them"
        )
    return to_refusal(refusal, what)


def to_network_error(refusal: Refusal, what: str) -> CapabilityError:
    """Return the error where podman did not do *what*, which creates a network."""
    return _disk(refusal) or ContainerFailed(
        f"podman could not {what}: {refusal.message}; choose other subnets, or leave them to podman"
    )


def to_create_error(refusal: Refusal, name: str) -> CapabilityError:
    if refusal.status == 404:
        return image_gone(refusal, resource=resource_id("container", name))
    remedy = (
        "; run: apt install catatonit, or leave out init"
        if _NO_INIT.search(refusal.message)
        else _SAID
    )
    return _disk(refusal) or ContainerFailed(
        f"container {name} could not be created: {refusal.message}{remedy}",
        resource=resource_id("container", name),
    )


def image_gone(refusal: Refusal, *, resource: str | None = None) -> ImageNotFound:
    """Return the error for an image that was here and is gone."""
    return ImageNotFound(
        f"{refusal.message}; it went away after it was fetched, and is fetched again",
        resource=resource,
    )


def to_pause_error(refusal: Refusal, name: str) -> CapabilityError:
    return _disk(refusal) or ContainerFailed(
        f"container {name} could not be paused: {refusal.message}; have it stopped instead",
        resource=resource_id("container", name),
    )


def to_start_error(refusal: Refusal, name: str) -> CapabilityError:
    resource = resource_id("container", name)
    if match := _NO_NAME_SERVER.search(refusal.message):
        return PortTaken(
            f"podman's name server for containers cannot have {match[1]}: a container, {name} or another, "
            "publishes port 53 on all addresses; name an address of the device there, such as 192.168.1.10",
            resource=resource,
        )
    if match := _PORT_TAKEN.search(refusal.message):
        return port_taken(f"port {match['port']}" if match["port"] else "a port", name)
    if match := _NO_CONTROLLER.search(refusal.message):
        return _no_controller(match["controller"] or match["file"], name)
    return _disk(refusal) or ContainerFailed(
        f"container {name} could not be started: {refusal.message}{_SAID}", resource=resource
    )


def _no_controller(controller: str, name: str) -> ContainerFailed:
    remedy = (
        "on Raspberry Pi OS, add cgroup_enable=memory to the line in /boot/firmware/cmdline.txt, and reboot"
        if controller == "memory"
        else "look at /sys/fs/cgroup/cgroup.controllers"
    )
    return ContainerFailed(
        f"container {name} could not be started: this device's kernel has no control group {controller}, "
        f"which {_LIMITED_BY.get(controller, 'a limit of it needs')}; {remedy}, or leave the limit out",
        resource=resource_id("container", name),
    )


def port_taken(
    port: str, name: str, *, holder: str = "another process on this device"
) -> PortTaken:
    """Return the error that *holder* has *port*, which *name* is to publish."""
    return PortTaken(
        f"{port} is held by {holder}; stop that, or publish {name} on another port",
        resource=resource_id("container", name),
    )


def pull_failed(
    refusal: Refusal, image: str, *, has_login: bool = False, is_nearby: bool = False
) -> TransientError:
    """Return the error that *image* was not fetched. *has_login* says that its Score has a login for the
    registry, *is_nearby* that the image was to come from the agent itself."""
    if full := _disk(refusal):
        return full
    if _TOO_MANY.search(refusal.message):
        remedy = "wait" if has_login else "give login with a name and a password, or wait"
        return RegistryUnreachable(
            f"the registry of {image} answers no more for a while, since too much was asked of it "
            f"({refusal.message}); {remedy}: it is tried again"
        )
    if has_login and _NOT_LOGGED_IN.search(refusal.message):
        return ImageNotFound(
            f"the registry does not take this login for {image} ({refusal.message}); correct username in "
            "login, set the password anew (harmony secret set) and push, or let that user pull it"
        )
    if refusal.status == 404 or _NO_SUCH_IMAGE.search(refusal.message):
        return ImageNotFound(
            f"the registry has no image {image}, or not for us ({refusal.message}); "
            "push it there, correct the Score, or, if it wants a password, give login (username, password)"
        )
    if is_nearby:
        return RegistryUnreachable(
            f"podman could not take {image} from the agent ({refusal.message}); it is tried again, and "
            "'journalctl -u podman' may say more"
        )
    return RegistryUnreachable(
        f"{image} could not be fetched ({refusal.message}); "
        "is its registry up and reachable from this device?"
    )


def _disk(refusal: Refusal) -> WriteFailed | None:
    if _DISK_FULL.search(refusal.message):
        return WriteFailed(f"podman cannot write: {refusal.message}; make room on the device")
    return None
