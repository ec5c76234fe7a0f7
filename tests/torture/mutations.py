"""Random changes of valid requests, of their JSON and of their bytes: never a 5xx, never a hang, never an end of the server."""
import json
import random
import time

from .cases import case
from .server import Closed, request_bytes
from .values import GOOD

ODD = [None, True, False, 0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 1e308, -0.0, 1.5, "", "a", "\0", "‮", "\U0001f600", "x" * 5000, "<|im_end|>", [], {}, [[]], {"": None}, [1] * 100, ["a", 1], {"type": "json_object"},
       {"role": "user", "content": "a"}, {"type": "text", "text": "a"}]
FIELDS = ["stream", "n", "stop", "logprobs", "top_logprobs", "response_format", "grammar", "guided_regex", "guided_choice", "json_schema", "structured_outputs", "tools", "tool_choice", "seed", "logit_bias", "echo", "model",
          "format", "options", "system", "messages", "prompt", "chat_template_kwargs", "stream_options", "keep_alive", "raw", "images", "max_tokens", "thinking", "content", "tokens", "user"]


def changed(value, draw):
    """A copy in which one node is another."""
    if draw.random() < 0.3 or not isinstance(value, (dict, list)) or not value:
        return draw.choice(ODD)
    value = value.copy()
    key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
    kind = draw.random()
    if kind < 0.1:
        del value[key]
    elif kind < 0.2 and isinstance(value, list):
        value.insert(key, value[key])
    elif kind < 0.4 and isinstance(value, dict):
        value[draw.choice(FIELDS)] = draw.choice(ODD)
    else:
        value[key] = changed(value[key], draw)
    return value


def mutated(draw):
    """Bytes of one request, and whether their framing is whole."""
    path = draw.choice(list(GOOD))
    body = GOOD[path]
    for _ in range(draw.randrange(1, 4)):
        body = changed(body, draw) if isinstance(body, dict) else body
    try:
        text = json.dumps(body, ensure_ascii=draw.random() < 0.5).encode()
    except UnicodeEncodeError:
        text = json.dumps(body).encode()
    if draw.random() < 0.3:
        text = bytearray(text)
        for _ in range(draw.randrange(1, 5)):
            position = draw.randrange(len(text) + 1)
            kind = draw.random()
            if kind < 0.4 and position < len(text):
                text[position] = draw.randrange(256)
            elif kind < 0.7:
                text[position:position] = bytes(draw.choice(b'{}[]",:\\0\xff') for _ in range(draw.randrange(1, 4)))
            else:
                del text[position:position + draw.randrange(1, 8)]
        text = bytes(text)
    data = request_bytes("POST", path, text)
    if draw.random() < 0.2:
        head = data.index(b"\r\n\r\n") + 4
        changed_head = bytearray(data[:head - 4])
        for _ in range(draw.randrange(1, 3)):
            changed_head[draw.randrange(len(changed_head))] = draw.randrange(256)
        return bytes(changed_head) + b"\r\n\r\n" + data[head:], False
    return data, True


def is_at_work(server):
    before = server.steps()
    time.sleep(2)
    return server.steps() != before


@case("random")
def random_changes(bench):
    """Random changes of valid requests on every endpoint: never a 5xx, never a crash"""
    seed = random.randrange(2**32)
    draw, end = random.Random(seed), time.monotonic() + (bench.seconds or bench.many(6, 60))
    statuses = {}
    while time.monotonic() < end:
        data, whole = mutated(draw)
        with bench.server.connect(timeout=30 if whole else 1) as connection:
            try:
                connection.send(data)
                status = connection.answer().status
            except (Closed, TimeoutError, ConnectionError) as failure:
                # Without max_tokens an answer may fill the context, which takes minutes: then the server is at work on it.
                assert not whole or (isinstance(failure, TimeoutError) and is_at_work(bench.server)), (seed, data[:2000])
                continue
            except ValueError as failure:  # no answer that HTTP knows
                raise AssertionError((seed, data[:2000])) from failure
        statuses[status] = statuses.get(status, 0) + 1
        assert status < 500 or status in (501, 505), (seed, status, data[:2000])
    bench.note(f"seed {seed}: " + ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    assert statuses.get(200) and statuses.get(400)
