"""The layers that every box stands on, each made once and then only read.

    wheels    what pip is to find there: no layer, but what deps is made of
              (server-wheels: of the control plane, for a machine that runs the server)
    rootfs    Debian trixie, as Raspberry Pi OS is built on       one to two minutes, 500 MB
    cloud     cloud-init on it, for boxes that boot by a file     a minute
    deps      /opt/harmony, with everything the agent imports     half a minute
    product   our own wheel and its unit                          two seconds

A layer's name ends in a hash of what it is made from, so a change makes a new one; it is made under
another name and renamed when it is whole.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "Unobtainable",
    "built_wheel",
    "cache",
    "cloud_init_layers",
    "layers",
    "packages",
    "server_packages",
    "why_no_boxes",
]

TREE = Path(__file__).parents[2]
SUITE = "trixie"
PACKAGES = (
    "systemd,systemd-sysv,dbus,podman,crun,netavark,aardvark-dns,nftables,iproute2,procps,python3,"
    "python3-venv,network-manager,dnsmasq-base,ca-certificates,busybox-static,docker-registry,libfaketime,sudo,openssh-server"
)
CONTAINERS_CONF = """\
# A box may neither raise limits nor hand out control groups.
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
"""
UNMANAGED = """\
# eth0 is how the box is reached. Nobody but udev, which is not here, marks what belongs to containers.
[keyfile]
unmanaged-devices=interface-name:eth0;interface-name:podman*;interface-name:veth*
"""
NOT_STARTED = (
    "docker-registry.service",
    "NetworkManager.service",
    "NetworkManager-wait-online.service",
    "ssh.service",
)
KEPT_PRODUCTS_S = 24 * 3600


class Unobtainable(Exception):
    """A layer cannot be made here; the message says why."""


def why_no_boxes() -> str | None:
    """What this machine lacks for Pis in boxes, if that is known before one is tried."""
    if os.geteuid() != 0:
        return "boxes need root"
    if shutil.which("unshare") is None:
        return "boxes need Linux namespaces (util-linux's unshare)"
    if shutil.which("debootstrap") is None and shutil.which("apt-get") is None:
        return "boxes need debootstrap, and there is no apt-get to install it"
    return None


def cache() -> Path:
    """Where layers are kept: outside the tree, so that a fresh clone finds them."""
    named = os.environ.get("HARMONY_CACHE")
    path = Path(named) if named else Path("/var/cache/harmony")
    path.mkdir(parents=True, exist_ok=True)
    return path


def layers() -> list[Path]:
    """Every layer, topmost first, made where it is missing."""
    rootfs = _rootfs()
    wheels = packages()
    # Made here, since in a bed's network there is nothing to fetch it from.
    server_packages()
    cloud_init_layers()
    deps = _made("deps", [rootfs.name, wheels.name], lambda path: _make_deps(rootfs, wheels, path))
    wheel = built_wheel(TREE)
    content = hashlib.sha256(wheel.read_bytes()).hexdigest()
    product = _made(
        "product", [deps.name, content], lambda path: _make_product([deps, rootfs], wheel, path)
    )
    _sweep_products(product)
    return [product, deps, rootfs]


def cloud_init_layers() -> list[Path]:
    """The layers of a Pi with cloud-init, on which nothing of ours is installed yet."""
    rootfs = _rootfs()
    return [
        _made("cloud", [rootfs.name, _INSTALL_CLOUD_INIT], lambda path: _make_cloud(rootfs, path)),
        rootfs,
    ]


def packages() -> Path:
    """Where the files are that pip in a box is to find: what the agent needs, and to build it."""
    pinned = _pinned("build", "agent")
    return _made("wheels", [pinned], lambda path: _fetch_wheels(path, pinned))


def server_packages() -> Path:
    """The same for the control plane; ``built`` there has those that are published without a wheel."""
    pinned = _pinned("build", "control")
    return _made("server-wheels", [pinned], lambda path: _fetch_wheels(path, pinned))


def _pinned(*names: str) -> str:
    locks = (TREE / "requirements" / f"{name}.lock" for name in names)
    return "".join(lock.read_text() for lock in locks)


def built_wheel(project: Path) -> Path:
    """*project*'s wheel, built from its tree."""
    target = Path(tempfile.mkdtemp(prefix="harmony-wheel-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    _run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)], cwd=project
    )
    (wheel,) = target.glob("*.whl")
    return wheel


def _rootfs() -> Path:
    made_from = [SUITE, PACKAGES, CONTAINERS_CONF, UNMANAGED, *NOT_STARTED, "3"]
    return _made("rootfs", made_from, _make_rootfs)


def _make_rootfs(path: Path) -> None:
    missing = [
        name for name in ("debootstrap", "ip", "nsenter", "gpg") if shutil.which(name) is None
    ]
    if missing:
        _run(["apt-get", "update", "-q"])
        _run(["apt-get", "install", "-qy", "debootstrap", "iproute2", "util-linux", "gpg"])
    print(f"building a Debian {SUITE} root file system (once, a minute or two) …", flush=True)
    _run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(path)])
    shutil.rmtree(path / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(path / "var/lib/apt/lists", ignore_errors=True)
    _write(path / "etc/containers/containers.conf", CONTAINERS_CONF)
    _write(path / "etc/NetworkManager/conf.d/10-testbed.conf", UNMANAGED)
    # Kernel modules belong to the host.
    (path / "etc/systemd/system/systemd-modules-load.service").symlink_to("/dev/null")
    for wants in (path / "etc/systemd/system").glob("*.wants"):
        for unit in NOT_STARTED:
            # By name: here the links point to nothing, and are not found by what they point to.
            (wants / unit).unlink(missing_ok=True)


def _make_cloud(rootfs: Path, path: Path) -> None:
    print("installing cloud-init for boxes (once) …", flush=True)
    _in_layer([rootfs], path, Path("/etc"), _INSTALL_CLOUD_INIT)


_INSTALL_CLOUD_INIT = (
    # Of the machine outside: how its names are found.
    "cp /mnt/resolv.conf /etc/resolv.conf && export DEBIAN_FRONTEND=noninteractive"
    " && apt-get update -q && apt-get install -qy --no-install-recommends cloud-init"
    " && rm -rf /var/cache/apt /var/lib/apt/lists"
)


def _make_deps(rootfs: Path, wheels: Path, path: Path) -> None:
    print("installing the agent's dependencies for boxes (once) …", flush=True)
    _in_layer(
        [rootfs],
        path,
        wheels,
        "python3 -m venv /opt/harmony"
        " && /opt/harmony/bin/pip install --quiet --no-index --no-deps /mnt/*.whl /mnt/built/*.whl",
    )


def _fetch_wheels(wheels: Path, pinned: str) -> None:
    """What is *pinned*, for the boxes' Python, whatever ours is."""
    wheels.mkdir()
    blocks = re.findall(r"^\S.*\n(?:[ \t].*\n)*", pinned, re.MULTILINE)
    source_only = [block for block in blocks if block.startswith(_SOURCE_ONLY)]
    (wheels / "wheels.txt").write_text("".join(b for b in blocks if b not in source_only))
    (wheels / "sources.txt").write_text("".join(source_only))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    target = ["--only-binary=:all:", "--python-version=3.13", "--implementation=cp"]
    target += ["--abi=cp313", "--abi=abi3", "--abi=none"]
    target += [f"--platform={each}_{platform.machine()}" for each in _MANYLINUX]
    hashed = ["--require-hashes", "--no-deps", "--requirement"]
    _run([*pip, "download", *target, *hashed, "wheels.txt", "--dest", "."], cwd=wheels)
    _run(
        [*pip, "download", *hashed, "sources.txt", "--no-build-isolation", "--dest", "."],
        cwd=wheels,
    )
    _run(
        [*pip, "wheel", "--no-build-isolation", *hashed, "sources.txt", "--wheel-dir", "built"],
        cwd=wheels,
    )


_SOURCE_ONLY = ("nkeys==",)
"""Pure Python, and published without a wheel."""
_MANYLINUX = (
    "manylinux2014",
    "manylinux_2_17",
    "manylinux_2_26",
    "manylinux_2_28",
    "manylinux_2_34",
)


def _make_product(below: list[Path], wheel: Path, path: Path) -> None:
    _in_layer(
        below,
        path,
        wheel.parent,
        "/opt/harmony/bin/pip install --quiet --no-index --no-deps /mnt/*.whl"
        " && mkdir -p -m 700 /etc/harmony"
        " && cp /opt/harmony/lib/python3*/site-packages/harmony_agent/deploy/harmony-agent.service"
        " /etc/systemd/system/",
    )


def _in_layer(below: list[Path], path: Path, mounted: Path, command: str) -> None:
    """Run *command* in a root made of *below*; what it writes becomes the layer at *path*."""
    work, root = path.with_name(f"{path.name}.work"), path.with_name(f"{path.name}.root")
    for directory in (path, work, root):
        directory.mkdir()
    options = f"lowerdir={':'.join(map(str, below))},upperdir={path},workdir={work}"
    script = (
        f"mount --make-rprivate / && mount -t overlay overlay -o '{options}' '{root}'"
        f" && mount --bind '{mounted}' '{root}/mnt' && mount -t proc proc '{root}/proc'"
        f" && exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot '{root}' sh -ec '{command}'"
    )
    try:
        _run(["unshare", "--mount", "bash", "-ec", script])
    finally:
        shutil.rmtree(work, ignore_errors=True)
        root.rmdir()


def _made(name: str, made_from: list[str], make: Callable[[Path], None]) -> Path:
    digest = hashlib.sha256("\0".join(made_from).encode()).hexdigest()[:16]
    path = cache() / f"{name}-{digest}"
    if not path.exists():
        with _locked(cache() / f"{name}.lock"):
            if not path.exists():
                unfinished = path.with_name(f"{path.name}.{os.getpid()}")
                try:
                    make(unfinished)
                    unfinished.rename(path)
                finally:
                    shutil.rmtree(unfinished, ignore_errors=True)
    os.utime(path)
    return path


@contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep_products(newest: Path) -> None:
    """Every change of the tree makes a product; those of yesterday go."""
    for path in cache().glob("product-*"):
        if path != newest and time.time() - path.stat().st_mtime > KEPT_PRODUCTS_S:
            shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _run(command: list[str], *, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise Unobtainable(f"`{' '.join(command[:3])} …` failed ({done.returncode}):\n{tail}")
