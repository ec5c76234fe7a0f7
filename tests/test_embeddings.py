"""Embeddings, rerank and scores as clients see them, against transformers on the same checkpoints."""
import base64
import json
import math
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import ollama
import openai
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from conftest import ROOT
from test_serve import KEY, Server

TEXTS = ["", "Hello", "The capital of France is Paris.", "naïve café, Ångström", "東京タワー", "Привет, мир!", "مرحبا بالعالم", "🙂🚀 emoji", "a" * 300,
         "tab\tand\nnewline\r\n", "\u200b\ufeff zero width", "e\u0301 and é", "İstanbul ISTANBUL", "हिन्दी में", "ﬁligature ½ ²", "x = y + 1; // code",
         "the quick brown fox jumps over the lazy dog " * 20, "ALL CAPS, and punctuation?!...", "\x00 control \x07", "한국어 문장입니다."]


@pytest.fixture(scope="module")
def minilm(smollm2):
    path = smollm2.parent / "all-MiniLM-L6-v2"
    assert path.is_dir(), f"{path}: scripts/fetch-model encoder puts it there"
    return path


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """mean, cross, ...: tiny random BERTs; matryoshka: one whose vectors may be cut."""
    folder = tmp_path_factory.mktemp("encoders")
    subprocess.run([sys.executable, str(ROOT / "tests/oracle/make_tiny_encoders.py"), str(folder), "7"], check=True, capture_output=True)
    (folder / "mean").rename(folder / "matryoshka")
    config = json.loads((folder / "matryoshka/config.json").read_text())
    (folder / "matryoshka/config.json").write_text(json.dumps(config | {"matryoshka_dimensions": [4, 8]}))
    return folder


@pytest.fixture(scope="module")
def server(smollm2, minilm, tiny, encoders):
    running = Server(f"minilm={minilm}", f"smol={smollm2}", f"tiny={tiny / 'model'}", f"cross={encoders / 'cross'}", f"cut={encoders / 'matryoshka'}",
                     "--api-key", KEY, "--kv-cache-mib", 64)
    yield running
    assert running.stop() == 0
    assert not [line for line in running.err if "a request failed" in line]


def cosine(a, b):
    return float(torch.nn.functional.cosine_similarity(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64), dim=0))


@pytest.fixture(scope="module")
def wanted(minilm):
    """What sentence-transformers computes: the mean of the tokens' states, of length 1."""
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    tokenizer.backend_tokenizer.no_padding()
    vectors, tokens = [], 0
    with torch.no_grad():
        for text in TEXTS:
            inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            vectors.append(torch.nn.functional.normalize(model(**inputs).last_hidden_state[0].mean(0), dim=0).tolist())
            tokens += inputs["input_ids"].shape[1]
    return vectors, tokens


def test_openai_client_gets_the_vectors_of_transformers(server, wanted):
    client = server.client()
    vectors, tokens = wanted
    plain = client.embeddings.create(model="minilm", input=TEXTS, encoding_format="float")
    assert [one.index for one in plain.data] == list(range(len(TEXTS)))
    assert min(cosine(one.embedding, want) for one, want in zip(plain.data, vectors)) >= 0.99999
    assert all(abs(math.hypot(*one.embedding) - 1) < 1e-5 for one in plain.data)
    assert plain.usage.prompt_tokens == plain.usage.total_tokens == tokens
    packed = client.embeddings.create(model="minilm", input=TEXTS)  # the client asks for base64
    assert all(a.embedding == pytest.approx(b.embedding, rel=1e-6, abs=1e-9) for a, b in zip(packed.data, plain.data))
    raw = server.request("/v1/embeddings", {"model": "minilm", "input": "Hello", "encoding_format": "base64"})[2]["data"][0]["embedding"]
    floats = struct.unpack("<384f", base64.b64decode(raw, validate=True))
    assert list(floats) == pytest.approx(plain.data[1].embedding, rel=1e-6, abs=1e-9)
    for i in (0, 1, 4, 16):  # to the last digit: alone as in a list
        assert client.embeddings.create(model="minilm", input=TEXTS[i], encoding_format="float").data[0].embedding == plain.data[i].embedding


def test_token_ids_are_taken_as_they_are(server):
    client = server.client()
    ids = server.request("/tokenize", {"model": "minilm", "prompt": "Hello"})[2]["tokens"]
    text, one, several = (client.embeddings.create(model="minilm", input=given, encoding_format="float").data for given in ("Hello", ids, [ids, ids[:2]]))
    assert text[0].embedding == one[0].embedding == several[0].embedding != several[1].embedding


