"""CFEngine, from Debian's package, unpacked into the cache: nothing is installed, and no rights are needed.

At its best: one promise that copies a directory, looking only at times; its own work directory, its own
key, no daemon.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cache import cache
from benchmarks.figures import Unmeasurable

from ._prepared import Prepared, written_source

__all__ = ["prepare"]

_POLICY = """
body common control {{ bundlesequence => {{ "main" }}; }}
bundle agent main
{{
files:
  "{target}/." copy_from => from_source, depth_search => all;
}}
body copy_from from_source {{ source => "{source}/."; compare => "mtime"; }}
body depth_search all {{ depth => "inf"; }}
"""


def prepare(root: Path, contents: Mapping[str, bytes]) -> Prepared:
    """Unpacked if it is not yet, with a policy that copies *contents*."""
    programs = _unpacked()
    here = root / "cfengine"
    source, target, work = written_source(here, contents), here / "target", here / "work"
    environ = {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(map(str, _libraries(programs))),
        "CFENGINE_TEST_OVERRIDE_WORKDIR": str(work),
    }
    policy = here / "policy.cf"
    policy.write_text(_POLICY.format(source=source, target=target))
    policy.chmod(0o600)
    _make_work_directory(work, programs, environ)
    command = [str(programs / "usr/bin/cf-agent"), "--no-lock", "--file", str(policy)]
    return Prepared(
        first=command,
        again=command,
        target=target,
        contents=contents,
        environ=environ,
        log=here / "log",
    )


def _make_work_directory(work: Path, programs: Path, environ: Mapping[str, str]) -> None:
    (work / "bin").mkdir(parents=True, mode=0o700)
    work.chmod(0o700)
    for program in (programs / "usr/bin").glob("cf-*"):
        (work / "bin" / program.name).symlink_to(program)
    made = subprocess.run(
        [programs / "usr/bin/cf-key"], env=environ, capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        raise Unmeasurable(f"cf-key: {made.stderr.strip()}")


def _unpacked() -> Path:
    """Unpack the package, and those that it needs and this machine lacks, in the cache. Return the
    directory."""
    directory = cache() / "cfengine"
    if (directory / "usr/bin/cf-agent").exists():
        return directory
    debs = directory / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    _said(["apt-get", "download", *_missing_packages()], debs)
    for deb in sorted(debs.glob("*.deb"), key=lambda each: each.name.startswith("cfengine3_")):
        _said(["dpkg-deb", "--extract", str(deb), str(directory)], debs)
    return directory


def _missing_packages() -> list[str]:
    would_do = _said(
        ["apt-get", "install", "--simulate", "--no-install-recommends", "cfengine3"], Path("/")
    )
    return re.findall(r"^Inst (\S+)", would_do, re.MULTILINE) or ["cfengine3", "libpromises3"]


def _libraries(programs: Path) -> set[Path]:
    return {path.parent for path in programs.rglob("*.so*")}


def _said(command: list[str], directory: Path) -> str:
    try:
        return subprocess.run(
            command, cwd=directory, capture_output=True, text=True, check=True, timeout=300
        ).stdout
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["nothing"]
        raise Unmeasurable(f"CFEngine is not to be had here: {said[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unmeasurable(f"CFEngine is not to be had here: {error}") from error
