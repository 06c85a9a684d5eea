"""A small repository of packages for the apt of a Pi in a box."""

from __future__ import annotations

import asyncio

from tests.box import Box

__all__ = ["BUILD", "GONE", "NEWER_TOO", "OLDER_ALONE", "installed"]

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
    if test $1 = harmony-broken; then
        printf '#!/bin/sh\nexit 1\n' > $1-$2/DEBIAN/postinst
        chmod 755 $1-$2/DEBIAN/postinst
    fi
    if test $1 = harmony-stuck; then
        printf '#!/bin/sh\ntest ! -e /run/harmony-stuck\n' > $1-$2/DEBIAN/postrm
        chmod 755 $1-$2/DEBIAN/postrm
    fi
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
build harmony-broken 1 ''
build harmony-stuck 1 ''
build harmony-actual 1 'Provides: harmony-virtual
'
build harmony-other 1 'Provides: harmony-virtual
'
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:{repository} ./' > /etc/apt/sources.list
"""
GONE = "apt-get -qy purge 'harmony-*'; rm -rf /var/lib/apt/lists/* /run/harmony-packages.*"

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

BUILD = _BUILD.format(repository=_REPOSITORY)
"""Makes it, and has apt know nothing else."""


async def installed(pi: Box) -> dict[str, str]:
    form = "${db:Status-Status} ${Package} ${Version}\n"
    done = await asyncio.to_thread(
        pi.run, ["dpkg-query", "-W", "-f", form, "harmony-*"], check=False
    )
    lines = [line.split(" ") for line in done.stdout.decode().splitlines()]
    return {name: version for status, name, version in lines if status == "installed"}