def test_many_inputs_come_in_order_while_short_requests_overtake(server):
    client = server.client()
    many = [f"number {i} " + "word " * (i % 10) for i in range(2048)]
    result, ended = [], []
    listing = threading.Thread(target=lambda: (result.append(client.embeddings.create(model="minilm", input=many)), ended.append(time.monotonic())))
    listing.start()
    time.sleep(0.5)
    one = client.embeddings.create(model="minilm", input=many[77])
    chat = client.chat.completions.create(model="smol", messages=[{"role": "user", "content": "Hi"}], max_tokens=4)
    after = time.monotonic()
    listing.join()
    assert ended[0] > after and chat.usage.completion_tokens > 0
    assert len(result[0].data) == 2048 and result[0].data[77].embedding == one.data[0].embedding
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="minilm", input=["x"] * 2049)
    assert error.value.param == "input" and "2049" in str(error.value)


def test_work_for_a_client_that_left_ends(server):
    before = server.metric("frugal:prompt_tokens_total")
    body = json.dumps({"model": "minilm", "input": ["word " * 200] * 2048}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
                       f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(1)
    deadline = time.monotonic() + 60
    while server.metric("frugal:num_requests_running") > 0:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.metric("frugal:prompt_tokens_total") - before < 2048 * 202


def test_long_texts_are_refused_or_cut(server, minilm):
    client = server.client()
    long = "word " * 400
    with pytest.raises(openai.BadRequestError) as error:
        client.embeddings.create(model="minilm", input=["short", long])
    assert "402" in str(error.value) and "256" in str(error.value) and error.value.param == "input[1]"
    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    tokenizer.backend_tokenizer.no_padding()
    for cut, tokens in ((-1, 256), (256, 256), (7, 7)):
        answer = client.embeddings.create(model="minilm", input=long, encoding_format="float", extra_body={"truncate_prompt_tokens": cut})
        with torch.no_grad():
            want = model(**tokenizer(long, truncation=True, max_length=tokens, return_tensors="pt")).last_hidden_state[0].mean(0)
        assert answer.usage.prompt_tokens == tokens and cosine(answer.data[0].embedding, want.tolist()) >= 0.99999


@pytest.mark.parametrize("field, value", [("input", None), ("input", 5), ("input", []), ("input", {"a": 1}), ("input", ["a", 1]), ("input", ["a", [1]]), ("input", [[]]),
                                          ("input", [-1]), ("input", [30522]), ("input", [1.5]), ("input", [[1, "a"]]), ("encoding_format", "int8"), ("dimensions", 0),
                                          ("dimensions", 383), ("dimensions", 385), ("dimensions", "384"), ("truncate_prompt_tokens", 0), ("truncate_prompt_tokens", 257),
                                          ("truncate_prompt_tokens", 1), ("truncate_prompt_tokens", -2), ("truncate_prompt_tokens", 2**64 - 1), ("dimensions", 2**63),
                                          ("model", 7)])
def test_wrong_values_are_refused_by_name(server, field, value):
    status, _, body = server.request("/v1/embeddings", {"model": "minilm", "input": "text", field: value})
    assert status == 400 and body["error"]["param"].startswith(field), body


def test_no_value_of_another_type_breaks_a_request(server):
    whole = {"/v1/embeddings": {"input": "text", "encoding_format": "float", "dimensions": 384, "truncate_prompt_tokens": 8, "user": "u"},
             "/api/embed": {"input": ["text"], "truncate": True, "options": {}, "dimensions": 384}, "/api/embeddings": {"prompt": "text"},
             "/rerank": {"query": "q", "documents": ["d"], "top_n": 1, "return_documents": True, "truncate_prompt_tokens": 8},
             "/score": {"text_1": "a", "text_2": ["b"], "truncate_prompt_tokens": 8}}
    for path, body in whole.items():
        assert server.request(path, {"model": "minilm", **body})[0] == 200, path
        for field in body:
            for value in (None, True, -1, 2**64, 0.5, 1e300, "", "x", [], [[]], [None], [{}], {}, {"text": 1}):
                status, _, answer = server.request(path, {"model": "minilm", **body, field: value})
                assert status in (200, 400), (path, field, value, answer)
    for body in (b"", b"[]", b"3", b'{"input":', b'{"input":"a"}x', b'{"input":"a","input":"b"}', b'{"input":"\xff"}', b"[" * 10000):
        assert server.request("/v1/embeddings", body)[0] == 400


def test_dimensions_of_a_matryoshka_model(server):
    ask = lambda **more: server.request("/v1/embeddings", {"model": "cut", "input": "The quick brown fox", **more})[2]
    whole, cut = ask()["data"][0]["embedding"], ask(dimensions=8)["data"][0]["embedding"]
    scale = math.hypot(*whole[:8])
    assert cut == pytest.approx([value / scale for value in whole[:8]], rel=1e-5)
    assert "[4,8]" in ask(dimensions=5)["error"]["message"]
    assert len(server.request("/api/embed", {"model": "cut", "input": "fox", "dimensions": 4})[2]["embeddings"][0]) == 4


def test_ollama_client_gets_the_same_vectors(server):
    client = ollama.Client(host=server.url, headers={"Authorization": f"Bearer {KEY}"})
    want = [one.embedding for one in server.client().embeddings.create(model="minilm", input=TEXTS[:4], encoding_format="float").data]
    answer = client.embed(model="minilm:latest", input=TEXTS[:4])
    assert [list(vector) for vector in answer.embeddings] == want and answer.prompt_eval_count > 0 and answer.total_duration > 0
    assert list(client.embeddings(model="minilm", prompt=TEXTS[2]).embedding) == want[2]
    assert len(client.embed(model="minilm", input="word " * 400).embeddings[0]) == 384  # cut unless told otherwise
    with pytest.raises(ollama.ResponseError) as error:
        client.embed(model="minilm", input="word " * 400, truncate=False)
    assert error.value.status_code == 400 and "402" in error.value.error
    assert list(client.embed(model="minilm", input="").embeddings) == []
    assert client.show("minilm").capabilities == ["embedding"] and client.show("minilm").modelinfo["bert.embedding_length"] == 384


QUERY = "What is the capital of France?"
DOCUMENTS = ["Bananas are yellow.", {"text": "Paris is the capital of France."}, "France is a country in Europe."]


def test_rerank_with_an_encoder_is_the_cosine(server):
    for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
        status, _, answer = server.request(path, {"model": "minilm", "query": QUERY, "documents": DOCUMENTS, "top_n": 2})
        assert status == 200 and [one["index"] for one in answer["results"]] == [1, 2]
        assert answer["results"][0]["document"] == {"text": "Paris is the capital of France."}
    texts = [QUERY] + [one if isinstance(one, str) else one["text"] for one in DOCUMENTS]
    vectors = [one["embedding"] for one in server.request("/v1/embeddings", {"model": "minilm", "input": texts})[2]["data"]]
    answer = server.request("/rerank", {"model": "minilm", "query": QUERY, "documents": DOCUMENTS, "return_documents": False})[2]
    for one in answer["results"]:
        assert one["relevance_score"] == pytest.approx(cosine(vectors[0], vectors[one["index"] + 1]), abs=1e-6) and "document" not in one
    scores = server.request("/score", {"model": "minilm", "text_1": QUERY, "text_2": texts[1:]})[2]["data"]
    assert [one["score"] for one in scores] == pytest.approx([cosine(vectors[0], vector) for vector in vectors[1:]], abs=1e-6)


def test_rerank_with_a_cross_encoder_is_that_of_transformers(server, encoders):
    folder = encoders / "cross"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    texts = ["the quick brown fox", "a lazy dog", "", "naïve café, 東京"]

    def want(query, documents, **cut):
        with torch.no_grad():
            return [float(torch.sigmoid(model(**tokenizer([query], [document], return_tensors="pt", return_token_type_ids=True, **cut)).logits[0, 0]))
                    for document in documents]

    expected = want("fox", texts)
    answer = server.request("/v1/rerank", {"model": "cross", "query": "fox", "documents": texts})[2]
    assert {one["index"]: one["relevance_score"] for one in answer["results"]} == pytest.approx(dict(enumerate(expected)), abs=1e-5)
    found = [one["relevance_score"] for one in answer["results"]]
    assert found == sorted(found, reverse=True) and len(set(found)) > 1
    pairs = server.request("/v1/score", {"model": "cross", "text_1": texts, "text_2": texts[::-1]})[2]["data"]
    assert [one["score"] for one in pairs] == pytest.approx([want(a, [b])[0] for a, b in zip(texts, texts[::-1])], abs=1e-5)
    long = "dog " * 100
    status, _, body = server.request("/rerank", {"model": "cross", "query": "fox", "documents": ["dog", long]})
    assert status == 400 and body["error"]["param"] == "documents[1]" and "64" in body["error"]["message"]
    cut = server.request("/rerank", {"model": "cross", "query": "fox", "documents": [long], "truncate_prompt_tokens": 20})[2]["results"][0]["relevance_score"]
    assert cut == pytest.approx(want("fox", [long], truncation="only_second", max_length=20)[0], abs=1e-5)
    per_document = server.request("/rerank", {"model": "cross", "query": "fox", "documents": [long], "max_tokens_per_doc": 5})[2]["results"][0]["relevance_score"]
    length = len(tokenizer(["fox"], [""])["input_ids"][0]) + 5
    assert per_document == pytest.approx(want("fox", [long], truncation="only_second", max_length=length)[0], abs=1e-5)
    status, _, body = server.request("/rerank", {"model": "cross", "query": long, "documents": ["dog"], "truncate_prompt_tokens": -1})
    assert status == 400 and "no room" in body["error"]["message"]
    status, _, body = server.request("/v1/embeddings", {"model": "cross", "input": "fox"})
    assert status == 400 and "scores pairs" in body["error"]["message"]


@pytest.mark.parametrize("path, change, param", [("/rerank", {"query": None}, "query"), ("/rerank", {"query": 5}, "query"), ("/rerank", {"documents": []}, "documents"),
                                                 ("/rerank", {"documents": "one"}, "documents"), ("/rerank", {"documents": ["a", 5]}, "documents[1]"),
                                                 ("/rerank", {"top_n": 0}, "top_n"), ("/rerank", {"return_documents": 1}, "return_documents"),
                                                 ("/rerank", {"max_tokens_per_doc": 5}, "max_tokens_per_doc"), ("/score", {"text_1": None}, "text_1"),
                                                 ("/score", {"text_1": ["a", "b"]}, "text_1"), ("/score", {"text_2": [{}]}, "text_2[0]")])
def test_wrong_pairs_are_refused_by_name(server, path, change, param):
    status, _, body = server.request(path, {"model": "minilm", "query": "q", "documents": ["d"], "text_1": "a", "text_2": ["b", "c", "d"], **change})
    assert status == 400 and body["error"]["param"] == param, body


def test_a_decoder_embeds_with_its_last_token(server, tiny):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny / "model").eval(), AutoTokenizer.from_pretrained(tiny / "model")
    texts = ["The quick brown fox", "Häuschen 東京", "x"]
    answer = server.client().embeddings.create(model="tiny", input=texts, encoding_format="float")
    with torch.no_grad():
        want = [model.model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1].tolist() for text in texts]
    assert min(cosine(one.embedding, vector) for one, vector in zip(answer.data, want)) >= 0.99999
    status, _, body = server.request("/v1/embeddings", {"model": "tiny", "input": ["a", ""]})
    assert status == 400 and body["error"]["param"] == "input[1]" and "no tokens" in body["error"]["message"]
    assert len(server.client().embeddings.create(model="smol", input="Hello").data[0].embedding) == 576


