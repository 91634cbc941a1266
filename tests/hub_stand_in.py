"""A small Hugging Face Hub on loopback: what huggingface_hub asks for to push and to read a repository, and faults.

Commits are whole: a commit that is refused changes nothing. Large files take the plain LFS way (`HF_HUB_DISABLE_XET=1`).
"""

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin")


class HubStandIn:
    """`with HubStandIn({"token": "user"}) as hub:` serves at `hub.url`.

    `hub.fail(r"POST .*/commit/", status=500)` makes the next request that matches fail. Other answers: `drop="before"`
    closes the connection half way through the request's body; `drop="after"` does the work and closes it without an
    answer; `echo=True` puts the request's token into the error.
    """

    def __init__(self, users):
        self.users = users  # token -> user, who may write to the repositories below the name
        self.repos = {}  # "user/name" -> {"private", "branches": {name: [commit, ...]}}
        self.other_types = set()  # names that are data sets
        self.objects = {}  # sha256 -> content
        self.requests = []  # "POST /api/repos/create", ...
        self.faults = []

    def __enter__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(self, pattern, times=1, **answer):
        self.faults.append({"pattern": pattern, "left": times, **answer})

    def counted(self, pattern):
        return sum(re.search(pattern, request) is not None for request in self.requests)

    def add_repo(self, name, files=None, private=False):
        first = {"id": _oid(name), "files": {".gitattributes": b"*.safetensors filter=lfs\n"}, "message": "initial"}
        self.repos[name] = {"private": private, "branches": {"main": [first]}}
        if files:
            self.commit(name, "main", {**first["files"], **files}, "by hand")

    def commit(self, name, branch, files, message):
        commits = self.repos[name]["branches"][branch]
        commits.append({"id": _oid(f"{name}{branch}{len(commits)}{message}"), "files": files, "message": message})
        return commits[-1]

    def commits(self, name, branch="main"):
        """Those after the first, which the Hub makes."""
        return self.repos[name]["branches"][branch][1:]

    def files(self, name, branch="main"):
        return {n: c for n, c in self.repos[name]["branches"][branch][-1]["files"].items() if n != ".gitattributes"}

    def at(self, name, revision):
        branches = self.repos[name]["branches"]
        if revision in branches:
            return branches[revision][-1]
        return next((c for commits in branches.values() for c in commits if c["id"] == revision), None)


def _oid(text):
    return hashlib.sha1(text.encode()).hexdigest()


