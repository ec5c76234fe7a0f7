"""N: grammars, schemas and patterns; P: keys, origins, what is told and logged; L: framing in front of real answers."""
import json
import random
import re
import socket
import statistics
import time

from .cases import case, percentile, timed, together
from .server import KEY, Closed, request_bytes
from .values import GENERATING, GOOD, QUESTION


def constrained(bench, field, value, status=(200, 400), seconds=5):
    """An answer in good time: it follows what was asked, or says what is wrong with it."""
    answer, took = timed(lambda: bench.server.complete(max_tokens=4, **{field: value, "ignore_eos": False}))
    shown = json.dumps(value)[:80]
    assert answer.status in status, (field, shown, answer.status, answer.body[:300])
    assert took < seconds, (field, shown, took)
    if answer.status == 400:
        error = answer.json["error"]
        assert error["param"] == field and len(answer.body) < 5000, (field, shown, error)
    return answer


def nested(depth):
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@case("N1-N3,N8-N9")
def hostile_grammars(bench):
    """Grammars that nest, loop, recurse to the left, repeat a milliard times, or are a megabyte"""
    for grammar in ("(" * 60_000, "root ::= " + "(" * 60_000, "root ::= " + "(" * 5000 + '"a"' + ")" * 5000, "root ::= missing", "", "x",
                    'root ::= "a\nroot ::= "b"', "root ::= [", "root ::= [z-a]", "root ::= root", 'root ::= root "a"',
                    "\n".join(["root ::= r0"] + [f"r{i} ::= r{i + 1}" for i in range(5000)] + ['r5000 ::= r0 "a"']), "root ::= \x00", 'root ::= "', "root ::= \"a\"{5,2}"):
        constrained(bench, "grammar", grammar, (400,))
    for grammar in ('root ::= ("a"*)*', 'root ::= ("a"* "b"*)* "c"', 'root ::= ("")* "a"', 'root ::= "a"{0,1000000000}', 'root ::= ("a"{0,30000}){0,30000}', 'root ::= "\\xff\\xfe"',
                    'root ::= "' + "a" * 1_000_000 + '"', "\n".join(["root ::= r0"] + [f'r{i} ::= "a" | r{i + 1} "b"' for i in range(5000)] + ['r5000 ::= "c"'])):
        constrained(bench, "grammar", grammar)


@case("N4-N5,N7")
def hostile_schemas(bench):
    """Schemas that are deep, refer to themselves, to nothing or to the network, multiply out, or accept nothing"""
    for schema in ({"$ref": "#"}, {"$ref": "http://127.0.0.1:1/x.json"}, {"$ref": "file:///etc/passwd"}, {"$ref": "#/$defs/no"}, {"type": "strnig"}, {"type": 3}, {"enum": []},
                   {"allOf": [{"const": 1}, {"const": 2}]}, {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}):
        constrained(bench, "json_schema", schema, (400,))
    product = {"allOf": [{"anyOf": [{"type": "object", "properties": {f"p{i}": {"const": j}}} for j in range(2)]} for i in range(20)]}
    for schema in (product, nested(25), {"enum": [f"value {i}" for i in range(10_000)]}, {"type": "string", "maxLength": 10**9}, {"type": "array", "maxItems": 10**9}, {"type": "array", "minItems": 10**9},
                   {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(2000)}, "required": [f"p{i}" for i in range(2000)]},
                   {"type": "object", "properties": {"a": {"$ref": "#"}}}, {"type": "integer", "minimum": 10**300}, True, False, {}):
        constrained(bench, "json_schema", schema)
    raw = b'{"prompt":"a","max_tokens":2,"json_schema":' + b'{"items":' * 10_000 + b"{}" + b"}" * 10_000 + b"}"
    assert bench.server.ask("/v1/completions", raw).status == 400


@case("N6")
def hostile_patterns(bench):
    """Patterns that would make a backtracking engine hang, or that no automaton has"""
    for pattern in ("(a)\\1", "(?=a)b", "[z-a]", "(", "a{2,1}", "\\", "(?P<x>a)(?P=x)", "*", "a**b" + "(" * 1000):
        constrained(bench, "guided_regex", pattern, (400,))
    for pattern in ("(a+)+$", "^(a|a)*b", "(x+x+)+y", "((a{0,100}){0,100}){0,100}", "a" * 100_000, "\\d{1,1000000000}", "[^\\x00-\\x7f]+", "(?i)HELLO|" + "|".join(f"w{i}" for i in range(5000))):
        constrained(bench, "guided_regex", pattern)


