#!/usr/bin/env python3
"""Load on frugal serve, from one thread of raw sockets that costs little beside the server.

    bench/serve_load.py idle [--connections 10000]         memory of an idle connection
    bench/serve_load.py streams [--streams 1000]           live streams at once: in order, rates, gaps
    bench/serve_load.py overload [--minutes 10]            ten times more requests than it can answer: goodput, refusals
    bench/serve_load.py cancels [--cancels 100000]         clients that leave at random stages: leaked blocks, memory
    bench/serve_load.py soak [--seconds 3600]              mixed traffic: drift of memory, leaked blocks, errors
    bench/serve_load.py stall [--rounds 5]                 4 decoding streams, then a prompt of 4,096 tokens: gaps, its first token
    bench/serve_load.py compare [--llama-server PATH]      against llama-server (scripts/setup --full builds it), alternating

Each prints a table; --json FILE also writes the figures. --model, --binary, --threads as in frugal serve. Nothing else should run on the machine.
"""
import argparse
import json
import os
import random
import re
import resource
import select
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from torture.cases import percentile, timed, together
from torture.faults import LEAVE
from torture.server import Closed, Server, request_bytes

CACHE = Path(os.environ.get("FRUGAL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frugal")
VOCABULARY = range(300, 40_000)  # ids of ordinary tokens of SmolLM2


class Request:
    """One request on its own connection: when it was sent and refused or answered, and when each event came."""

    def __init__(self, body, path="/v1/completions", key=None, keep=False):
        self.data = request_bytes("POST", path, body, key=key)
        self.keep, self.body = keep, bytearray()
        self.times, self.status, self.over, self.failed = [], 0, None, False
        self.tail, self.head = b"", b""

    def feed(self, data, now):
        """More of the answer; whether it is over. Events are counted, not parsed: one has "data: {"."""
        if not self.status:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return False
            self.status = int(self.head[9:12])
            head, data = self.head.split(b"\r\n\r\n", 1)
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
            self.left = int(length[1]) if length else None
        if self.keep:
            self.body += data
        window = self.tail + data
        count = window.count(b"data: {")
        if self.left is not None:
            self.left -= len(data)
            return self.left <= 0
        self.times += [now] * count
        over = b"data: [DONE]" in window
        self.tail = window[-12:]
        if count:  # what was counted is not counted again
            self.tail = self.tail[self.tail.rfind(b"data: {") + 7:] if b"data: {" in self.tail else self.tail
        return over

    @property
    def first(self):
        return self.times[0] - self.sent

    @property
    def gaps(self):
        return [b - a for a, b in zip(self.times, self.times[1:])]

    @property
    def text(self):
        events = re.findall(rb"data: (\{.*?\})\r?\n", bytes(self.body))
        return "".join(choice["text"] for event in events for choice in json.loads(event)["choices"])


class Loop:
    """Runs many requests at once in one thread."""

    def __init__(self, port):
        self.port, self.poll, self.open = port, select.epoll(), {}

    def start(self, request):
        connection = socket.socket()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request.sent = time.monotonic()
        try:
            connection.connect(("127.0.0.1", self.port))
            connection.sendall(request.data)
        except OSError:
            request.failed, request.over = True, time.monotonic()
            connection.close()
            return request
        connection.setblocking(False)
        self.open[connection.fileno()] = (connection, request)
        self.poll.register(connection.fileno(), select.EPOLLIN)
        return request

    def step(self, wait):
        """What has come within `wait` seconds at most; the requests that are over now."""
        done = []
        for descriptor, _ in self.poll.poll(wait, 256):
            connection, request = self.open[descriptor]
            try:
                data = connection.recv(1 << 18)
            except OSError:
                data = b""
            now = time.monotonic()
            if data and not request.feed(data, now):
                continue
            request.failed = not data
            request.over = now
            self.close(descriptor)
            done.append(request)
        return done

    def close(self, descriptor):
        self.poll.unregister(descriptor)
        self.open.pop(descriptor)[0].close()

    def abandon(self):
        for descriptor in list(self.open):
            self.close(descriptor)

    def run(self, requests):
        """All of them at once, to their ends."""
        requests = [self.start(request) for request in requests]
        while self.open:
            self.step(60)
        return requests

    def arrivals(self, make, rate, seconds, draw):
        """Open loop: requests come at random times, `rate` a second, however many are under way. Those that came."""
        came, begin = [], time.monotonic()
        due = begin
        while (now := time.monotonic()) < begin + seconds:
            while due <= now:
                came.append(self.start(make()))
                due += draw.expovariate(rate)
            self.step(max(0, min(due, begin + seconds) - time.monotonic()))
        return came


def random_prompt(draw, tokens):
    return [draw.choice(VOCABULARY) for _ in range(tokens)]


def asking(prompt, tokens, **more):
    return {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, **more}


def ms(seconds):
    return f"{1e3 * seconds:.1f} ms"


class Report:
    """Rows of a table, and the same as JSON."""

    def __init__(self):
        self.rows, self.figures = [], {}

    def row(self, name, text, **figures):
        self.rows.append((name, text))
        self.figures[name] = figures
        print(f"{name:<44} {text}", flush=True)


def start(options, *arguments):
    threads = ["-t", options.threads] if options.threads else []
    server = Server(options.binary, options.model, *threads, *arguments, key=None)
    server.complete(max_tokens=2)
    return server


def raise_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)


