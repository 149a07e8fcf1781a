# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face hub on loopback: the few routes that readers of repositories ask for, and a store for large files to
which it redirects with signed URLs. huggingface_hub reads it too (tests/common/storage/test_hub.py)."""

import hashlib
import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit

LARGE = 1000  # bytes; such files are stored elsewhere
PAGE = 3  # entries of a list
REDIRECT = b"Found. Redirecting to where the file is stored.\n" * 8  # more than a small range
EXPIRED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>%s</Error>" % (b"<Request>expired</Request>" * 4000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    authorization: str | None


class Listener:
    def __init__(self, answer, host: str):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                answer(self)

            do_HEAD = do_GET

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://{host}:{self.server.server_address[1]}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Hub:
    """`token` opens what is private. `requests` and `store_requests` are what was asked, in order. A test breaks it by
    `failures`, statuses that the next requests of the hub get; `store_failures`, likewise; `damaged`, paths whose bytes
    the store changes; `single_use`, by which a signed URL is void once it was used; `pause`, seconds before the hub
    answers; `answers`, JSON that its next requests get; and `endless`, by which a list goes on with itself."""

    def __init__(self, token: str = "hf_secret"):
        self.token = token
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.store_requests: list[Request] = []
        self.failures: list[int] = []
        self.store_failures: list[int] = []
        self.damaged: set[str] = set()
        self.single_use = False
        self.pause = 0.0
        self.answers: list = []
        self.endless = False
        self.signatures = 0
        self.used: set[str] = set()
        self.objects: dict[str, tuple[str, bytes]] = {}
        self.hub = Listener(self.answer, "127.0.0.1")
        self.store = Listener(self.answer_of_store, "localhost")  # another host, to who reads its name
        self.url = self.hub.url

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.hub.close()
        self.store.close()

    def environment(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}

    def push(self, name: str, files: dict[str, bytes], branch: str = "main", **traits) -> str:
        """A new commit of "org/name" or "datasets/org/name"; its ID."""
        repository = self.repositories.setdefault(name, Repository())
        for trait, value in traits.items():
            setattr(repository, trait, value)
        text = json.dumps([name, len(repository.commits), {path: sha256(content) for path, content in files.items()}])
        commit = hashlib.sha1(text.encode()).hexdigest()
        repository.commits[commit] = files
        repository.refs[branch] = commit
        return commit

    # What follows runs in the listeners' threads.

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(self.note(handler))
        if self.failures:
            return self.send(handler, self.failures.pop(0), headers={"Retry-After": "0"})
        if self.pause:
            time.sleep(self.pause)
        if self.answers:
            return self.send_json(handler, self.answers.pop(0))
        url = urlsplit(handler.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[0] == "api":
            kind, org, name, what, revision = parts[1:6]
            rest = parts[6:]
        else:
            kind = parts.pop(0) if parts[0] == "datasets" else "models"
            org, name, what, revision = parts[:4]
            rest = parts[4:]
        full = f"datasets/{org}/{name}" if kind == "datasets" else f"{org}/{name}"
        known = handler.headers.get("Authorization") == f"Bearer {self.token}"
        repository = self.repositories.get(full)
        if handler.headers.get("Authorization") and not known:
            return self.refuse(handler, 401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.private and not known):
            return self.refuse(handler, 404 if known else 401, "RepoNotFound", "Repository not found")
        if repository.gated and not known and what != "revision":
            return self.refuse(handler, 403, "GatedRepo", f"Access to {full} is restricted")
        commit = revision if revision in repository.commits else repository.refs.get(revision)
        if commit is None:
            return self.refuse(handler, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        files = repository.commits[commit]
        if what == "revision":
            siblings = [{"rfilename": path} for path in files]
            return self.send_json(handler, {"id": full.removeprefix("datasets/"), "sha": commit, "siblings": siblings})
        if what == "tree":
            return self.send_tree(handler, files, "/".join(rest), parse_qs(url.query), url.path)
        return self.send_file(handler, commit, files, "/".join(rest))

    @staticmethod
    def note(handler) -> Request:
        return Request(
            handler.command, handler.path, handler.headers.get("Range"), handler.headers.get("Authorization")
        )

    def send_tree(self, handler, files: dict[str, bytes], below: str, query: dict, route: str) -> None:
        prefix = f"{below}/" if below else ""
        entries: dict[str, dict] = {}
        for path, content in sorted(files.items()):
            if not path.startswith(prefix):
                continue
            parts = path[len(prefix) :].split("/")
            for depth in range(1, len(parts)):
                directory = prefix + "/".join(parts[:depth])
                entries[directory] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": directory}
            entries[path] = {"type": "file", "oid": blob_id(content), "size": len(content), "path": path}
            if len(content) >= LARGE:
                entries[path]["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
        if not entries:
            return self.refuse(handler, 404, "EntryNotFound", f"{below} does not exist")
        if query.get("recursive", ["false"])[0] != "true":
            entries = {path: entry for path, entry in entries.items() if "/" not in path[len(prefix) :]}
        first = int(query.get("cursor", ["0"])[0])
        headers = {}
        if self.endless:
            headers["Link"] = f'<{self.url}{handler.path}>; rel="next"'
        elif first + PAGE < len(entries):
            recursive = query.get("recursive", ["false"])[0]
            target = f"{self.url}{route}?recursive={recursive}&cursor={first + PAGE}"
            headers["Link"] = f'<{target}>; rel="next"'
        return self.send_json(handler, list(entries.values())[first : first + PAGE], headers)

    def send_file(self, handler, commit: str, files: dict[str, bytes], path: str) -> None:
        if path not in files:
            return self.refuse(handler, 404, "EntryNotFound", f"{path} does not exist")
        content = files[path]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob_id(content)}"'}
        if len(content) < LARGE:
            return self.send_range(handler, content, headers)
        digest = sha256(content)
        self.objects[digest] = (path, content)
        headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{digest}"'}
        self.signatures += 1
        headers["Location"] = f"{self.store.url}/{digest}?name={quote(path, safe='')}&Signature=s{self.signatures}"
        return self.send(handler, 302, REDIRECT, headers)

    def answer_of_store(self, handler) -> None:
        self.store_requests.append(self.note(handler))
        if self.store_failures:
            return self.send(handler, self.store_failures.pop(0))
        url = urlsplit(handler.path)
        [signature] = parse_qs(url.query)["Signature"]
        if self.single_use and signature in self.used:
            return self.send(handler, 403, EXPIRED)
        self.used.add(signature)
        path, content = self.objects[url.path.strip("/")]
        if path in self.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        return self.send_range(handler, content, {"ETag": '"of the store"'})

    def send_range(self, handler, content: bytes, headers: dict[str, str]) -> None:
        wanted = handler.headers.get("Range")
        if wanted is None:
            return self.send(handler, 200, content, headers)
        first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        piece = content[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(piece) - 1}/{len(content)}"
        return self.send(handler, 206, piece, headers)

    def refuse(self, handler, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.send(handler, status, json.dumps({"error": message}).encode(), headers)

    def send_json(self, handler, value, headers: dict[str, str] | None = None) -> None:
        self.send(handler, 200, json.dumps(value).encode(), (headers or {}) | {"Content-Type": "application/json"})

    @staticmethod
    def send(handler, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)