@case("N10", fast=False)
def compiling_disturbs_nobody(bench):
    """Grammars are compiled while 16 streams decode: their gaps at most double"""
    def gaps(during):
        times = [[] for _ in range(16)]

        def follow(mine):
            with bench.server.stream(f"Number {id(mine) % 1000}:", 100) as connection:
                connection.head()
                while connection.chunk():
                    mine.append(time.monotonic())

        together([lambda mine=mine: follow(mine) for mine in times] + [during])
        return [b - a for mine in times for a, b in zip(mine, mine[1:])]

    def compile_some():
        for i in range(20):
            constrained(bench, "json_schema", {"type": "object", "properties": {f"p{i}x{j}": {"type": "string", "maxLength": 40} for j in range(200)}}, seconds=60)

    alone, beside = gaps(lambda: None), gaps(compile_some)
    bench.note(f"gap p99 {percentile(alone, .99) * 1e3:.0f} ms, while grammars are compiled {percentile(beside, .99) * 1e3:.0f} ms")


ROUTES = [("GET", path) for path in ("/v1/models", "/v1/models/m", "/metrics", "/props", "/version", "/ready", "/ping", "/tokenizer_info", "/api/tags", "/api/ps", "/api/version", "/nothing")] + \
    [("POST", path) for path in (*GOOD, "/chat/completions", "/completions", "/v1/chat/completions/render", "/nothing")]


@case("P1,P3")
def without_the_key(bench):
    """Keys that are absent, wrong, a prefix, too long, doubled, in the query: 401 on every route, method and form of its path"""
    server = bench.server
    forms = lambda path: (path, path + "/", "/" + path, path.replace("/", "//"), "/x/.." + path, path + "?key=" + KEY, path + "?api_key=" + KEY)
    for method, path in ROUTES:
        for form in forms(path):
            for other in (method, "GET", "POST", "PUT", "DELETE", "HEAD"):
                body = {} if other in ("POST", "PUT") else None
                data = request_bytes(other, form, body, key=None)
                with server.connect() as connection:
                    connection.send(data)
                    assert connection.head()[0] == 401, (other, form)
    for line in (f"Authorization: Bearer {KEY}x", f"Authorization: Bearer {KEY[:-1]}", f"Authorization: Bearer {KEY} x", f"Authorization: Basic {KEY}", f"Authorization: {KEY}",
                 "Authorization: Bearer", "Authorization: Bearer ", f"x-api-key: {KEY}x", "x-api-key:", f"Cookie: key={KEY}"):
        assert server.ask("/v1/models", key=None, headers=[line]).status == 401, line
    assert server.ask("/v1/models", key=None, headers=["x-api-key: " + KEY]).status == 200
    assert server.ask("/v1/models", headers=["Authorization: Bearer " + KEY]).status == 400
    assert server.ask("/v1/models", headers=["x-api-key: wrong"]).status == 401
    assert server.ask("/v1/models", key="k" * 2**20).status == 431
    assert server.ask("/health", key=None).status == 200
    assert KEY not in server.errors()


@case("P2", fast=False)
def the_time_of_a_refusal_tells_nothing(bench):
    """Keys whose first byte is right and keys whose first byte is wrong are refused in the same time"""
    times = {True: [], False: []}
    wrong, right = "X" + KEY[1:-1] + "X", KEY[:-1] + "X"
    with bench.server.connect() as connection:
        for i in range(20_000):
            for kind in random.sample((True, False), 2):
                begin = time.perf_counter()
                connection.send(request_bytes("GET", "/v1/models", key=right if kind else wrong))
                status = connection.answer().status
                times[kind].append(time.perf_counter() - begin)
                assert status == 401
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    # Wilcoxon's rank sum, as a normal variable.
    ranked = sorted((value, kind) for kind, values in times.items() for value in values)
    n = len(times[True])
    z = (sum(rank for rank, (_, kind) in enumerate(ranked, 1) if kind) - n * (2 * n + 1) / 2) / (n * n * (2 * n + 1) / 12) ** 0.5
    bench.note(f"medians {medians[True] * 1e6:.1f} and {medians[False] * 1e6:.1f} us, z = {z:.2f}")
    assert abs(z) < 2.58, (medians, z)


