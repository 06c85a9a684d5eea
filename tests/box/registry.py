"""A real image registry (Debian's docker-registry), over TLS, and small images made from busybox."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import ssl
import subprocess
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import trustme

if TYPE_CHECKING:
    from .box import Box

__all__ = ["Registry"]

PORT = 5000
LOGIN = ("boxes", "secret")
APPLETS = (
    *("sh", "httpd", "wget", "sleep", "date", "cat", "mv", "echo", "ls", "env", "id", "nc", "test"),
    *("false", "true", "grep"),
)
_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


class Registry:
    """Images live in *directory*; the program comes from the boxes' root file system.

    A *private* one, on a port of its own, gives nothing to who does not log in as `LOGIN`.
    """

    def __init__(
        self, directory: Path, rootfs: Path, address: str, *, is_private: bool = False
    ) -> None:
        port = PORT + is_private
        self.host = f"{address}:{port}"
        """How images of it are named: ``10.77.0.1:5000/web:1``."""
        self._directory = directory
        self._rootfs = rootfs
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "images").mkdir(parents=True)
        authority = trustme.CA()
        certificate = authority.issue_cert(address)
        self.ca = directory / "ca.crt"
        authority.cert_pem.write_to_path(str(self.ca))
        certificate.cert_chain_pems[0].write_to_path(str(directory / "server.crt"))
        certificate.private_key_pem.write_to_path(str(directory / "server.key"))
        self._login = LOGIN if is_private else None
        (directory / "htpasswd").write_text(f"{LOGIN[0]}:{_PASSWORD_HASH}\n")
        access = _PRIVATE if is_private else ""
        (directory / "config.yml").write_text(_CONFIGURATION.format(port=port) + access)

    def start(self) -> None:
        """Start, or start again, and wait until it answers."""
        script = (
            f"mount --make-rprivate / && mount --bind '{self._directory}' '{self._rootfs}/mnt'"
            f" && exec chroot '{self._rootfs}' /usr/bin/docker-registry serve /mnt/config.yml"
        )
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "bash", "-ec", script],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"OTEL_TRACES_EXPORTER": "none"} | dict(os.environ),
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                with self._client() as client:
                    client.get("/v2/").raise_for_status()
                return
            except httpx.HTTPError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    said = (self._directory / "log").read_text()[-2000:]
                    raise AssertionError(f"the registry did not start:\n{said}") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop; what was pushed is kept for the next start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def make_known_to(self, box: Box) -> None:
        """Let *box*'s podman trust this registry's certificate."""
        box.write(f"/etc/containers/certs.d/{self.host}/ca.crt", self.ca.read_bytes())

    def push_busybox(
        self,
        name: str,
        tag: str,
        *,
        command: tuple[str, ...] = ("httpd", "-f", "-p", "80", "-h", "/www"),
        page: str = "hello\n",
        ballast_bytes: int = 0,
        volumes: tuple[str, ...] = (),
        labels: Mapping[str, str] | None = None,
        stop_signal: str = "",
        programs: Mapping[str, str] | None = None,
        entrypoint: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Make and push an image; the reference to it by tag and digest.

        *ballast_bytes* of noise make it large enough for a pull to be watched. As the first process httpd
        does not hear SIGTERM; another *stop_signal* saves the time that it is given. *programs* are scripts
        by their paths.
        """
        variables = {"PATH": "/bin", **(environment or {})}
        config_of: dict[str, object] = {
            "Cmd": list(command),
            "Env": [f"{name}={value}" for name, value in variables.items()],
        }
        if entrypoint:
            config_of["Entrypoint"] = list(entrypoint)
        if stop_signal:
            config_of["StopSignal"] = stop_signal
        if volumes:
            config_of["Volumes"] = {path: {} for path in volumes}
        if labels:
            config_of["Labels"] = dict(labels)
        layer = _layer(self._rootfs / "usr/bin/busybox", page, ballast_bytes, programs or {})
        with self._client() as client:
            manifest = self._push_image(
                client,
                name,
                layer,
                {"architecture": _ARCHITECTURE, "os": "linux", "config": config_of},
            )
            client.put(
                f"/v2/{name}/manifests/{tag}", content=manifest, headers={"Content-Type": _MANIFEST}
            ).raise_for_status()
        return f"{self.host}/{name}:{tag}@{_digest(manifest)}"

    def push_index(self, name: str, tag: str, image: str, others: Sequence[str] = ()) -> str:
        """Make and push an index of *image*, which is of this repository and for this machine, and of what is
        for the architectures *others*, and has nothing to run; the reference to it."""
        with self._client() as client:
            at = f"/v2/{name}/manifests/"
            own = client.get(f"{at}{image.partition('@')[2]}", headers={"Accept": _MANIFEST})
            own.raise_for_status()
            manifests = [_for(own.content, _ARCHITECTURE)]
            for each in others:
                layer = _layer(self._rootfs / "usr/bin/busybox", f"{each}\n", 0, {})
                manifest = self._push_image(
                    client, name, layer, {"architecture": each, "os": "linux", "config": {}}
                )
                manifests.append(_for(manifest, each))
            index = json.dumps(
                {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
            ).encode()
            client.put(
                f"{at}{tag}", content=index, headers={"Content-Type": _INDEX}
            ).raise_for_status()
        return f"{self.host}/{name}:{tag}@{_digest(index)}"

    def _push_image(
        self, client: httpx.Client, name: str, layer: bytes, config_of: Mapping[str, object]
    ) -> bytes:
        """Push *layer* alone, as an image; its manifest, which stands there by its digest."""
        blob = gzip.compress(layer, compresslevel=1, mtime=0)
        rootfs = {"type": "layers", "diff_ids": [_digest(layer)]}
        config = json.dumps({**config_of, "rootfs": rootfs}).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST,
                "config": _descriptor(_CONFIG, config),
                "layers": [_descriptor(_LAYER, blob)],
            }
        ).encode()
        for each in (config, blob):
            self._upload(client, name, each)
        client.put(
            f"/v2/{name}/manifests/{_digest(manifest)}",
            content=manifest,
            headers={"Content-Type": _MANIFEST},
        ).raise_for_status()
        return manifest

    def _client(self) -> httpx.Client:
        context = ssl.create_default_context(cafile=str(self.ca))
        return httpx.Client(
            base_url=f"https://{self.host}",
            verify=context,
            timeout=30,
            trust_env=False,
            auth=self._login,
        )

    def _upload(self, client: httpx.Client, name: str, blob: bytes) -> None:
        begun = client.post(f"/v2/{name}/blobs/uploads/")
        begun.raise_for_status()
        where = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": _digest(blob)})
        client.put(
            where, content=blob, headers={"Content-Type": "application/octet-stream"}
        ).raise_for_status()


_CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: /mnt/images}}
http:
  addr: :{port}
  tls: {{certificate: /mnt/server.crt, key: /mnt/server.key}}
"""


_PASSWORD_HASH = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
"""bcrypt of `LOGIN`'s password."""
_PRIVATE = "auth:\n  htpasswd: {realm: boxes, path: /mnt/htpasswd}\n"


_PEOPLE = b"root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\ntelegraf:x:999:999::/:/bin/sh\n"
_GROUPS = b"root:x:0:\ndialout:x:20:\nweb:x:1000:\n"


def _layer(busybox: Path, page: str, ballast_bytes: int, programs: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for directory in ("bin", "www", "etc", "tmp", "run"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        _add(archive, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        _add(archive, "www/index.html", page.encode(), 0o644)
        _add(archive, "etc/passwd", _PEOPLE, 0o644)
        _add(archive, "etc/group", _GROUPS, 0o644)
        for path, script in programs.items():
            _add(archive, path.removeprefix("/"), script.encode(), 0o755)
        if ballast_bytes:
            _add(archive, "ballast", os.urandom(ballast_bytes), 0o644)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))


def _for(manifest: bytes, architecture: str) -> dict[str, object]:
    """What an index says of a manifest."""
    of = {"architecture": architecture, "os": "linux"}
    return {**_descriptor(_MANIFEST, manifest), "platform": of}


def _descriptor(media_type: str, blob: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"