def idle(options, report):
    server, count = start(options), min(options.connections, 9990)
    memory, clients, times = server.memory(), [], []
    for i in range(count):
        clients.append(server.connect(source=f"127.0.0.{2 + i % 4}"))
        clients[-1].send(request_bytes("GET", "/health", key=None))
        assert clients[-1].answer().status == 200
    each = (server.memory() - memory) / count
    for client in random.sample(clients, min(count, 1000)):
        times.append(timed(lambda: (client.send(request_bytes("GET", "/health", key=None)), client.answer()))[1])
    report.row(f"{count} idle connections", f"{each:.0f} bytes of resident memory each, /health p50 {ms(percentile(times, .5))}, p99 {ms(percentile(times, .99))}",
               bytes_each=each, health_p50_s=percentile(times, .5), health_p99_s=percentile(times, .99))
    for client in clients:
        client.close()
    server.stop()


def streams(options, report):
    raise_descriptors()
    server = start(options, "--parallel", max(256, options.streams + 24), "--max-queued-requests", options.streams)
    kinds = 50
    whole = [server.complete(f"Stream {i}:", options.tokens).text for i in range(kinds)]
    requests = [Request(asking(f"Stream {i % kinds}:", options.tokens), keep=True) for i in range(options.streams)]
    loop = Loop(server.port)
    _, seconds = timed(lambda: loop.run(requests))
    wrong = sum(request.failed or request.status != 200 or request.text != whole[i % kinds] for i, request in enumerate(requests))
    answered = [request for request in requests if request.times]
    gaps = [gap for request in answered for gap in request.gaps]
    report.row(f"{options.streams} live streams", f"{wrong} not in order and equal to the whole answer; {options.streams * options.tokens / seconds:.0f} tokens/s, first token p50 "
               f"{ms(percentile([r.first for r in answered], .5))}, gap p50 {ms(percentile(gaps, .5))}, p99 {ms(percentile(gaps, .99))}",
               wrong=wrong, tokens_per_second=options.streams * options.tokens / seconds, gap_p50_s=percentile(gaps, .5), gap_p99_s=percentile(gaps, .99))
    server.settle()
    server.stop()


def closed_loop(port, make, concurrency, seconds):
    """So many at once, each followed by another: answers a second in the second half."""
    loop, begin, ends = Loop(port), time.monotonic(), []
    for _ in range(concurrency):
        loop.start(make())
    while time.monotonic() < begin + seconds:
        for request in loop.step(0.1):
            if request.status == 200 and not request.failed:
                ends.append(request.over)
            loop.start(make())
    loop.abandon()
    return sum(end > begin + seconds / 2 for end in ends) / (seconds / 2)


