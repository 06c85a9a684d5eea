"""Somebody else who works on the same files: in a folder, or on a machine beneath a root."""

from __future__ import annotations

import stat
from pathlib import Path

__all__ = ["FolderBystander"]


class FolderBystander:
    """`harmony_core.testing.Bystander` by plain file calls below *root*."""

    def __init__(self, root: Path, *, secrets_directory: Path) -> None:
        self._root = root
        self._secrets = secrets_directory

    def write(self, path: str, content: bytes, mode: int = 0o644) -> None:
        here = self._here(path)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_bytes(content)
        here.chmod(mode)

    def read(self, path: str) -> bytes | None:
        here = self._here(path)
        return here.read_bytes() if here.is_file() and not here.is_symlink() else None

    def mode(self, path: str) -> int:
        return stat.S_IMODE(self._here(path).lstat().st_mode)

    def chmod(self, path: str, mode: int) -> None:
        self._here(path).chmod(mode)

    def exists(self, path: str) -> bool:
        here = self._here(path)
        return here.exists() or here.is_symlink()

    def delete(self, path: str) -> None:
        self._here(path).unlink()

    def make_directory(self, path: str) -> None:
        self._here(path).mkdir(parents=True, exist_ok=True)

    def link(self, path: str, target: str) -> None:
        here = self._here(path)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.symlink_to(self._here(target))

    def symlink(self, path: str, target: str) -> None:
        here = self._here(path)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.unlink(missing_ok=True)
        here.symlink_to(target)

    def readlink(self, path: str) -> str | None:
        here = self._here(path)
        return str(here.readlink()) if here.is_symlink() else None

    def identity(self, path: str) -> tuple[int, int]:
        facts = self._here(path).lstat()
        return facts.st_ino, facts.st_mtime_ns

    def put_secret(self, name: str, content: bytes) -> None:
        self._secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        secret = self._secrets / name
        secret.write_bytes(content)
        secret.chmod(0o600)

    def _here(self, path: str) -> Path:
        return self._root / path.lstrip("/")
