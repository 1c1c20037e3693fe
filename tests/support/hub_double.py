"""A hub for tests: a local HTTP server that speaks the part of the hub's API that dataset reading uses.

It serves files from memory and counts the bytes of content that leave it: a test can say what travelled.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class HubDouble:
    """Serves one dataset repository; a context manager. A `status` is its answer to every call."""

    def __init__(self, dataset_id: str, files: dict[str, bytes], status: int = 200, error: str = "") -> None:
        self.dataset_id, self.files, self.status, self.error = dataset_id, files, status, error
        self.bytes_sent: Counter[str] = Counter()
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubDouble:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def info(self) -> dict[str, Any]:
        flags = {"private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        return {
            "id": self.dataset_id,
            "sha": SHA,
            **flags,
            "siblings": [{"rfilename": p} for p in self.files],
        }

    def tree(self, folder: str = "", deep: bool = True) -> list[dict[str, Any]]:
        """Files and folders below a folder, as deep as they go or one level."""
        folders = {
            str(parent) for p in self.files for parent in PurePosixPath(p).parents if str(parent) != "."
        }
        entries: list[dict[str, Any]] = [{"type": "directory", "path": p, "oid": "0" * 40} for p in folders]
        for path, data in self.files.items():
            entries.append({"type": "file", "path": path, "size": len(data), "oid": _digest(data)})
        level = folder.count("/") + 1 if folder else 0
        below = [e for e in entries if not folder or e["path"].startswith(f"{folder}/")]
        return [e for e in below if deep or e["path"].count("/") == level]


class _Handler(BaseHTTPRequestHandler):
    hub: HubDouble
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        self._json([entry for entry in self.hub.tree() if entry["path"] in asked.get("paths", [])])

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range', '')}")
        if hub.status != 200:
            self._error(hub.status, hub.error)
        elif re.fullmatch(rf"/api/datasets/{hub.dataset_id}(/revision/[^/]+)?", path):
            self._json(hub.info())
        elif match := re.fullmatch(rf"/api/datasets/{hub.dataset_id}/tree/[^/]+(?:/(.*))?", path):
            self._json(hub.tree(match[1] or "", deep="recursive=true" in self.path.lower()))
        elif match := re.fullmatch(rf"/datasets/{hub.dataset_id}/resolve/[^/]+/(.*)", path):
            self._file(match[1])
        else:
            self._error(404, "RepoNotFound" if hub.dataset_id not in path else "EntryNotFound")

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self._body(b"")

    def _json(self, value: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._body(json.dumps(value).encode())

    def _file(self, name: str) -> None:
        if name not in self.hub.files:
            return self._error(404, "EntryNotFound")
        data = self.hub.files[name]
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (
            (int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)) if asked else (0, len(data) - 1)
        )
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{_digest(data)}"')
        self.send_header("X-Repo-Commit", SHA)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        if self.command == "GET":
            self.hub.bytes_sent[name] += last - first + 1
        return self._body(data[first : last + 1])

    def _body(self, data: bytes) -> None:
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
