"""A stand-in for the Hugging Face hub on loopback: repositories, commits, large files, ranges.

Files named in `large` are answered as the hub answers for LFS: with their sha256 and size in the
listing, by a redirect to where the body lies. Every range of a body that is read is written down.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")


class Hub(ThreadingHTTPServer):
    """Serves folders as commits of `owner/name`. `branches` may be moved while it runs."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, Path] = {}
        self.branches: dict[str, str] = {}
        self.bodies_read: list[tuple[str, int]] = []  # of large files: name, bytes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def large_url(self) -> str:
        """Another host, as the hub's bodies lie at one: a client follows to it for a body alone."""
        return f"http://localhost:{self.server_port}"

    def push(self, folder: Path, branch: str = "main") -> str:
        """Make a folder the newest commit of a branch."""
        commit = hashlib.sha1(f"{folder} {len(self.commits)}".encode()).hexdigest()
        self.commits[commit] = folder
        self.branches[branch] = commit
        return commit

    def num_bytes_read(self) -> int:
        return sum(num_bytes for _, num_bytes in self.bodies_read)


@contextmanager
def serving() -> Iterator[Hub]:
    with Hub() as hub:
        Thread(target=hub.serve_forever, args=[0.01], daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


def _files(folder: Path) -> Iterator[tuple[str, bytes, str]]:
    """Name, body and, of large files, sha256 of all files."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            sha256 = hashlib.sha256(body).hexdigest() if path.name.endswith(LARGE) else ""
            yield path.relative_to(folder).as_posix(), body, sha256


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/owner/name(?:/revision/(.+))?", path):
            self._tell(match[1] or "main")
        elif match := re.fullmatch(r"/api/models/owner/name/tree/([0-9a-f]{40})", path):
            self._list(match[1])
        elif match := re.fullmatch(r"/owner/name/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2])
        elif match := re.fullmatch(r"/large/([^/]+)/(.+)", path):
            self._send_body(match[1], match[2])
        else:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def _tell(self, revision: str) -> None:
        commit = self.server.branches.get(revision, revision)
        folder = self.server.commits.get(commit)
        if folder is None:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": name, "size": len(body)}
            | ({"lfs": {"sha256": sha256, "size": len(body), "pointerSize": 134}} if sha256 else {})
            for name, body, sha256 in _files(folder)
        ]
        self._answer_json({"id": "owner/name", "sha": commit, "siblings": siblings})

    def _list(self, commit: str) -> None:
        self._answer_json(
            [
                {"type": "file", "path": name, "size": len(body), "oid": "0" * 40}
                | (
                    {"lfs": {"oid": sha256, "size": len(body), "pointerSize": 134}}
                    if sha256
                    else {}
                )
                for name, body, sha256 in _files(self.server.commits[commit])
            ]
        )

    def _resolve(self, revision: str, name: str) -> None:
        commit = self.server.branches.get(revision, revision)
        path = self.server.commits.get(commit, Path("/nowhere")) / name
        if not path.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        body = path.read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        if name.endswith(LARGE):
            linked = {
                "X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"',
                "X-Linked-Size": str(len(body)),
                "Location": f"{self.server.large_url}/large/{commit}/{name}",
            }
            self._answer(302, b"", headers | linked)
        else:
            self._answer(200, body, headers)

    def _send_body(self, commit: str, name: str) -> None:
        body = (self.server.commits[commit] / name).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        status, headers, part = 200, {}, body
        if asked:
            start, stop = int(asked[1]), int(asked[2] or len(body) - 1) + 1
            part, status = body[start:stop], 206
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(body)}"
        if self.command == "GET":
            self.server.bodies_read.append((name, len(part)))
        self._answer(status, part, headers)

    def _answer_json(self, content: object) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
