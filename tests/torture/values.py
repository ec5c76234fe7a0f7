"""M: values of the endpoints. What is out of range is refused by name and costs no step of the engine."""
import json
import random

from .cases import case, timed

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GOOD = {
    "/v1/completions": {"prompt": "One, two,", "max_tokens": 2},
    "/v1/chat/completions": {"messages": QUESTION, "max_tokens": 2},
    "/v1/messages": {"model": "m", "messages": QUESTION, "max_tokens": 2},
    "/v1/messages/count_tokens": {"model": "m", "messages": QUESTION},
    "/api/chat": {"model": "m", "messages": QUESTION, "options": {"num_predict": 2}},
    "/api/generate": {"model": "m", "prompt": "One, two,", "options": {"num_predict": 2}},
    "/api/show": {"model": "m"},
    "/tokenize": {"prompt": "One, two,"},
    "/detokenize": {"tokens": [1, 2, 3]},
    "/apply-template": {"messages": QUESTION},
}
GENERATING = ("/v1/completions", "/v1/chat/completions")


def refused(server, path, body, status=(400,), param=None):
    """One answer, checked: the status, a message in the shape of the endpoint, nothing of our insides, no step."""
    answer = server.ask(path, body)
    shown = body if isinstance(body, bytes) else json.dumps(body)
    assert answer.status in status, (path, shown[:200], answer.status, answer.body[:300])
    error = answer.json["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message, (path, shown[:200])
    for inside in ("/root/", "/work/", ".cpp", "0x", "std::", "terminate"):
        assert inside not in message or inside in shown, (path, message)
    if param and isinstance(error, dict):
        assert error["param"] == param, (path, shown[:200], error)
    return answer


def refuse_all(server, cases, paths=GENERATING):
    before = server.steps()
    for path in paths:
        for stream in (False, True):
            for field, value in cases:
                refused(server, path, GOOD[path] | {"stream": stream, field: value}, param=field)
    assert server.steps() == before


@case("M1")
def bodies_that_are_no_request(bench):
    """Bodies that are empty, cut, doubled, too deep, or no UTF-8"""
    deep = b"[" * 10_000
    for path, good in GOOD.items():
        whole = json.dumps(good).encode()
        for body in (b"", b"[]", b"3", b'"x"', b"null", whole[:-1], whole + b"x", whole + whole, b'{"model":"m",' + whole[1:-1] + b',"model":"m"}', b'{"a":' + deep,
                     b'{"a":' + deep + b"]" * 10_000 + b"}", b'{"prompt":"\xff"}', b'{"prompt":"\xed\xa0\x80"}', b"\xef\xbb\xbf" + whole, b'{"temperature":NaN}',
                     b'{"temperature":1e400}', b'{"prompt":"\\ud800"}', b'{"a":01}', b"{'a':1}", whole.replace(b":", b"=")):
            refused(bench.server, path, body)
    for value in (2**53 + 1, 2**63, 2**64, 10**30):
        refused(bench.server, "/v1/completions", {"prompt": [value]}, param="prompt")
        refused(bench.server, "/detokenize", {"tokens": [value]}, param="tokens")
        refused(bench.server, "/v1/completions", GOOD["/v1/completions"] | {"seed": value}, param="seed")
    assert bench.server.ask("/v1/completions", b'{"prompt":"a","max_tokens":1,"temperature":-0}').status == 200


@case("M3-M8")
def values_out_of_range(bench):
    """n, max_tokens, sampling, logit_bias, logprobs and stop out of range, streamed or not"""
    refuse_all(bench.server, [("n", v) for v in (0, -1, 9, 10**6, 2**63, 1.5, "1", [1])] + [("best_of", 2), ("best_of", 9)] +
               [("max_tokens", v) for v in (-1, 2**63, 1.5, "5", 0)] + [("min_tokens", -1)] +
               [("temperature", v) for v in (-0.1, 2.1, 1e308, "1")] + [("top_p", v) for v in (0, -1, 1.1)] + [("min_p", v) for v in (-0.1, 1.1)] +
               [("top_k", v) for v in (-2, 0.01, 2**31)] + [(name, v) for name in ("presence_penalty", "frequency_penalty") for v in (-2.1, 2.1)] +
               [("repetition_penalty", v) for v in (0, -1, 2.1)] +
               [("logit_bias", v) for v in ({"AI": 1}, {"-1": 1}, {"49152": 1}, {"1e3": 1}, {" 1": 1}, {"1": 101}, {"1": "x"}, {str(i): 1 for i in range(1025)}, [1])] +
               [("stop", v) for v in (["a"] * 65, "x" * 10_240, [1], {"a": 1})] + [("stop_token_ids", v) for v in ([-1], [49152], [0] * 100_000, "x", [1.5])] +
               [("seed", v) for v in (2**63, 1.5, -2)] + [("stream_options", 3), ("response_format", {"type": "xml"}), ("response_format", "json")])
    refuse_all(bench.server, [("logprobs", v) for v in (-1, 21, "x", True)], ["/v1/completions"])
    refuse_all(bench.server, [("logprobs", v) for v in (3, "x")] + [("top_logprobs", 21), ("top_logprobs", -1)], ["/v1/chat/completions"])
    refused(bench.server, "/v1/completions", {"prompt": ["a"] * 33, "n": 2}, param="n")
    refused(bench.server, "/v1/completions", {"prompt": "a", "max_tokens": 8192, "logprobs": 20, "n": 8}, param="logprobs")


@case("M3")
def choices_of_a_stream_are_indexed(bench):
    """n > 1 with stream: each choice under its index, as in the whole answer"""
    ask = dict(prompt=["One, two,", "Red, green,"], max_tokens=6, n=2)
    whole = [choice["text"] for choice in bench.server.complete(**ask).json["choices"]]
    texts = [""] * 4
    for event in bench.server.complete(**ask, stream=True).events:
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert texts == whole and texts[0] == texts[1] and texts[2] == texts[3]


@case("M4")
def prompts_that_cannot_fit(bench):
    """A prompt of the whole context, one beyond it, and one that leaves room for few tokens"""
    for count, status in ((8193, 400), (100_000, 400), (8192, 400)):
        answer, seconds = timed(lambda: bench.server.ask("/v1/completions", {"prompt": [5] * count, "max_tokens": 1}))
        assert answer.status == status and seconds < 2, (count, answer.body)
    assert bench.server.complete(max_tokens=0, echo=True, logprobs=1).status == 200


@case("M8")
def text_that_a_stop_string_held_back_comes_out(bench):
    """A stop string whose beginning is the end of the answer: nothing is lost; one that is found cuts, however it is streamed"""
    whole = bench.server.complete(max_tokens=12).text
    for held in (whole[-3:] + "\x01", whole[-1:] + "never"):
        answer = bench.server.complete(max_tokens=12, stop=[held])
        assert answer.text == whole and answer.json["choices"][0]["finish_reason"] == "length"
        assert "".join(event["choices"][0]["text"] for event in bench.server.complete(max_tokens=12, stop=[held], stream=True).events) == whole
    for stop in (whole[2:4], whole[5:9]):
        cut = whole[:whole.index(stop)]
        assert bench.server.complete(max_tokens=12, stop=[stop]).text == cut
        assert "".join(event["choices"][0]["text"] for event in bench.server.complete(max_tokens=12, stop=[stop], stream=True).events) == cut


@case("M9")
def prompts_of_every_shape(bench):
    """Prompts and messages that are empty, mixed, too many, huge or strange"""
    server = bench.server
    for prompt in ([], [[]], "", [""], ["a", [1]], [[1], "a"], [-1], [49152], [1.5], [1, "a"], ["a"] * 65, 3, {"a": 1}, [None], [[[1]]], None):
        refused(server, "/v1/completions", {"prompt": prompt, "max_tokens": 1}, param=None)
    for messages in ([], None, "x", [3], [{}], [{"role": "x", "content": "a"}], [{"role": "user"}], [{"role": "user", "content": None}],
                     [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}],
                     [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}],
                     [{"role": "user", "content": "a"}] * 10_001):
        for path in ("/v1/chat/completions", "/v1/messages", "/api/chat", "/apply-template", "/v1/messages/count_tokens"):
            if path == "/api/chat" and messages == []:  # loads the model
                continue
            refused(server, path, GOOD[path] | {"messages": messages})
    for prompt in ("a\0b", "‮abc‬", "\u0000", "\U0010ffff", "﷽" * 50, "é" * 200):
        assert server.ask("/v1/completions", {"prompt": prompt, "max_tokens": 1}).status == 200, prompt
    # Long ones are refused, or tokenized, in time that grows with their length and no faster.
    for letter in (" ", "Z", "a", "é", "\n", "0", "."):
        text = letter * (bench.many(300_000, 4_000_000) // len(json.dumps(letter, ensure_ascii=False).encode()))
        answer, seconds = timed(lambda: server.ask("/tokenize", json.dumps({"prompt": text}, ensure_ascii=False).encode()))
        assert answer.status == 200 and seconds < 1 + len(text) / 100_000, (letter, len(text), answer.status, seconds)
    refused(server, "/v1/completions", {"prompt": " " * bench.many(1_000_000, 8_000_000)})


@case("M10")
def hostile_tools(bench):
    """Tools that are too many, misnamed, or answer with 131,072 letters"""
    tool = lambda name="f", parameters=None: {"type": "function", "function": {"name": name, "parameters": parameters or {"type": "object", "properties": {}}}}
    for tools in ([tool()] * 129, [tool("x" * 10_240)], [tool('a"b')], [tool(parameters="x")], [tool(parameters={"type": "strnig"})], [{}], [3], "x", {"a": 1}):
        refused(bench.server, "/v1/chat/completions", GOOD["/v1/chat/completions"] | {"tools": tools})
    for choice in ("x", {"type": "function", "function": {"name": "missing"}}, 3):
        refused(bench.server, "/v1/chat/completions", GOOD["/v1/chat/completions"] | {"tool_choice": choice})
    result = QUESTION + [{"role": "assistant", "content": ""}, {"role": "tool", "tool_call_id": "a", "content": "Z" * 131_072}]
    answer, seconds = timed(lambda: bench.server.ask("/v1/chat/completions", {"messages": result, "max_tokens": 1}))
    assert answer.status == 400 and seconds < 5, answer.body[:300]


@case("M11")
def seeds_repeat(bench):
    """The same seed draws the same answer, on its own and with others beside it; -1 another one each time"""
    draw = lambda seed: bench.server.complete(max_tokens=24, temperature=1, seed=seed).text
    assert draw(7) == draw(7) != draw(8)
    assert len({draw(-1) for _ in range(4)}) > 1


@case("M12")
def names_of_models_and_users(bench):
    """Models that are not there, of a megabyte or a path; a user of a megabyte"""
    for name in ("x", "../x", "m/", "M", "/etc/passwd", "m\0", "x" * 1_000_000, "‮m"):
        for path in ("/v1/completions", "/v1/chat/completions", "/v1/messages", "/api/chat", "/api/show", "/tokenize"):
            assert len(refused(bench.server, path, GOOD[path] | {"model": name}, status=(404,)).body) < 10_000
        if name != "m/":  # a final slash changes no path
            assert bench.server.ask("/v1/models/" + "".join(f"%{byte:02x}" for byte in name.encode()[:2000])).status in (400, 404)
    assert bench.server.ask("/v1/completions", GOOD["/v1/completions"] | {"user": "u" * 1_000_000}).status == 200


@case("M13-M14")
def options_of_streams(bench):
    """stream_options without stream; echo, stream and logprobs together"""
    for path in GENERATING:
        refused(bench.server, path, GOOD[path] | {"stream_options": {"include_usage": True}}, param="stream_options")
        refused(bench.server, path, GOOD[path] | {"stream": True, "stream_options": {"include_usage": 3}}, param="stream_options")
    ask = dict(prompt="One, two,", max_tokens=5, echo=True, logprobs=2)
    whole = bench.server.complete(**ask).json["choices"][0]
    events = [event["choices"][0] for event in bench.server.complete(**ask, stream=True).events]
    assert "".join(event["text"] for event in events) == whole["text"]
    gathered = {name: sum((event["logprobs"][name] for event in events if event["logprobs"]), []) for name in whole["logprobs"]}
    assert gathered == whole["logprobs"]


INTEGERS = {"top_k", "seed", "n", "min_tokens", "top_logprobs", "max_tokens", "max_completion_tokens", "best_of"}
SAMPLED = ["temperature", "top_p", "top_k", "min_p", "typical_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "n"]


@case("M15")
def random_parameters(bench):
    """Random sets of parameters in their ranges always answer, just outside they never do and compute nothing"""
    fields = {field["name"]: field for field in bench.server.ask("/props").json["fields"]}
    draw = random.Random(1)
    for _ in range(bench.many(40, 1000)):
        body = {"prompt": "One, two,", "max_tokens": 2, "stream": draw.random() < 0.3}
        for name in draw.sample(SAMPLED, draw.randrange(1, 8)):
            field = fields[name]
            value = draw.choice([field["min"], field["max"], draw.uniform(field["min"], min(field["max"], 100))])
            body[name] = max(int(field["min"]), int(value)) if name in INTEGERS else value
        answer = bench.server.ask("/v1/completions", body)
        assert answer.status == 200, (body, answer.body)
    bench.server.settle()
    before = bench.server.steps()
    for _ in range(bench.many(300, 10_000)):
        name = draw.choice(SAMPLED)
        field, body = fields[name], {"prompt": "One, two,", "max_tokens": 2}
        step = 1 if name in INTEGERS else draw.choice([1e-7, 1e-3, 1])
        outside = draw.choice([field["min"] - step, field["max"] + step * max(1, abs(field["max"]))])
        body[name] = int(outside) if name in INTEGERS else outside
        refused(bench.server, "/v1/completions", body, param=name)
    assert bench.server.steps() == before