@case("P4")
def other_origins(bench):
    """Requests that a web page of another origin makes: no CORS headers; a Host that is not ours: 403"""
    for method, body in (("GET", None), ("OPTIONS", None), ("POST", GOOD["/v1/completions"])):
        answer = bench.server.ask("/v1/models" if body is None else "/v1/completions", body, method, headers=["Origin: http://evil.example", "Access-Control-Request-Method: POST"])
        assert not [name for name in answer.headers if name.startswith("access-control")], answer.headers
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.2"):
        data = request_bytes("GET", "/v1/models").replace(b"Host: localhost", b"Host: " + host.encode())
        assert bench.server.raw(data).status == 403, host


@case("P5")
def labels_of_metrics(bench):
    """A model named with quotes and line breaks stays in its label; unknown models make no new labels"""
    server = bench.start("--alias", 'a"b\n\\c{}')
    try:
        for i in range(20):
            server.ask("/v1/completions", {"prompt": "a", "model": f"unknown{i}"})
        lines = server.ask("/metrics").body.decode().splitlines()
        assert not [line for line in lines if "unknown" in line]
        label = r'[a-z_]+="(?:[^"\\\n]|\\.)*"'
        for line in lines:
            assert re.fullmatch(rf"# TYPE [a-z0-9_:]+ \w+|[a-z0-9_:]+\{{{label}(?:,{label})*\}} \S+", line), line
    finally:
        assert server.stop() == 0


@case("P6-P7")
def what_is_logged(bench):
    """Text of clients comes into the log only escaped; prompts and keys do not come at all"""
    secret = "my very secret prompt"
    server = bench.start("--log-level", "info")
    for body in ({"prompt": secret, "max_tokens": 1, "evil\r\n\x1b[31mfield": 1}, {"prompt": secret, "max_tokens": -1}, {"messages": secret}, {"prompt": secret, "grammar": "root ::= \r\n\x1b[31m"}):
        assert server.ask("/v1/completions", body).status in (200, 400)
    server.ask("/v1/models/%1b%5b31m")
    assert server.stop() == 0
    log = server.errors()
    assert secret not in log and KEY not in log
    assert not [c for c in log if ord(c) < 32 and c not in "\n\t"], "a control character in the log"
    assert "evil" in log


@case("P8")
def beyond_this_machine(bench):
    """--host 0.0.0.0 without a key does not start"""
    try:
        server = bench.start("--host", "0.0.0.0", key=None)
    except AssertionError as failure:
        assert "--api-key" in str(failure)
    else:
        server.kill()
        raise AssertionError("it started")


@case("L10,L15")
def pipelines(bench):
    """A hundred requests on one connection at once, the fiftieth bad: answers in order; thousands one after another"""
    server = bench.server
    alone = server.complete("Number 3:", 2).text
    with server.connect() as connection:
        data = b""
        for i in range(100):
            body = {"prompt": "Number 3:", "max_tokens": 2, "temperature": 0 if i != 50 else 9}
            data += request_bytes("POST", "/v1/completions", body | {"ignore_eos": True}) if i % 2 == 0 else request_bytes("GET", "/v1/models")
        connection.send(data)
        for i in range(100):
            answer = connection.answer()
            assert answer.status == (400 if i == 50 else 200), (i, answer.body)
            if i % 2 == 0 and i != 50:
                assert answer.text == alone
            elif i % 2:
                assert answer.json["object"] == "list"
        for _ in range(bench.many(1000, 100_000)):
            connection.send(request_bytes("GET", "/health"))
            assert connection.answer().status == 200


@case("L14,L16")
def half_closed_and_cut(bench):
    """A client that ended its sending side is answered; a request in pieces gets the same answer; a reset in the body leaves nothing"""
    server = bench.server
    body = {"prompt": "One, two,", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
    data = request_bytes("POST", "/v1/completions", body)
    text = server.raw(data).text
    for stream in (False, True):
        with server.connect() as connection:
            connection.send(request_bytes("POST", "/v1/completions", body | {"stream": stream}))
            connection.socket.shutdown(socket.SHUT_WR)
            answer = connection.answer()
            assert answer.status == 200 and ("".join(event["choices"][0]["text"] for event in answer.events) if stream else answer.text) == text
    for cut in range(1, len(data), bench.many(17, 1)):
        with server.connect() as connection:
            connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.send(data[:cut])
            time.sleep(0.001)
            connection.send(data[cut:])
            assert connection.answer().text == text
    for cut in range(1, len(data), 7):
        connection = server.connect()
        connection.send(data[:cut])
        connection.reset()
    with server.connect() as connection:
        connection.send(request_bytes("POST", "/v1/completions", b"", length=8 * 2**20 + 1))
        assert connection.answer().status == 413
