"""A hub on two loopback ports for the tests of io/hub: prints "<port> <port>", serves until standard input ends, and writes
each request to the log: method, port index, path, Range, Authorization.

The second port stands for another origin (a content store). Repositories: org/plain, org/gguf (files over the second port by
an absolute redirect), org/renamed (a relative redirect to org/plain), org/cut (the first GET of a file stops half way),
org/wrong (content that does not match its hash), org/private (needs the token).
"""
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": b"{}", "tokenizer.json": b'{"a":1}', "model.safetensors": WEIGHTS, "sub/other.bin": b"x", "README.md": b"r",
         "modules.json": b"[]", "1_Pooling/config.json": b'{"pooling_mode":"cls"}', "2_Dense/config.json": b"{}"}
GGUFS = {f"m-{q}.gguf": q.encode() * 1000 for q in ("Q2_K", "Q4_K_M", "Q8_0")}
log = open(sys.argv[1], "w", buffering=1)
cut_once, servers = set(), []


class Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def files(self, repo):
        return GGUFS if repo == "org/gguf" else FILES

    def reply(self, status, headers, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def handle_request(self):
        port = [s.server_port for s in servers].index(self.server.server_port)
        print(self.command, port, self.path, self.headers.get("Range", "-"), self.headers.get("Authorization", "-"), file=log)
        parts = self.path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repo = "/".join(parts[2:4])
            if repo == "org/private" and self.headers.get("Authorization") != "Bearer secret":
                return self.reply(401, {})
            if repo.split("/")[1] not in ("plain", "gguf", "renamed", "cut", "wrong", "private"):
                return self.reply(404, {}, b"no")
            body = json.dumps({"sha": COMMIT, "siblings": [{"rfilename": f} for f in self.files(repo)]}).encode()
            return self.reply(200, {}, body)
        if parts[0] == "store":
            return self.content(parts[1], self.files(parts[1].replace("--", "/"))[parts[2]])
        repo, name = "/".join(parts[:2]), "/".join(parts[4:])
        if repo == "org/renamed":
            return self.reply(307, {"Location": self.path.replace("renamed", "plain")})
        data = self.files(repo)[name]
        etag = hashlib.sha256(data).hexdigest()
        if repo == "org/gguf":
            return self.reply(302, {"Location": f"http://127.0.0.1:{servers[1].server_port}/store/org--gguf/{name}",
                                    "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data)), "X-Repo-Commit": COMMIT})
        if repo == "org/wrong" and name == "model.safetensors":
            etag = "0" * 64
        if self.command == "HEAD":
            return self.reply(200, {"ETag": f'W/"{etag}"', "Content-Length": str(len(data))})
        return self.content(repo, data)

    def content(self, repo, data):
        begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")) if "Range" in self.headers else 0
        status = 206 if begin else 200
        headers = {"Content-Length": str(len(data) - begin)}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        if repo == "org/cut" and len(data) > 1000 and repo not in cut_once:
            cut_once.add(repo)
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            self.close_connection = True
            return self.connection.shutdown(1)
        self.reply(status, headers, data[begin:])

    do_GET = do_HEAD = handle_request


servers += [ThreadingHTTPServer(("127.0.0.1", 0), Hub) for _ in range(2)]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print(*(s.server_port for s in servers), flush=True)
sys.stdin.read()