def overload(options, report):
    raise_descriptors()
    server, draw = start(options), random.Random(1)
    make = lambda: Request(asking(random_prompt(draw, 32), options.tokens))
    peak = closed_loop(server.port, make, 64, options.warm)
    server.settle(120)
    loop, seconds = Loop(server.port), 60 * options.minutes
    begin = time.monotonic()
    came = loop.arrivals(make, 10 * peak, seconds, draw)
    offered_to = time.monotonic()
    loop_left = len(loop.open)
    while loop.open and time.monotonic() < offered_to + 300:
        loop.step(1)
    good = [r for r in came if r.status == 200 and not r.failed and r.over]
    within = [r for r in good if begin + seconds * 0.1 < r.over < begin + seconds]
    refused = [r for r in came if r.status in (429, 503)]
    others = len(came) - len(good) - len(refused)
    goodput, times = len(within) / (seconds * 0.9), [r.over - r.sent for r in refused] or [0]
    waits = [r.first for r in good if r.times] or [0]
    report.row("peak, 64 at once", f"{peak:.1f} answers/s of {options.tokens} tokens", answers_per_second=peak)
    report.row(f"offered {10 * peak:.0f} requests/s for {options.minutes:g} min", f"goodput {goodput:.1f} answers/s = {100 * goodput / peak:.0f} % of peak; {len(refused)} refused, p50 {ms(percentile(times, .5))}, p99 "
               f"{ms(percentile(times, .99))}; {others} neither; first token of the answered p50 {percentile(waits, .5):.2f} s, p99 {percentile(waits, .99):.2f} s; {loop_left} under way at the end",
               goodput=goodput, share=goodput / peak, refused=len(refused), refusal_p50_s=percentile(times, .5), refusal_p99_s=percentile(times, .99), others=others, first_p99_s=percentile(waits, .99))
    server.settle(60)
    server.stop()


def leave(server, draw, tokens):
    """One request that is given up at a random stage."""
    stage = draw.choice(("head", "body", "queue", "prefill", "decode"))
    data = request_bytes("POST", "/v1/completions", asking(random_prompt(draw, tokens if stage == "prefill" else 8), 2000, stream=draw.random() < 0.7 or stage == "decode"), key=None)
    connection = server.connect()
    try:
        connection.send(data[:draw.randrange(1, len(data))] if stage in ("head", "body") else data)
        if stage == "prefill":
            time.sleep(draw.uniform(0, 0.02))
        elif stage == "decode":
            connection.head()
            connection.chunk()
        LEAVE[draw.choice(("reset", "close"))](connection)
    except (Closed, OSError):
        connection.close()


def cancels(options, report):
    server = start(options, "--kv-cache-mib", options.cache_mib)  # as for a soak
    memory, descriptors = server.memory(), server.descriptors()
    threads, marks = 16, []

    def some(seed):
        draw = random.Random(seed)
        for _ in range(options.cancels // threads):
            leave(server, draw, 256)

    def watch():
        while not over.wait(5):
            marks.append(server.memory())

    over, watcher = threading.Event(), threading.Thread(target=watch)
    watcher.start()
    _, seconds = timed(lambda: together([lambda seed=seed: some(seed) for seed in range(threads)]))
    over.set()
    watcher.join()
    _, free = timed(lambda: server.settle(60, descriptors=descriptors))
    server.healthy()
    marks = marks or [server.memory()]
    tenth = marks[len(marks) // 10]
    report.row(f"{options.cancels // threads * threads} cancels", f"{options.cancels / seconds:.0f}/s; 0 blocks, requests or descriptors left, {ms(free)} after the last; resident memory {(tenth - memory) / 1e6:+.1f} MB after a tenth, "
               f"{(server.memory() - tenth) / 1e6:+.1f} MB since", per_second=options.cancels / seconds, first_tenth_bytes=tenth - memory, drift_bytes=server.memory() - tenth)
    server.stop()


SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}, "required": ["name", "age"], "additionalProperties": False}


def mixed(server, draw, counts):
    """One piece of mixed traffic: kind by chance, checked as far as it says what must come."""
    kind = draw.choices(("chat", "stream", "long", "schema", "wrong", "leave", "tokens"), (30, 30, 5, 10, 10, 10, 5))[0]
    ask = lambda path, body: server.ask(path, body, key=None)
    words = " ".join(draw.choice(("river", "stone", "lamp", "cloud", "bread", "horse")) for _ in range(draw.randrange(4, 60)))
    if kind == "chat":
        status = ask("/v1/chat/completions", {"messages": [{"role": "user", "content": words}], "max_tokens": draw.randrange(4, 40), "temperature": 1}).status
    elif kind == "stream":
        answer = ask("/v1/completions", asking(words, draw.randrange(4, 40)))
        status = answer.status if answer.status != 200 or answer.events else 500
    elif kind == "long":
        status = ask("/v1/completions", asking(random_prompt(draw, draw.randrange(500, 3000)), 8)).status
    elif kind == "schema":
        answer = ask("/v1/completions", {"prompt": words, "max_tokens": 60, "temperature": 1, "json_schema": SCHEMA})
        status = answer.status
        if status == 200 and answer.json["choices"][0]["finish_reason"] == "stop":
            json.loads(answer.text)
    elif kind == "wrong":
        status = 200 if ask("/v1/completions", draw.choice([{"prompt": words, "n": 99}, {"prompt": [5] * 9000}, {"prompt": words, "grammar": "root ::= ("}, {"prompt": words, "model": "x"}])).status in (400, 404) else 500
    elif kind == "leave":
        leave(server, draw, 1500)
        status = 200
    else:
        status = ask("/tokenize", {"prompt": words * 50}).status
    counts[kind, status] = counts.get((kind, status), 0) + 1


