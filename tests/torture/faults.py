"""S: clients that leave or do not read, overload, shortage of memory and descriptors, signals, kills, full disks."""
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from .cases import case, percentile, timed, together
from .server import Closed, Connection, request_bytes
from .values import GOOD

WORDS = "river stone lamp cloud bread horse paper night glass wheel".split()


def long_prompt(draw, tokens):
    return [draw.randrange(300, 40_000) for _ in range(tokens)]


class Witness:
    """Streams that run beside an attack, and must be byte-equal to what they are alone."""

    def __init__(self, server, count=2, tokens=30):
        self.server, self.prompts, self.tokens = server, [f"Witness {i}: once upon a time" for i in range(count)], tokens
        self.alone = [server.complete(prompt, tokens).text for prompt in self.prompts]
        self.over, self.rounds = threading.Event(), 0
        self.threads = [threading.Thread(target=self.follow, args=(i,)) for i in range(count)]
        self.failures = []

    def follow(self, index):
        try:
            while not self.over.is_set():
                with self.server.stream(self.prompts[index], self.tokens) as connection:
                    answer = connection.answer()
                text = "".join(event["choices"][0]["text"] for event in answer.events)
                assert text == self.alone[index], (text, self.alone[index])
                self.rounds += 1
        except BaseException as failure:
            self.failures.append(failure)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
        if self.failures:
            raise self.failures[0]
        assert self.rounds > 0


LEAVE = {"reset": Connection.reset, "close": Connection.close, "half": lambda connection: (connection.socket.shutdown(socket.SHUT_WR), time.sleep(0.01), connection.close())}


def cancelled(server, draw, stage, how, stream):
    """One client that leaves at a stage: while it sends its head or body, while its request waits, while its prompt is read, while it gets tokens, or after the last."""
    prompt = long_prompt(draw, 1500) if stage == "prefill" else f"{draw.choice(WORDS)} {draw.randrange(10**6)}"
    body = {"prompt": prompt, "max_tokens": 2 if stage == "after" else 2000, "temperature": 0, "ignore_eos": True, "stream": stream}
    data = request_bytes("POST", "/v1/completions", body)
    head = data.index(b"\r\n\r\n") + 4
    connection = server.connect()
    try:
        if stage in ("head", "body"):
            connection.send(data[:draw.randrange(1, head)] if stage == "head" else data[:draw.randrange(head, len(data))])
        else:
            connection.send(data)
            if stage == "prefill":
                time.sleep(draw.uniform(0, 0.05))
            elif stage == "decode" and stream:
                connection.head()
                for _ in range(draw.randrange(3)):
                    connection.chunk()
            elif stage == "decode":
                time.sleep(draw.uniform(0, 0.05))
            elif stage == "after":
                connection.answer()
        LEAVE[how](connection)
    except (Closed, OSError):
        connection.close()


STAGES = ("head", "body", "queue", "prefill", "decode", "after")


@case("S1")
def clients_that_leave_at_every_stage(bench):
    """Clients that leave with a reset, a FIN or a half-close, at every stage, streamed or not: others do not notice, all is free at once"""
    draw = random.Random(2)
    with Witness(bench.server):
        for stage in STAGES:
            for how in LEAVE:
                for stream in (False, True):
                    cancelled(bench.server, draw, stage, how, stream)
    _, seconds = timed(lambda: bench.server.settle(descriptors=bench.descriptors))
    bench.note(f"free {seconds * 1e3:.0f} ms after the last one left")
    assert seconds < 5, seconds