def _hashes(name, content):
    """The git hash of a small file, the SHA-256 of a large one."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


class _Refused(Exception):
    def __init__(self, status, message, code=None, headers=None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_):
        pass

    def _handle(self):
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        fault = next((f for f in self.hub.faults if f["left"] and re.search(f["pattern"], request)), {})
        if fault:
            fault["left"] -= 1
        if fault.get("drop") == "before":
            self.rfile.read(min(64, int(self.headers.get("Content-Length", 0))))
            return self._hang_up()
        body = self._body()
        if "status" in fault:
            said = self.headers.get("Authorization", "") if fault.get("echo") else fault.get("said", "told to fail")
            return self._json({"error": said}, fault["status"], fault.get("headers"))
        try:
            for pattern, name in _ROUTES:
                method, _, shape = pattern.partition(" ")
                found = re.fullmatch(shape, path)
                if found and method == self.command.replace("HEAD", "GET"):
                    answer = getattr(self, name)(*found.groups(), **({"body": body} if body else {}))
                    break
            else:
                raise _Refused(404, f"no route for {request}")
        except _Refused as refused:
            headers = {"X-Error-Message": str(refused), **refused.headers}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            return self._json({"error": str(refused)}, refused.status, headers)
        if fault.get("drop") == "after":
            return self._hang_up()
        if answer is not None:
            self._json(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self, answer, status=200, headers=None):
        self._bytes(json.dumps(answer).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _bytes(self, content, status=200, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": len(content), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _user(self):
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(token)

    def _readable(self, name, revision="main"):
        user = self._user()
        repo = self.hub.repos.get(name)
        if repo is None or (repo["private"] and user != name.split("/")[0]):
            raise _Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        commit = self.hub.at(name, revision)
        if commit is None:
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _writable(self, name):
        user = self._user()
        if user is None:
            raise _Refused(401, "Invalid username or password.")
        if user != name.split("/")[0]:
            raise _Refused(403, f"You don't have the rights to write to {name}")

    # Writing

    def create(self, body):
        asked = json.loads(body)
        user = self._user()
        if user is None:
            raise _Refused(401, "Invalid username or password.")
        name = f"{asked['organization'] or user}/{asked['name']}"
        self._writable(name)
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repos or name in self.hub.other_types:
            self._json({**url, "error": "You already created this repo"}, 409)
            return None
        self.hub.add_repo(name, private=asked.get("visibility") == "private")
        return url

    def branch(self, name, branch, body=b"{}"):
        self._writable(name)
        branches = self.hub.repos[name]["branches"]
        if branch in branches:
            raise _Refused(409, "Reference already exists")
        branches[branch] = list(branches[json.loads(body).get("startingPoint", "main")])
        return {}

    def validate_yaml(self, body):
        if "license: nonsense" in json.loads(body)["content"]:
            self._json({"errors": [{"message": '"license" must be one of apache-2.0, mit'}]}, 400)
            return None
        return {"errors": [], "warnings": []}

    def preupload(self, name, revision, body):
        there = self._readable(name, revision)["files"]
        self._writable(name)
        files = []
        for file in json.loads(body)["files"]:
            mode = "lfs" if file["path"].endswith(LARGE) else "regular"
            known = {"oid": _hashes(file["path"], there[file["path"]])} if file["path"] in there else {}
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
        return {"files": files}

    def lfs_batch(self, name, body):
        self._writable(name)
        answers = []
        for wanted in json.loads(body)["objects"]:
            href = f"{self.hub.url}/lfs/{wanted['oid']}"
            actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            new = wanted["oid"] not in self.hub.objects
            answers.append({**wanted, **({"actions": actions} if new else {})})
        return {"transfer": "basic", "objects": answers}

    def lfs_upload(self, oid, body):
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Refused(400, "the content has another hash")
        self.hub.objects[oid] = body
        return {}

    def lfs_verify(self, oid, body):
        if len(self.hub.objects.get(oid, b"")) != json.loads(body)["size"]:
            raise _Refused(404, "no such object")
        return {}

    def commit(self, name, branch, body):
        parent = self._readable(name, branch)
        self._writable(name)
        files, message = dict(parent["files"]), ""
        for line in body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message = value["summary"]
                if value.get("parentCommit") not in (None, parent["id"]):
                    raise _Refused(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _Refused(400, f"no LFS object of {value['path']}")
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        made = self.hub.commit(name, branch, files, message)
        return {"success": True, "commitOid": made["id"], "commitUrl": f"{self.hub.url}/{name}/commit/{made['id']}"}

    # Reading

    def info(self, name, revision="main"):
        commit = self._readable(name, revision)
        siblings = [{"rfilename": path} for path in commit["files"]]
        return {"id": name, "sha": commit["id"], "private": self.hub.repos[name]["private"], "siblings": siblings}

    def tree(self, name, revision, folder):
        files = self._readable(name, revision)["files"]
        found = [path for path in files if folder is None or path.startswith(f"{folder}/")]
        if not found:
            raise _Refused(404, f"{folder} does not exist", "EntryNotFound")
        return [
            {"type": "file", "path": path, "size": len(files[path]), "oid": _hashes(path, files[path])}
            for path in found
        ]

    def resolve(self, name, revision, path):
        commit = self._readable(name, revision)
        headers = {"X-Repo-Commit": commit["id"]}
        if path not in commit["files"]:
            raise _Refused(404, "Entry not found", "EntryNotFound", headers)
        content = commit["files"][path]
        self._bytes(content, headers={**headers, "ETag": f'"{_hashes(path, content)}"'})


_NAME = r"([^/]+/[^/]+)"
_ROUTES = (
    (r"POST /api/repos/create", "create"),
    (rf"POST /api/models/{_NAME}/branch/(.+)", "branch"),
    (r"POST /api/validate-yaml", "validate_yaml"),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", "preupload"),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", "lfs_batch"),
    (r"PUT /lfs/(\w+)", "lfs_upload"),
    (r"POST /lfs/(\w+)/verify", "lfs_verify"),
    (rf"POST /api/models/{_NAME}/commit/(.+)", "commit"),
    (rf"GET /api/models/{_NAME}", "info"),
    (rf"GET /api/models/{_NAME}/revision/(.+)", "info"),
    (rf"GET /api/models/{_NAME}/tree/([^/]+)(?:/(.+))?", "tree"),
    (rf"GET /{_NAME}/resolve/([^/]+)/(.+)", "resolve"),
)