def soak(options, report):
    server = start(options, "--kv-cache-mib", options.cache_mib)  # of a large one, pages would be touched for the first time until the end
    descriptors, counts, marks, end = server.descriptors(), {}, [], time.monotonic() + options.seconds
    begin = time.monotonic()

    def work(seed):
        draw = random.Random(seed)
        while time.monotonic() < end:
            mixed(server, draw, counts)

    def watch():
        while time.monotonic() < end:
            marks.append((time.monotonic() - begin, server.memory(), server.descriptors()))
            time.sleep(min(5, options.seconds / 100))

    together([lambda seed=seed: work(seed) for seed in range(options.clients)] + [watch])
    server.settle(60, descriptors=descriptors)
    server.healthy()
    memory = lambda since, until: statistics.median(m for t, m, _ in marks if since <= t / options.seconds <= until)
    early, late = memory(0.08, 0.12), memory(0.96, 1.01)
    bad = {f"{kind} {status}": count for (kind, status), count in counts.items() if status != 200}
    report.row(f"soak of {options.seconds:.0f} s, {options.clients} clients", f"{sum(counts.values())} requests, {sum(bad.values())} wrong {bad or ''}; resident memory {early / 1e6:.1f} MB at 10 %, {late / 1e6:.1f} MB at the end ("
               f"{100 * (late / early - 1):+.2f} %); 0 blocks, requests or descriptors left", requests=sum(counts.values()), wrong=bad, early_bytes=early, late_bytes=late, drift=late / early - 1)
    server.stop()


def stall(options, report):
    server, draw, rows = start(options), random.Random(2), []
    for _ in range(options.rounds):
        loop = Loop(server.port)
        alone = loop.run([Request(asking(random_prompt(draw, options.prompt), 1))])[0].first
        decoding = [loop.start(Request(asking(random_prompt(draw, 8), 4000))) for _ in range(4)]
        until = time.monotonic() + options.before
        while time.monotonic() < until:
            loop.step(0.1)
        arrived = time.monotonic()
        long = loop.start(Request(asking(random_prompt(draw, options.prompt), 1)))
        while not long.over:
            loop.step(0.1)
        while time.monotonic() < long.over + 2:
            loop.step(0.1)
        loop.abandon()
        server.settle()
        gaps = lambda begin, end: [b - a for r in decoding for a, b in zip(r.times, r.times[1:]) if begin < a and b < end]
        before, during, after = gaps(until - options.before + 1, arrived), gaps(arrived, long.times[0]), gaps(long.times[0], long.over + 2)
        rows.append([percentile(part, share) for part in (before, during, after) for share in (.5, .99)] + [alone, long.first])
    p50, p99, p50_during, p99_during, p50_after, p99_after, alone, beside = (statistics.median(column) for column in zip(*rows))
    report.row("4 streams: gap before", f"p50 {ms(p50)}, p99 {ms(p99)}", p50_s=p50, p99_s=p99)
    report.row(f"while {options.prompt} tokens are read", f"p50 {ms(p50_during)} ({p50_during / p50:.2f}x), p99 {ms(p99_during)} ({p99_during / p99:.2f}x)", p50_s=p50_during, p99_s=p99_during, p99_ratio=p99_during / p99)
    report.row("and after it, the streams that much longer", f"p50 {ms(p50_after)}, p99 {ms(p99_after)}", p50_s=p50_after, p99_s=p99_after)
    report.row("first token of the long prompt", f"{beside:.2f} s, alone {alone:.2f} s ({beside / alone:.2f}x); medians of {options.rounds}", alone_s=alone, beside_s=beside, ratio=beside / alone)
    server.stop()


