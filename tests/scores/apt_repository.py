"""A small repository of packages for the apt of a Pi in a box."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.box import Box

__all__ = [
    "BUILD",
    "FIRMWARE",
    "GONE",
    "NEWER",
    "NEWER_SECURITY",
    "NEWER_TOO",
    "OLDER_ALONE",
    "Signer",
    "installed",
]

_REPOSITORY = "/srv/harmony-packages"
_BUILD_ONE = """
build() {
    mkdir -p $1-$2/DEBIAN $1-$2/usr/share/$1 $1-$2/etc
    echo $2 > $1-$2/usr/share/$1/version
    echo $2 > $1-$2/etc/$1.conf
    echo /etc/$1.conf > $1-$2/DEBIAN/conffiles
    if test $1 = harmony-broken; then
        printf '#!/bin/sh\nexit 1\n' > $1-$2/DEBIAN/postinst
        chmod 755 $1-$2/DEBIAN/postinst
    fi
    if test $1 = harmony-stuck; then
        printf '#!/bin/sh\ntest ! -e /run/harmony-stuck\n' > $1-$2/DEBIAN/postrm
        chmod 755 $1-$2/DEBIAN/postrm
    fi
    {
        echo "Package: $1"
        echo "Version: $2"
        printf 'Maintainer: A <a@example.org>\\nDescription: x\\n%s' "$3"
        echo "Architecture: ${4-all}"
    } > $1-$2/DEBIAN/control
    built=$1-$2${4+_$4}.deb
    dpkg-deb --build --root-owner-group $1-$2 $built > /dev/null
    {
        dpkg-deb -f $built
        echo "Filename: ./$built"
        echo "Size: $(stat -c %s $built)"
        echo "SHA256: $(sha256sum $built | cut -d' ' -f1)"
        echo
    } >> Packages
}
"""
_BUILD = """
set -eu
rm -rf /var/lib/harmony-package* /var/lib/harmony-apt-sources
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /etc/apt/keyrings/*
echo 'deb [trusted=yes] file:{repository} ./' > /etc/apt/sources.list
test ! -e {repository}/whole || exit 0
rm -rf {repository}
mkdir -p {repository}
cd {repository}
{build_one}
build harmony-here 1 ''
build harmony-one 1 ''
build harmony-one 2 ''
build harmony-two 1 'Depends: harmony-dep
'
build harmony-dep 1 ''
build harmony-leaner 1 'Depends: harmony-one
'
build harmony-rival 1 'Conflicts: harmony-here
'
build harmony-broken 1 ''
build {firmware} 1 ''
build harmony-stuck 1 ''
build harmony-actual 1 'Provides: harmony-virtual
'
build harmony-other 1 'Provides: harmony-virtual
'
build harmony-either 1 'Depends: harmony-actual | harmony-other
'
for each in amd64 arm64 armhf; do build harmony-foreign 1 'Multi-Arch: same
' $each; done
touch whole
"""
GONE = """
apt-get -qy --allow-change-held-packages purge 'harmony-*'
rm -rf /var/lib/apt/lists/* /run/harmony-packages.*
"""

OLDER_ALONE = f"""
set -eu
mkdir -p /srv/harmony-older
cp {_REPOSITORY}/harmony-one-1.deb {_REPOSITORY}/harmony-dep-1.deb /srv/harmony-older
cd {_REPOSITORY}
awk -v RS= -v ORS='\\n\\n' '/harmony-one-1|harmony-dep-1/' Packages > /srv/harmony-older/Packages
echo 'deb [trusted=yes] file:/srv/harmony-older ./' > /etc/apt/sources.list
"""
"""Has apt know harmony-one 1 and harmony-dep, and nothing newer."""
NEWER_TOO = f"echo 'deb [trusted=yes] file:{_REPOSITORY} ./' > /etc/apt/sources.list.d/newer.list"
"""Names the whole repository beside it, and has nobody read it."""

FIRMWARE = "firmware-harmony"
"""A package that a device needs, by its name."""

BUILD = _BUILD.format(build_one=_BUILD_ONE, repository=_REPOSITORY, firmware=FIRMWARE)
"""Makes it, unless it is there, and has apt know nothing else."""


_NEWER = "/srv/harmony-newer"
NEWER = f"""
set -eu
apt-get -q update
apt-get -qy install harmony-here harmony-two {FIRMWARE}
rm -rf {_NEWER}
mkdir -p {_NEWER}
cd {_NEWER}
scripts() {{
    mkdir -p $1/DEBIAN
    printf '#!/bin/sh\\n%s\\n' "$2" > $1/DEBIAN/postinst
    chmod 755 $1/DEBIAN/postinst
}}
{_BUILD_ONE}
build harmony-here 2 ''
build harmony-dep 2 'Depends: harmony-extra
'
build harmony-extra 1 ''
scripts harmony-two-2 'set -e
test ! -e /run/harmony-fails
while test -e /run/harmony-waits; do sleep 0.1; done
test ! -e /run/systemd/system/harmony-served.service || systemctl restart harmony-served'
build harmony-two 2 'Depends: harmony-dep
'
build {FIRMWARE} 2 ''
printf 'Suite: stable\\nLabel: Newer\\n' > Release
echo 'deb [trusted=yes] file:{_NEWER} ./' > /etc/apt/sources.list.d/newer.list
"""
"""Installs older versions of some, and has apt know newer ones of these, once it reads its sources."""
NEWER_SECURITY = f"""
set -eu
rm -rf {_NEWER}-security
mkdir {_NEWER}-security
cd {_NEWER}-security
cp {_NEWER}/harmony-here-2.deb .
awk -v RS= -v ORS='\\n\\n' '/harmony-here-2/' {_NEWER}/Packages > Packages
printf 'Suite: stable-security\\nLabel: Debian-Security\\n' > Release
echo 'deb [trusted=yes] file:{_NEWER}-security ./' > /etc/apt/sources.list.d/security.list
"""
"""Has one of these be an update of security, too."""


async def installed(pi: Box) -> dict[str, str]:
    form = "${db:Status-Status} ${Package} ${Version}\n"
    done = await asyncio.to_thread(
        pi.run, ["dpkg-query", "-W", "-f", form, "harmony-*"], check=False
    )
    lines = [line.split(" ") for line in done.stdout.decode().splitlines()]
    return {name: version for status, name, version in lines if status == "installed"}


class Signer:
    """Who has a key, kept in *home*, and signs repositories with it."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700)
        self._gpg = ["gpg", "--batch", "--homedir", str(home)]
        self._run(
            "--passphrase", "", "--quick-gen-key", "apt@example.org", "ed25519", "sign", "never"
        )
        self.key = self._run("--armor", "--export").decode().strip()
        """The public one, armored."""
        listed = self._run("--with-colons", "--list-keys").decode().splitlines()
        self.fingerprint = next(line.split(":")[9] for line in listed if line.startswith("fpr"))

    def sign(self, pi: Box, path: str, *, valid_for: timedelta = timedelta(days=1)) -> None:
        """Make a repository at *path*: its suite stable has, in main, all that `BUILD` has made."""
        architecture = pi.text("dpkg", "--print-architecture")
        index = f"main/binary-{architecture}/Packages"
        about = f"Suite: stable\nComponents: main\nArchitectures: {architecture}\n"
        self._publish(pi, path, f"{path}/dists/stable", index, about, valid_for)

    def sign_flat(self, pi: Box, path: str) -> None:
        """Make one at *path* that has neither suites nor components."""
        self._publish(pi, path, path, "Packages", "", timedelta(days=1))

    def _publish(
        self, pi: Box, path: str, suite: str, index: str, about: str, valid_for: timedelta
    ) -> None:
        # Where its files are is said from the repository.
        listed = pi.read(f"{_REPOSITORY}/Packages").decode()
        packages = listed.replace("Filename: ./", "Filename: packages/").encode()
        now = datetime.now(UTC)
        release = (
            f"{about}Date: {now:{_DATE}}\nValid-Until: {now + valid_for:{_DATE}}\n"
            f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} {index}\n"
        )
        pi.write(f"{suite}/{index}", packages)
        pi.write(f"{suite}/InRelease", self._run("--clearsign", stdin=release))
        pi.run(["ln", "-sfn", _REPOSITORY, f"{path}/packages"])

    def _run(self, *words: str, stdin: str = "") -> bytes:
        command = [*self._gpg, *words]
        return subprocess.run(command, input=stdin.encode(), capture_output=True, check=True).stdout


_DATE = "%a, %d %b %Y %H:%M:%S UTC"