def test_pooling_can_be_chosen(tiny, frugal):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny / "model").eval(), AutoTokenizer.from_pretrained(tiny / "model")
    running = Server(tiny / "model", "--pooling", "mean")
    try:
        found = running.client().embeddings.create(model="model", input="The quick brown fox", encoding_format="float").data[0].embedding
    finally:
        assert running.stop() == 0
    with torch.no_grad():
        want = model.model(**tokenizer("The quick brown fox", return_tensors="pt")).last_hidden_state[0].mean(0)
    assert cosine(found, want.tolist()) >= 0.99999
    wrong = frugal("serve", tiny / "model", "--pooling", "max", "--port", 0)
    assert wrong.code != 0 and "mean, cls or last" in wrong.err


@pytest.mark.parametrize("path, body", [("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}), ("/v1/completions", {"prompt": "x"}),
                                        ("/v1/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4}), ("/api/generate", {"prompt": "x"}),
                                        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x"}]}),
                                        ("/api/chat", {"messages": [{"role": "user", "content": "x"}]}), ("/apply-template", {"messages": [{"role": "user", "content": "x"}]})])
def test_an_encoder_says_that_it_cannot_generate(server, path, body):
    status, _, answer = server.request(path, {"model": "minilm", **body})
    assert status == 400 and "makes embeddings; it cannot generate" in json.dumps(answer)


def test_status_works_with_encoders(server):
    cards = {card["id"]: card for card in server.request("/v1/models")[2]["data"]}
    assert cards["minilm"]["max_model_len"] == 256 and cards["minilm"]["meta"]["n_embd"] == 384 and cards["minilm"]["meta"]["n_vocab"] == 30522
    assert server.request("/props")[2]["default_generation_settings"]["n_ctx"] == 256
    assert server.request("/health")[0] == server.request("/ready")[0] == server.request("/api/tags")[0] == server.request("/api/ps")[0] == 200
    before = server.metric("frugal:prompt_tokens_total")
    assert server.request("/v1/embeddings", {"model": "minilm", "input": "Hello"})[0] == 200
    assert server.metric("frugal:prompt_tokens_total") == before + 3
    assert 'frugal:request_success_total{model_name="minilm",engine="0",finished_reason="stop"}' in server.request("/metrics")[2]


def test_other_verbs_say_that_it_is_an_encoder(minilm, frugal):
    for verb in (("generate", minilm, "-p", "x"), ("bench", minilm)):
        run = frugal(*verb)
        assert run.code != 0 and "encoder (bert)" in run.err, run.err
    shown = frugal("inspect", minilm)
    assert shown.code == 0 and "BertModel" in shown.out
