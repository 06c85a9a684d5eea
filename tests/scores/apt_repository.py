"""A small repository of packages for the apt of a Pi in a box."""

from __future__ import annotations

import asyncio

from tests.box import Box

__all__ = ["BUILD", "GONE", "installed"]

_REPOSITORY = "/srv/harmony-packages"
_BUILD = """
set -eu
rm -rf {repository} /var/lib/harmony-packages
mkdir -p {repository}
cd {repository}
build() {{
    mkdir -p $1-$2/DEBIAN $1-$2/usr/share/$1 $1-$2/etc
    echo $2 > $1-$2/usr/share/$1/version
    echo $2 > $1-$2/etc/$1.conf
    echo /etc/$1.conf > $1-$2/DEBIAN/conffiles
    {{
        echo "Package: $1"
        echo "Version: $2"
        printf 'Architecture: all\\nMaintainer: A <a@example.org>\\nDescription: x\\n%s' "$3"
    }} > $1-$2/DEBIAN/control
    dpkg-deb --build --root-owner-group $1-$2 $1-$2.deb > /dev/null
    {{
        dpkg-deb -f $1-$2.deb
        echo "Filename: ./$1-$2.deb"
        echo "Size: $(stat -c %s $1-$2.deb)"
        echo "SHA256: $(sha256sum $1-$2.deb | cut -d' ' -f1)"
        echo
    }} >> Packages
}}
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
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:{repository} ./' > /etc/apt/sources.list
"""
GONE = "apt-get -qy purge 'harmony-*'; rm -rf /var/lib/apt/lists/*"

BUILD = _BUILD.format(repository=_REPOSITORY)
"""Makes it, and has apt know nothing else."""


async def installed(pi: Box) -> dict[str, str]:
    form = "${db:Status-Status} ${Package} ${Version}\n"
    done = await asyncio.to_thread(
        pi.run, ["dpkg-query", "-W", "-f", form, "harmony-*"], check=False
    )
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    return {name: version for status, name, version in lines if status == "installed"}