@case("S1b")
def many_cancels(bench):
    """Thousands of cancels at random stages: no block, request or descriptor is left"""
    total, before = bench.many(160, 100_000), bench.server.metrics()
    memory = bench.server.memory()

    def some(seed):
        draw = random.Random(seed)
        for _ in range(total // 8):
            cancelled(bench.server, draw, draw.choice(STAGES[:5]), draw.choice(("reset", "close")), draw.random() < 0.7)

    _, seconds = timed(lambda: together([lambda seed=seed: some(seed) for seed in range(8)]))
    bench.server.settle(descriptors=bench.descriptors)
    after = bench.server.metrics()
    bench.note(f"{total} cancels in {seconds:.0f} s; resident memory {(bench.server.memory() - memory) / 1e6:+.1f} MB")
    assert after["kv_cache_usage_perc"] == before["kv_cache_usage_perc"]


def reading_nothing(server, tokens=4000):
    connection = Connection(server.port, receive_buffer=1024)
    body = {"prompt": "Slow:", "max_tokens": tokens, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 20}
    connection.send(request_bytes("POST", "/v1/completions", body))
    return connection


@case("S2", fast=False)
def readers_that_stop(bench):
    """Clients that read nothing, one byte a second, or are stopped: dropped within a minute, the others' gaps stay"""
    server = bench.server
    memory = server.memory()
    slow = [reading_nothing(server) for _ in range(8)]
    child = subprocess.Popen(["python3", "-c", f"import socket,time; s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096); s.connect(('127.0.0.1',{server.port})); s.sendall({request_bytes('POST', '/v1/completions', {'prompt': 'a', 'max_tokens': 4000, 'ignore_eos': True, 'stream': True, 'logprobs': 20})!r}); s.recv(10); time.sleep(1000)"])
    time.sleep(1)
    child.send_signal(signal.SIGSTOP)
    try:
        with Witness(server):
            end = time.monotonic() + 150
            while server.metrics()["num_requests_running"] > 2 and time.monotonic() < end:
                time.sleep(1)
        server.settle(seconds=60)
        bench.note(f"resident memory {(server.memory() - memory) / 1e6:+.1f} MB with 9 readers that stopped")
    finally:
        child.kill()
        child.wait()
        for connection in slow:
            connection.close()


@case("S3", fast=False)
def slow_senders(bench):
    """A thousand clients that send one byte a second: closed in time, good requests go on"""
    clients = [bench.server.connect() for _ in range(1000)]
    data = request_bytes("POST", "/v1/completions", GOOD["/v1/completions"])
    begin, position = time.monotonic(), 0
    while clients and time.monotonic() < begin + 40:
        for connection in list(clients):
            try:
                connection.send(data[position % len(data):][:1])
            except OSError:
                clients.remove(connection)
        position += 1
        assert bench.server.complete(max_tokens=2).status == 200
        time.sleep(1)
    bench.note(f"all closed after {time.monotonic() - begin:.0f} s")
    assert not clients


@case("S4", fast=False)
def idle_connections(bench):
    """Ten thousand idle connections: /health answers in 50 ms, memory stays small"""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server, count = bench.server, 9900
    memory, clients = server.memory(), []
    for i in range(count):
        connection = server.connect(source=f"127.0.0.{2 + i % 4}")
        connection.send(request_bytes("GET", "/health"))
        assert connection.answer().status == 200
        clients.append(connection)
    each = (server.memory() - memory) / count
    times = []
    for connection in random.sample(clients, 500):
        _, seconds = timed(lambda: (connection.send(request_bytes("GET", "/health")), connection.answer()))
        times.append(seconds)
    for connection in clients:
        connection.close()
    bench.note(f"{each:.0f} bytes each; /health p99 {percentile(times, .99) * 1e3:.1f} ms")
    assert each < 16_384 and percentile(times, .99) < 0.05


@case("S5")
def without_descriptors(bench):
    """No descriptor is left: it does not spin, and recovers when some return"""
    server = bench.start(limits={resource.RLIMIT_NOFILE: 64})
    try:
        clients = []
        for _ in range(100):
            clients.append(server.connect(timeout=2))
        time.sleep(0.3)
        before = server.processor_seconds()
        time.sleep(2)
        spent = (server.processor_seconds() - before) / 2
        assert spent < 0.05, f"{100 * spent:.0f} % of a core while nothing can be accepted"
        for connection in clients:
            connection.close()
        server.healthy()
    finally:
        server.kill()


@case("S6")
def overload(bench):
    """Many more requests at once than may wait: 200, or 503 with Retry-After at once; what was taken is answered rightly"""
    server = bench.start("--parallel", 4)
    try:
        alone, refusals, statuses = server.complete("Overload:", 2).text, [], []

        def one():
            with server.connect() as connection:
                begin = time.monotonic()
                connection.send(request_bytes("POST", "/v1/completions", {"prompt": "Overload:", "max_tokens": 2, "temperature": 0, "ignore_eos": True}))
                answer = connection.answer()
                statuses.append(answer.status)
                if answer.status == 503:
                    assert answer.headers["retry-after"] and answer.json["error"]["code"] == "overloaded"
                    refusals.append(time.monotonic() - begin)
                else:
                    assert answer.status == 200 and answer.text == alone, answer.body

        count = bench.many(330, 3000)
        together([one] * count)
        bench.note(f"{statuses.count(200)} of {count} answered, {len(refusals)} refused" + (f" (p99 {percentile(refusals, .99) * 1e3:.0f} ms)" if refusals else ""))
        server.settle()
        server.healthy()
    finally:
        assert server.stop() == 0


@case("S7,S9")
def little_memory_for_keys(bench):
    """Keys and values run out, beginnings are shared or not: every answer is the one of a server with plenty; what can never fit is refused"""
    draw = random.Random(3)
    prompts = [" ".join(draw.choice(WORDS) for _ in range(draw.randrange(5, 60))) for _ in range(bench.many(6, 400))]
    prompts += [prompts[i] + " and" for i in range(0, len(prompts), 3)]
    lengths = [draw.randrange(16, bench.many(40, 150)) for _ in prompts]
    want = [bench.server.complete(prompt, length).text for prompt, length in zip(prompts, lengths)]
    for arguments in (("--kv-cache-mib", 4), ("--kv-cache-mib", 4, "--no-prefix-caching"), ("--no-prefix-caching",))[:bench.many(1, 3)]:
        server = bench.start(*arguments)
        try:
            got = [None] * len(prompts)
            together([lambda i=i: got.__setitem__(i, server.complete(prompts[i], lengths[i]).text) for i in range(len(prompts))])
            assert got == want, [i for i in range(len(got)) if got[i] != want[i]]
            if "--kv-cache-mib" in arguments:
                answer, seconds = timed(lambda: server.ask("/v1/completions", {"prompt": [5] * 1000, "max_tokens": 1}))
                assert answer.status == 400 and seconds < 2, answer.body
            preempted = server.metrics()["num_preemptions_total"]
            assert preempted > 0 or not bench.full or "--kv-cache-mib" not in arguments
            server.settle()
        finally:
            assert server.stop() == 0
        bench.note(f"{' '.join(map(str, arguments))}: {preempted:.0f} preemptions")


@case("S10")
def failures_among_others(bench):
    """Requests that are refused or cut among others: those do not notice"""
    with Witness(bench.server, 3, 20):
        draw = random.Random(4)
        for i in range(bench.many(24, 2000)):
            kind = i % 4
            if kind == 0:
                assert bench.server.ask("/v1/completions", {"prompt": [5] * 9000}).status == 400
            elif kind == 1:
                assert bench.server.complete(max_tokens=3, grammar="root ::= (").status == 400
            elif kind == 2:
                cancelled(bench.server, draw, "decode", "reset", True)
            else:
                assert bench.server.complete(max_tokens=2, temperature=2, seed=i, logit_bias={str(j): -100 for j in range(1000)}).status == 200


@case("S11", fast=False)
def a_pause_of_the_process_is_no_hang(bench):
    """The process is stopped for 12 s in the middle of its work: afterwards it is healthy"""
    with bench.server.stream(max_tokens=400) as connection:
        head = connection.head()
        bench.server.signal(signal.SIGSTOP)
        time.sleep(12)
        bench.server.signal(signal.SIGCONT)
        assert bench.server.ask("/health").status == 200
        assert connection.rest(*head).events


@case("S12")
def a_signal_under_load(bench):
    """SIGTERM while streams run: no new work, each stream ends whole, exit 0; a second signal ends it at once"""
    server = bench.start()
    alone = server.complete(max_tokens=30).text
    streams = [server.stream(max_tokens=30) for _ in range(16)]
    heads = [stream.head() for stream in streams]
    server.signal(signal.SIGTERM)
    time.sleep(0.3)
    try:
        with server.connect(timeout=2) as late:
            late.send(request_bytes("GET", "/ready"))
            assert late.answer().status == 503
    except OSError:
        pass  # it listens no more
    for stream, head in zip(streams, heads):
        assert "".join(event["choices"][0]["text"] for event in stream.rest(*head).events) == alone
        stream.close()
    assert server.wait() == 0 and "Traceback" not in server.errors()
    for signals in ((signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT))[:bench.many(1, 3)]:
        server = bench.start()
        stream = server.stream(max_tokens=4000)
        stream.head()
        server.signal(signals[0])
        time.sleep(0.3)
        assert server.process.poll() is None
        server.signal(signals[1])
        code, seconds = timed(server.wait)
        assert code == 130 and seconds < 1, (code, seconds)
        stream.close()


@case("S12b", fast=False)
def a_drain_ends_in_time(bench):
    """SIGTERM while a stream runs that lasts longer than 30 s: it is cut, visibly, and the process ends by itself"""
    server = bench.start()
    streams = [server.stream(max_tokens=8000) for _ in range(4)]
    heads = [stream.head() for stream in streams]
    server.signal(signal.SIGTERM)
    code, seconds = timed(lambda: server.wait(60))
    bench.note(f"ended after {seconds:.1f} s")
    assert code == 0 and seconds < 34, (code, seconds)
    for stream, head in zip(streams, heads):
        try:
            answer = stream.rest(*head)
        except Closed:
            continue
        assert b"error" in answer.body and not answer.body.rstrip().endswith(b"[DONE]"), answer.body[-200:]


@case("S13")
def killed_and_started_again(bench):
    """kill -9 under load and a start on the same port, again and again: ready in its usual time, nothing is left over"""
    server = bench.start()
    port, usual = server.port, server.start_seconds
    files = lambda: {path.name for folder in ("/tmp", "/dev/shm") for path in Path(folder).iterdir() if "frugal" in path.name and not path.name.startswith("frugal-torture-")}
    before, slowest = files(), 0
    for _ in range(bench.many(2, 100)):
        streams = [server.stream(max_tokens=500) for _ in range(4)]
        streams[0].head()
        server.kill()
        for stream in streams:
            stream.close()
        server = bench.start(port=port)
        slowest = max(slowest, server.start_seconds)
        assert server.complete(max_tokens=2).status == 200
    bench.note(f"ready after {usual:.1f} s at first, {slowest:.1f} s at most")
    assert server.stop() == 0 and files() == before
    assert slowest < usual + 5, (usual, slowest)


@case("S14")
def the_model_file_changes(bench):
    """The model's file is replaced, removed or cut while it is served: the right answer, or an end with a message; never another text"""
    for change in ("replace", "remove", "truncate"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "copy.gguf"
            shutil.copy(bench.model, path)
            server = bench.start(model=path)
            try:
                want = server.complete(max_tokens=8).text
                if change == "replace":
                    (Path(folder) / "new").write_bytes(b"GGUF" + os.urandom(1 << 20))
                    os.rename(Path(folder) / "new", path)
                elif change == "remove":
                    path.unlink()
                else:
                    os.truncate(path, 1 << 20)
                try:
                    answer = server.complete(max_tokens=8)
                except (Closed, OSError):
                    code = server.wait(10)
                    assert change == "truncate" and code != 0 and str(path) in server.errors(), (change, code, server.errors()[-500:])
                    bench.note(f"{change}: it ended with {code}: {server.errors().splitlines()[-1]}")
                else:
                    if answer.status == 200:
                        assert answer.text == want
                    else:
                        assert change == "truncate" and answer.status == 500 and str(path) in server.errors(), answer.body
                    bench.note(f"{change}: {answer.status}")
            finally:
                server.kill()


@case("S15")
def nobody_takes_the_log(bench):
    """Standard error is full, closed, or a pipe that nobody reads or that was shut: serving goes on"""
    reader, writer = os.pipe()
    os.close(reader)
    full_reader, full_writer = os.pipe()
    os.set_blocking(full_writer, False)
    try:
        while True:
            os.write(full_writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(full_writer, True)
    with open("/dev/full", "w") as full:
        for name, err in (("a full disk", full.fileno()), ("a shut pipe", writer), ("a pipe that nobody reads", full_writer)):
            server = bench.start("--log-level", "info", err=err)
            for i in range(20):
                assert server.ask("/v1/completions", GOOD["/v1/completions"] | {f"unknown{i}": 1}).status == 200, name
            if err == full_writer:
                os.read(full_reader, 1 << 20)
                assert server.ask("/v1/completions", GOOD["/v1/completions"] | {"unknown": 1}).status == 200
                assert b"messages are missing here" in os.read(full_reader, 1 << 20)
            assert server.stop() == 0, name
    for descriptor in (writer, full_reader, full_writer):
        os.close(descriptor)


@case("S19")
def faults_at_once(bench):
    """Clients leave while sequences give up their blocks; a signal comes while the model is loaded"""
    server = bench.start("--kv-cache-mib", 4)
    try:
        def some(seed):
            draw = random.Random(seed)
            for _ in range(bench.many(10, 500)):
                cancelled(server, draw, draw.choice(("prefill", "decode")), "reset", True)

        together([lambda seed=seed: some(seed) for seed in range(8)])
        server.settle()
        server.healthy()
    finally:
        assert server.stop() == 0
    draw = random.Random()
    for _ in range(bench.many(6, 60)):
        delay = draw.uniform(0, 1.2 * server.start_seconds)
        process = subprocess.Popen([bench.binary, "serve", bench.model, "--port", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.terminate()
        try:
            code, seconds = timed(lambda: process.wait(20))
        finally:
            process.kill()
        assert code in (0, 130, 143, -15) and seconds < 5, (delay, code, seconds)


@case("streams")
def live_streams(bench):
    """Many live streams at once: each in order, ended, and byte-equal to its answer as a whole"""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    server, count, tokens = bench.server, bench.many(64, 1000), bench.many(6, 16)
    want, got = [None] * count, [None] * count
    kinds = bench.many(8, 50)
    for i in range(kinds):
        want[i] = server.complete(f"Stream {i}:", tokens).text
    if bench.full:
        server = bench.start("--parallel", 1024)
    connections = []
    try:
        connections = [server.stream(f"Stream {i % kinds}:", tokens) for i in range(count)]
        for i, connection in enumerate(connections):
            answer = connection.answer()
            assert answer.status == 200, answer.body
            got[i] = "".join(event["choices"][0]["text"] for event in answer.events)
        assert got == [want[i % kinds] for i in range(count)]
    finally:
        for connection in connections:
            connection.close()
        if bench.full:
            assert server.stop() == 0