class Llama:
    """A running llama-server with the same model and as many sequences."""

    def __init__(self, options, streams, context):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [options.llama_server, "-m", options.model, "--port", self.port, "-c", streams * context, "-np", streams, "-t", options.threads or os.cpu_count(), "--no-webui", "--offline"]
        self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health").read()
                return
            except OSError:
                assert self.process.poll() is None, "llama-server did not start"
                time.sleep(0.1)
        raise SystemExit("llama-server is not ready after a minute")

    def stop(self):
        self.process.terminate()
        self.process.wait()


def compare(options, report):
    most = max(options.at)
    frugal, llama = start(options, "--no-prefix-caching"), Llama(options, most, options.prompt + options.tokens + 16)
    sides, draw = {"frugal": frugal, "llama-server": llama}, random.Random(3)
    body = lambda: asking(random_prompt(draw, options.prompt), options.tokens, cache_prompt=False)  # which llama.cpp heeds

    def alternating(measure):
        """{side: [figures]}: the other process is stopped meanwhile."""
        figures = {side: [] for side in sides}
        for round in range(options.rounds + 1):
            for side in list(sides) if round % 2 else reversed(sides):
                other = next(process.process for name, process in sides.items() if name != side)
                other.send_signal(signal.SIGSTOP)
                figure = measure(sides[side].port)
                other.send_signal(signal.SIGCONT)
                if round:  # the first warms both
                    figures[side].append(figure)
        return figures

    def throughput(port, count):
        requests, seconds = timed(lambda: Loop(port).run([Request(body()) for _ in range(count)]))
        got = [len(request.times) for request in requests]
        assert all(request.status == 200 and not request.failed and len(request.times) > options.tokens / 3 for request in requests), (got, requests[0].head[:300])
        return count * options.tokens / seconds

    def line(name, figures, unit, show, better):
        ours, theirs = (statistics.median(figures[side]) for side in sides)
        report.row(name, f"frugal {show(ours)}, llama-server {show(theirs)} {unit}, ratio {statistics.median(a / b for a, b in zip(*figures.values())):.2f} ({better})",
                   frugal=ours, llama_server=theirs, rounds=options.rounds)

    rates = {}
    for count in options.at:
        rates[count] = alternating(lambda port: throughput(port, count))
        line(f"{count} streams, {options.prompt} + {options.tokens} tokens", rates[count], "tokens/s", lambda value: f"{value:.1f}", "more is better")
    # Half of what the slower one can answer, for both.
    rate = min(statistics.median(values) for values in rates[most].values()) / options.tokens / 2

    def first_token(port):
        loop = Loop(port)
        came = loop.arrivals(lambda: Request(body()), rate, options.seconds, random.Random(4))
        while loop.open:
            loop.step(60)
        return statistics.median(request.first for request in came)

    line(f"first token at {rate:.2f} requests/s (half load)", alternating(first_token), "ms", lambda value: f"{1e3 * value:.0f}", "less is better")
    llama.stop()
    frugal.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--binary", type=Path, default=ROOT / "build/frugal")
    common.add_argument("--model", type=Path, default=CACHE / "models/SmolLM2-135M-Instruct.Q4_1.gguf")
    common.add_argument("--threads", type=int, help="of either server")
    common.add_argument("--json", type=Path)
    verbs = parser.add_subparsers(required=True)

    def verb(run, **defaults):
        new = verbs.add_parser(run.__name__, parents=[common])
        new.set_defaults(run=run)
        for name, value in defaults.items():
            many = isinstance(value, list)
            new.add_argument("--" + name.replace("_", "-"), type=type(value[0]) if many else type(value), default=value, nargs="+" if many else None)

    verb(idle, connections=10_000)
    verb(streams, streams=1000, tokens=32)
    verb(overload, minutes=10.0, tokens=16, warm=30.0)
    verb(cancels, cancels=100_000, cache_mib=256)
    verb(soak, seconds=3600.0, clients=6, cache_mib=256)
    verb(stall, rounds=5, prompt=4096, before=6.0)
    llama_server = next(iter(sorted(CACHE.glob("llama.cpp-*/llama-server"), reverse=True)), CACHE / "llama.cpp/llama-server")
    verb(compare, llama_server=llama_server, at=[1, 8, 32], prompt=128, tokens=64, rounds=5, seconds=20.0)
    options = parser.parse_args()
    report = Report()
    options.run(options, report)
    if options.json:
        options.json.write_text(json.dumps(report.figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
