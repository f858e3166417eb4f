"""A small model hub on the loopback interface: what huggingface_hub's client asks for, and faults.

It holds models in memory, one branch each. Large files take the LFS way (set `HF_HUB_DISABLE_XET`
in the client), small ones go with the commit.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_of_the_owner"
_ERROR_CODES = {
    "repository": "RepoNotFound",
    "revision": "RevisionNotFound",
    "file": "EntryNotFound",
}


class Hub:
    """The hub's content, and how it misbehaves.

    Attributes:
        files: of each repository, content by path.
        stored: large files, by SHA-256.
        refused: status by a pattern of "<method> <path>" that is answered with it alone.
        drops: how often the connection breaks in the middle of a file, by its path; -1: always.
        asked: "<method> <path>" of every request.
    """

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}
        self.refused: dict[str, int] = {}
        self.drops: dict[str, int] = {}
        self.asked: list[str] = []
        self.url = ""

    def commit_of(self, repository):
        """Return the hash that names the present state of a repository."""
        state = {p: hashlib.sha256(c).hexdigest() for p, c in self.files[repository].items()}
        return hashlib.sha1(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def environment(self, home):
        """Return variables for a process that uses this hub with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }


@contextmanager
def running_hub():
    """Give a hub that answers until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _RefusedError(Exception):
    def __init__(self, status, missing=None):
        super().__init__(status)
        self.status, self.missing = status, missing


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    # What a request asks for, the first that fits: method, path, name of the method that answers.
    _ROUTES = (
        ("POST", "/api/repos/create", "_create"),
        ("POST", "/api/validate-yaml", "_validate"),
        ("POST", "/api/models/(?P<name>.+/.+)/preupload/main", "_preupload"),
        ("POST", "/api/models/(?P<name>.+/.+)/commit/main", "_commit"),
        ("POST", r"/(?P<name>.+/.+)\.git/info/lfs/objects/batch", "_batch"),
        ("PUT", "/lfs/(?P<digest>[0-9a-f]{64})", "_store"),
        ("GET", "/api/models/(?P<name>.+/.+)/revision/(?P<revision>.+)", "_info"),
        ("GET", "/api/models/(?P<name>.+/.+)/tree/(?P<revision>.+)", "_tree"),
        ("GET|HEAD", "/(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "_resolve"),
    )

    def log_message(self, *args):
        pass

    def _answer(self):
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {path}"
        self.hub.asked.append(request)
        try:
            for pattern, status in self.hub.refused.items():
                if re.search(pattern, request):
                    raise _RefusedError(status)
            for method, pattern, name in self._ROUTES:
                match = re.fullmatch(pattern, path)
                if match and re.fullmatch(method, self.command):
                    getattr(self, name)(**match.groupdict())
                    return
            raise _RefusedError(404)
        except _RefusedError as refusal:
            self.send_response(refusal.status)
            if refusal.missing:
                self.send_header("X-Error-Code", _ERROR_CODES[refusal.missing])
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815  # the server's names

    def _send(self, values, status=200):
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _only_the_owner(self):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _RefusedError(401)

    def _files(self, name, revision="main"):
        if name not in self.hub.files:
            raise _RefusedError(404, "repository")
        if revision not in ("main", self.hub.commit_of(name)):
            raise _RefusedError(404, "revision")
        return self.hub.files[name]

    def _create(self):
        self._only_the_owner()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        known = name in self.hub.files
        self.hub.files.setdefault(name, {})
        self._send({"url": f"{self.hub.url}/{name}"}, 409 if known else 200)

    def _validate(self):
        _, header, _ = json.loads(self.body)["content"].split("---\n", 2)
        sound = isinstance(yaml.safe_load(header), dict)
        errors = [] if sound else [{"message": "the metadata is no mapping"}]
        self._send({"errors": errors, "warnings": []}, 200 if sound else 400)

    def _preupload(self, name):
        self._only_the_owner()
        self._files(name)
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {p: "lfs" if p.endswith(".safetensors") else "regular" for p in paths}
        files = [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]
        self._send({"files": files})

    def _batch(self, name):
        self._only_the_owner()
        self._files(name)
        objects = json.loads(self.body)["objects"]
        for wanted in objects:
            if wanted["oid"] not in self.hub.stored:
                wanted["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}"}}
        self._send({"transfer": "basic", "objects": objects})

    def _store(self, digest):
        if hashlib.sha256(self.body).hexdigest() != digest:
            raise _RefusedError(400)
        self.hub.stored[digest] = self.body
        self._send({})

    def _commit(self, name):
        self._only_the_owner()
        files = self._files(name)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        commit = self.hub.commit_of(name)
        self._send({"commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"})

    def _info(self, name, revision):
        files = self._files(name, revision)
        siblings = [{"rfilename": path} for path in sorted(files)]
        self._send({"id": name, "sha": self.hub.commit_of(name), "siblings": siblings})

    def _tree(self, name, revision):
        files = sorted(self._files(name, revision).items())
        self._send(
            [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in files
            ]
        )

    def _resolve(self, name, revision, path):
        files = self._files(name, revision)
        if path not in files:
            raise _RefusedError(404, "file")
        content, start = files[path], 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(wanted[1])
        rest = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.commit_of(name))
        self.send_header("Content-Length", str(len(rest)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.hub.drops.get(path):
            self.hub.drops[path] -= 1
            rest = rest[: len(content) // 2 - start]  # never beyond the middle
            self.close_connection = True
        self.wfile.write(rest)
