"""A running frugal serve and raw HTTP/1.1 to it. Only the standard library, so that a test decides every byte that is sent."""
import json
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import tempfile
import time

KEY = "torture-key"
TIMEOUT_S = 120


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def text(self):
        return self.json["choices"][0]["text"]

    @property
    def events(self):
        """The data of each server-sent event, parsed, without the last "[DONE]"; the stream must have ended with it."""
        datas = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        assert datas and datas[-1] == "[DONE]", self.body[-200:]
        return [json.loads(data) for data in datas[:-1]]


class Closed(Exception):
    """The server ended the connection before the whole answer."""


class Connection:
    def __init__(self, port, receive_buffer=None, timeout=TIMEOUT_S, source=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.socket.bind((source, 0))
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", port))
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Leaves with a RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def more(self):
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed(self.buffer[-200:])
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self.more()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def head(self):
        while True:
            status = int(self.line().split(b" ")[1])
            headers = {}
            while line := self.line():
                name, value = line.split(b": ", 1)
                headers[name.decode().lower()] = value.decode()
            if status != 100:
                return status, headers

    def chunk(self):
        """The next chunk of a stream; b"" is the last."""
        size = int(self.line(), 16)
        data = self.take(size)
        assert self.line() == b""
        return data

    def answer(self):
        return self.rest(*self.head())

    def rest(self, status, headers):
        """The answer whose head was read."""
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while data := self.chunk():
                body += data
        elif status != 204:
            body = self.take(int(headers["content-length"]))
        return Answer(status, headers, body)


def request_bytes(method, path, body=None, key=KEY, headers=(), length=None):
    """A whole request. `body`: bytes as they are, others as JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(data) if length is None else length}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + data


class Server:
    """frugal serve with a model called "m". `limits`: {resource: value}, set in the child. `err`: where its standard error goes
    (a file that is kept unless given)."""

    def __init__(self, binary, model, *arguments, port=0, key=KEY, limits=None, err=None, **environment):
        self.log = tempfile.NamedTemporaryFile("w+b", prefix="frugal-torture-") if err is None else None

        def in_child():
            for which, value in (limits or {}).items():
                resource.setrlimit(which, (value, value))

        begin = time.monotonic()
        named = [] if "--alias" in arguments or "=" in str(model) else ["--alias", "m"]
        keys = ["--api-key", key] if key else []
        self.process = subprocess.Popen([str(binary), "serve", str(model), *named, *keys, *map(str, arguments), "--port", str(port), "--json"], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=self.log if err is None else err, env={**os.environ, **environment}, preexec_fn=in_child)
        told = b""
        while not told.endswith(b"}\n"):
            line = self.process.stdout.readline()
            assert line, f"it did not start: {self.errors()}"
            told += line
        self.port = json.loads(told)["port"]
        self.start_seconds = time.monotonic() - begin

    def errors(self):
        if not self.log:
            return ""
        with open(self.log.name, errors="replace") as file:
            return file.read()

    def connect(self, **options):
        return Connection(self.port, **options)

    def raw(self, data):
        with self.connect() as connection:
            connection.send(data)
            return connection.answer()

    def ask(self, path, body=None, method=None, **options):
        return self.raw(request_bytes(method or ("GET" if body is None else "POST"), path, body, **options))

    def complete(self, prompt="One, two, three,", max_tokens=8, **more):
        return self.ask("/v1/completions", {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, **more})

    def stream(self, prompt="One, two, three,", max_tokens=8, **more):
        """A connection on which such a request has been sent and nothing read."""
        connection = self.connect()
        body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "stream": True, **more}
        connection.send(request_bytes("POST", "/v1/completions", body))
        return connection

    def metrics(self):
        text = self.ask("/metrics").body.decode()
        return {name: float(value) for name, value in re.findall(r"^frugal:(\w+)\{[^}]*\} (\S+)$", text, re.M)}

    def steps(self):
        """Changes whenever the engine computes anything."""
        now = self.metrics()
        return now["prompt_tokens_total"], now["generation_tokens_total"]

    def memory(self):
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def processor_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self, seconds=30, descriptors=None):
        """Waits until nothing runs or waits, no block of keys and values is in use, and descriptors are what they were."""
        end, before = time.monotonic() + seconds, None
        while True:
            now = self.metrics()  # counted at the end of a step, which may come after its last answer: so twice the same
            left = {name: now[name] for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc") if now[name]}
            if descriptors and self.descriptors() > descriptors + 1:  # one for a connection that ends just now
                left["descriptors"] = self.descriptors()
            if not left and now == before:
                return
            before = now
            assert time.monotonic() < end, f"after {seconds} s there is still {left}"
            time.sleep(0.1 if not left else 0.02)

    def healthy(self):
        """It lives, answers as ever, and said nothing of a failure."""
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.errors()[-2000:]}"
        answer = self.complete(max_tokens=4)
        assert answer.status == 200, answer.body
        errors = self.errors()
        for sign in ("a request failed", "AddressSanitizer", "ThreadSanitizer", "runtime error:", "LeakSanitizer"):
            assert sign not in errors, errors[-3000:]

    def signal(self, which):
        self.process.send_signal(which)

    def wait(self, seconds=60):
        return self.process.wait(seconds)

    def stop(self):
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        code = self.wait()
        self.process.stdout.close()
        return code

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdout.close()
