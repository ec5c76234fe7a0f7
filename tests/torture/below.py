"""S10, S11, S17: what the server stands on gives way: memory in the middle of a step, the step itself, the network."""
import ctypes
import mmap
import os
import random
import signal
import struct
import subprocess
import tempfile
import time
from pathlib import Path

from .cases import case, timed, together
from .faults import Witness, cancelled, long_prompt
from .server import Closed, request_bytes

LOGITS = 49_152 * 4  # bytes of one row


class Shortage:
    """shortage.cpp, compiled, and the file through which a server that has it preloaded is told what to do."""
    FIELDS = ("least_bytes", "countdown", "nap_seconds", "failed")

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="frugal-torture-")
        library, orders = Path(self.folder.name) / "shortage.so", Path(self.folder.name) / "orders"
        subprocess.run(["c++", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).parent / "shortage.cpp", "-ldl"], check=True)
        orders.write_bytes(bytes(8 * len(self.FIELDS)))
        with open(orders, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        # The sanitizer's library wants to be the first; behind ours it works as well.
        self.environment = {"LD_PRELOAD": str(library), "SHORTAGE_FILE": str(orders), "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0"}

    def set(self, field, value):
        struct.pack_into("=q", self.memory, 8 * self.FIELDS.index(field), value)

    def get(self, field):
        return struct.unpack_from("=q", self.memory, 8 * self.FIELDS.index(field))[0]


def text_or_failure(stream):
    """The text of a stream that ended well; None where it failed, and said so or was cut."""
    try:
        answer = stream.answer()
    except Closed:
        return None
    if answer.status != 200:
        assert answer.status in (500, 503), answer.body
        return None
    if not answer.body.endswith(b"data: [DONE]\n\n"):
        return None
    events = answer.events
    return None if any("error" in event for event in events) else "".join(event["choices"][0]["text"] for event in events)


def all_blocks_are_there(server, positions):
    """A prompt that needs each of the cache's blocks is answered: none was lost."""
    answer = server.ask("/v1/completions", {"prompt": [5] * (positions - 2), "max_tokens": 1})
    assert answer.status == 200, answer.body


@case("S10")
def memory_for_one_request_is_short(bench):
    """What one request needs for a step cannot be had: it gets an error, the streams beside it stay byte-equal, its blocks are free"""
    shortage = Shortage()
    server = bench.start("--kv-cache-mib", 16, "--ctx-size", 640, **shortage.environment)
    try:
        with Witness(server, 3, 20):
            shortage.set("least_bytes", 6 * LOGITS)  # three streams need three rows, all positions of a prompt more
            for stream in (False, True):
                answer = server.complete(long_prompt(random.Random(5), 60), max_tokens=4, echo=True, logprobs=1, stream=stream)
                assert answer.status in (500, 503) and answer.json["error"]["message"], answer.body
            assert shortage.get("failed") > 0
            shortage.set("least_bytes", 0)
        server.settle()
        all_blocks_are_there(server, 640)
    finally:
        assert server.stop() == 0, server.errors()[-2000:]


@case("S10b")
def any_allocation_of_a_step_fails(bench):
    """One allocation after another of the threads that compute fails: no other request than those of that step fails, the rest is byte-equal"""
    shortage, draw = Shortage(), random.Random(6)
    server = bench.start("--kv-cache-mib", 16, "--ctx-size", 640, **shortage.environment)
    try:
        prompts = ["Once upon a time", "One, two, three,", long_prompt(draw, 150)]
        alone = [server.complete(prompt, 6).text for prompt in prompts]

        def once(countdown):
            """Starts the streams, has an allocation fail, and returns how many of them failed."""
            streams = [server.stream(prompt, 6) for prompt in prompts]
            shortage.set("countdown", countdown)
            texts = [text_or_failure(stream) for stream in streams]
            for stream in streams:
                stream.close()
            assert all(text in (None, want) for text, want in zip(texts, alone)), (countdown, texts, alone)
            return texts.count(None)

        much = 10**9
        assert once(much) == 0
        total = much - shortage.get("countdown")
        failed = shortage.get("failed")
        counts = [once(draw.randrange(1, total)) for _ in range(bench.many(50, 300))]
        shortage.set("countdown", 0)
        server.settle()
        happened = shortage.get("failed") - failed
        bench.note(f"{happened} of about {total} allocations failed; " + ", ".join(f"{counts.count(n)} times {n} requests" for n in sorted(set(counts))))
        assert happened > len(counts) / 2
        assert once(0) == 0
        for _ in range(bench.many(2, 100)):  # clients leave while a prompt is on its way through the blocks
            shortage.set("countdown", draw.randrange(1, total // 4))
            together([lambda seed=seed: cancelled(server, random.Random(seed), "prefill", "reset", True) for seed in range(4)])
        shortage.set("countdown", 0)
        server.settle()
        assert once(0) == 0
        all_blocks_are_there(server, 640)
    finally:
        assert server.stop() == 0, server.errors()[-2000:]


@case("S11", fast=False)
def a_step_hangs(bench):
    """A step sleeps for two minutes: /health says 503 within 10 s, at the limit the server ends with the stacks of its threads"""
    shortage = Shortage()
    server = bench.start("--hang-limit", 15, **shortage.environment)
    try:
        with server.stream(max_tokens=2000) as stream:
            stream.head()
            begin = time.monotonic()
            shortage.set("nap_seconds", 120)
            while server.ask("/health").status == 200:
                assert time.monotonic() - begin < 11
                time.sleep(0.1)
            noticed = time.monotonic() - begin
            assert server.ask("/ready").status == 503
            code = server.wait(30)
            bench.note(f"/health 503 after {noticed:.1f} s, ended after {time.monotonic() - begin:.1f} s")
        errors = server.errors()
        assert noticed <= 10 and code == 1, (noticed, code, errors[-2000:])
        assert "--hang-limit" in errors and "shortage.so" in errors.split("thread ", 1)[1], errors[-5000:]
    finally:
        server.kill()


@case("S11b", fast=False)
def a_shutdown_while_a_step_hangs(bench):
    """SIGTERM while a step hangs: the drain has its time, then the process ends, and says that it did not end in order"""
    shortage = Shortage()
    server = bench.start(**shortage.environment)
    try:
        with server.stream(max_tokens=2000) as stream:
            stream.head()
            shortage.set("nap_seconds", 120)
            time.sleep(0.5)
        server.signal(signal.SIGTERM)
        code, seconds = timed(lambda: server.wait(60))
        bench.note(f"ended after {seconds:.1f} s")
        assert code == 1 and "the shutdown" in server.errors(), (code, server.errors()[-2000:])
    finally:
        server.kill()


@case("S11c", fast=False)
def a_busy_machine_is_no_hang(bench):
    """Twice as many busy loops as cores beside streams and a long prompt, for half a minute: /health stays 200"""
    busy = [subprocess.Popen(["python3", "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
    streams = [bench.server.stream(prompt, 4000) for prompt in ("Busy:", "Busy too:", long_prompt(random.Random(7), 3000))]
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            answer = bench.server.ask("/health")
            assert answer.status == 200, answer.body
            time.sleep(0.2)
    finally:
        for process in busy:
            process.kill()
            process.wait()
        for stream in streams:
            stream.reset()


CLONE_NEWNET = 0x40000000


def leave_the_network():
    """The calling thread has a network of its own from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(CLONE_NEWNET) == 0, f"no network of its own ({ctypes.get_errno()}): this case is for root"


@case("S17", fast=False)
def peers_vanish(bench):
    """The link goes down under clients that are idle, stream, wait or send: no FIN comes, and within 60 s all of them are dropped"""
    def inside():
        leave_the_network()
        link = lambda state: subprocess.run(["ip", "link", "set", "lo", state], check=True)
        link("up")
        server = bench.start()  # a child of this thread: in its network
        try:
            server.healthy()
            with server.connect() as first:
                first.send(request_bytes("GET", "/health"))
                first.answer()
                before = server.descriptors() - 1
                idle, sending = server.connect(), server.connect()
                idle.send(request_bytes("GET", "/health"))
                idle.answer()
                long = {"prompt": "a", "max_tokens": 7000, "ignore_eos": True}
                streams = [server.stream(max_tokens=7000) for _ in range(3)]
                for stream in streams:
                    stream.head()
                waiting = server.connect()
                waiting.send(request_bytes("POST", "/v1/completions", long))
                sending.send(request_bytes("POST", "/v1/completions", long)[:-5])
                time.sleep(0.5)
                link("down")
                begin = time.monotonic()
                while server.descriptors() > before:
                    assert time.monotonic() - begin < 60, f"{server.descriptors() - before} connections are there still"
                    time.sleep(0.2)
                bench.note(f"all dropped after {time.monotonic() - begin:.0f} s")
                link("up")
                server.settle()
                server.healthy()
            assert server.stop() == 0
        finally:
            server.kill()

    together([inside])  # in a thread, whose network is its own
