"""The web page of frugal serve: what the server sends, and real clicks in Debian's Chromium (web/test/*.mjs) against real servers."""
import base64
import gzip
import hashlib
import json
import math
import re
import shutil
import subprocess
import urllib.error
import urllib.request

import pytest

from conftest import ROOT
from test_serve import KEY, Server

WEB = ROOT / "web"
PAGE = WEB / "dist/index.html.gz"


def clicks(script, *arguments):
    """Runs a scenario; its output says at which step it failed. SHOTS=folder keeps pictures."""
    done = subprocess.run(["node", WEB / "test" / script, *map(str, arguments)], capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@pytest.fixture(scope="module")
def smol(smollm2):
    server = Server(smollm2, "--alias", "smol")
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def points(frugal, tiny, tmp_path_factory):
    """A tiny model, and what a sweep makes of it."""
    folder = tmp_path_factory.mktemp("points")
    shutil.copytree(tiny / "model", folder / "base")
    (folder / "recipe.yaml").write_text(f"""
calibration: {{file: {tiny}/text.txt, sequences: 4, length: 32}}
evaluation: {{file: {tiny}/text.txt, ctx: 64, chunks: 4}}
chains:
- {{name: eight, steps: ["rtn:bits=8"]}}
- {{name: four, steps: ["gptq:bits=4,group=32"]}}
""")
    made = frugal("sweep", folder / "base", "--recipe", folder / "recipe.yaml", "-o", folder / "out", "--keep-models", "-t", 1)
    assert made.code == 0, made.err
    return folder


@pytest.fixture(scope="module")
def ledger_server(points):
    server = Server(f"base={points}/base", f"small={points}/out/models/eight", "--ledger", points / "out/ledger.jsonl")
    yield server
    assert server.stop() == 0


@pytest.fixture
def odd_ledger(tmp_path):
    """Two models; of the first nothing is paired, it was on two machines, and one point has no size; the second has a point far off."""
    machines = [{"cpu": f"CPU {i} </title><script>window.pwned = 1</script>", "isa": "avx2", "host": str(i), "cores": 2, "threads": 2, "memory_bytes": 2**34} for i in (1, 2)]
    common = {"schema": 1, "kind": "eval", "version": "0.1.0", "notes": "", "calibration": "", "runtime": [], "text": "t", "text_hash": "t", "ctx": 64, "chunks": 4, "tasks": {}}
    first = {**common, "model": "one" * 60, "base_hash": "1", "machine": machines[0]}
    second = {**common, "model": "two", "base_hash": "2", "machine": machines[0]}
    rows = [
        {**first, "name": "<img src=x onerror=window.pwned=2>", "model_hash": "1", "chain": [], "leaves": [], "bytes": 3 * 10**9, "ln_perplexity": 2.5, "perplexity": math.exp(2.5),
         "perplexity_stderr": 0.3, "decode_tps": 10.0},
        {**first, "name": "smaller", "model_hash": "1a", "chain": ["rtn:bits=4"], "leaves": ["quantize"], "bytes": 10**9, "ln_perplexity": 2.6, "perplexity": math.exp(2.6),
         "decode_tps": 30.0, "machine": machines[1]},
        {**first, "name": "no size", "model_hash": "1b", "chain": ["x" * 300], "leaves": ["elsewhere"], "ln_perplexity": 2.4, "perplexity": math.exp(2.4), "decode_tps": 1e-3,
         "machine": machines[1]},
        {**second, "name": "base", "model_hash": "2", "chain": [], "leaves": [], "bytes": 10**6, "ln_perplexity": 1.0, "perplexity": math.e},
        {**second, "name": "broken", "model_hash": "2a", "chain": ["rtn:bits=1"], "leaves": ["quantize"], "bytes": 10**5, "ln_perplexity": 7.1, "perplexity": math.exp(7.1),
         "ln_ratio": 6.1, "ln_ratio_stderr": 0.09},
    ]
    path = tmp_path / "ledger.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(server, path, **headers):
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as got:
            return got.status, got.headers, got.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_the_committed_page_is_what_its_sources_give(tmp_path):
    done = subprocess.run(["npm", "run", "build", "--", "--outDir", tmp_path / "dist"], cwd=WEB, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "dist/index.html").read_bytes() == gzip.decompress(PAGE.read_bytes()), "commit what `npm run build` makes in web/"


def test_the_page_is_one_small_file_without_addresses():
    page = gzip.decompress(PAGE.read_bytes()).decode()
    assert PAGE.stat().st_size < 250_000
    markup = page.split("<script", 1)[0] + page.rsplit("</script>", 1)[1]
    assert [value.split(":")[0] for value in re.findall(r"\s(?:src|href)=[\"']?([^\s\"'>]*)", markup)] == ["data"]
    assert "resolved" not in (WEB / "package-lock.json").read_text()


def test_the_page_is_sent_packed_or_plain_and_not_twice(smol):
    status, head, body = answer(smol, "/")
    assert status == 200 and head["Content-Type"] == "text/html; charset=utf-8" and head["Content-Encoding"] is None
    assert body == gzip.decompress(PAGE.read_bytes())
    for accepts in ("gzip", "deflate, gzip;q=0.5", "br,gzip , zstd"):
        status, head, packed = answer(smol, "/", **{"Accept-Encoding": accepts})
        assert head["Content-Encoding"] == "gzip" and packed == PAGE.read_bytes(), accepts
    for accepts in ("gzip;q=0", "gzip;q=0.0", "br", "identity", "notgzip"):
        assert answer(smol, "/", **{"Accept-Encoding": accepts})[1]["Content-Encoding"] is None, accepts
    assert head["Vary"] == "Accept-Encoding" and head["Cache-Control"] == "no-cache"
    for known in (head["ETag"], f'"other", {head["ETag"]}', head["ETag"].removeprefix("W/"), "*"):
        assert answer(smol, "/", **{"If-None-Match": known})[::2] == (304, b""), known
    assert answer(smol, "/", **{"If-None-Match": '"other"'})[0] == 200


def test_the_page_may_run_its_own_script_and_nothing_else(smol):
    _, head, body = answer(smol, "/")
    policy = dict(part.strip().split(" ", 1) for part in head["Content-Security-Policy"].split(";"))
    for directive, tag in (("script-src", b"script"), ("style-src-elem", b"style")):
        text = re.search(rb"<%b[^>]*>(.*?)</%b>" % (tag, tag), body, re.S)[1]
        assert policy[directive] == f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["connect-src"] == "'self'" and policy["img-src"] == "data:"
    assert (head["X-Content-Type-Options"], head["Referrer-Policy"], head["X-Frame-Options"]) == ("nosniff", "no-referrer", "DENY")


def test_the_ledger_says_what_report_says_and_who_serves_it(ledger_server, points):
    body = json.loads(answer(ledger_server, "/v1/ledger")[2])
    written = [json.loads(line) for line in (points / "out/ledger.jsonl").read_text().splitlines()]
    written = {row["name"]: row for row in written if row["kind"] == "eval"}
    rows = {row["name"]: row for row in body["rows"]}
    assert rows.keys() == written.keys() == {"base", "eight", "four"}
    for name, row in rows.items():
        for field in ("chain", "bytes", "perplexity", "perplexity_stderr", "decode_tps", "prefill_tps", "peak_rss_bytes", "bits_per_weight"):
            assert row[field] == written[name].get(field, []), (name, field)
    assert rows["base"]["ln_ratio"] == 0 and rows["four"]["ln_ratio_stderr"] == written["four"]["ln_ratio_stderr"]
    # The front by its definition: no other is as small and as good, and better in one.
    cost = {name: (row["bytes"], row["ln_ratio"]) for name, row in rows.items()}
    for name, (size, loss) in cost.items():
        beaten = any(s <= size and l <= loss and (s, l) != (size, loss) for s, l in cost.values())
        assert rows[name]["front"]["size"] == (not beaten), name
    assert {name: row["served_as"] for name, row in rows.items()} == {"base": "base", "eight": "small", "four": "four"}
    assert {name: row["path"] for name, row in rows.items()} == {
        "base": f"{points}/base", "eight": f"{points}/out/models/eight", "four": f"{points}/out/models/four"}
    assert body["groups"][0]["paired"] and len(body["groups"][0]["machines"]) == 1


def test_another_model_is_not_taken_for_a_point(smollm2, points):
    server = Server(f"base={smollm2}", "--ledger", points / "out/ledger.jsonl")
    rows = json.loads(answer(server, "/v1/ledger")[2])["rows"]
    assert {row["name"]: row["served_as"] for row in rows} == {"base": None, "eight": "eight", "four": "four"}
    assert server.stop() == 0


def test_without_a_ledger_there_are_no_rows_and_a_bad_one_is_an_error(smol, frugal, tiny, tmp_path):
    assert json.loads(answer(smol, "/v1/ledger")[2]) == {"rows": []}
    missing = frugal("serve", tiny / "model", "--ledger", tmp_path / "none.jsonl", "--port", 0)
    assert missing.code != 0 and "none.jsonl" in missing.err


def test_props_name_each_models_defaults_as_requests_do(smol):
    body = smol.request("/props")[2]
    defaults = body["default_sampling"]["smol"]
    assert defaults["temperature"] == 1 and defaults["top_k"] == 0
    assert set(defaults) <= {field["name"] for field in body["fields"]}
    accepted = smol.request("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1} | defaults)
    assert accepted[0] == 200, accepted


def test_clicks_chat(smol):
    clicks("chat.mjs", smol.url + "/")


def test_clicks_tabs(smol):
    clicks("tabs.mjs", smol.url + "/")


def test_clicks_text(smol):
    clicks("text.mjs", smol.url + "/")


def test_clicks_tradeoff(ledger_server, smol):
    clicks("tradeoff.mjs", ledger_server.url + "/", smol.url + "/")


def test_clicks_key(smollm2, odd_ledger):
    server = Server(smollm2, "--api-key", KEY, "--ledger", odd_ledger)
    try:
        clicks("key.mjs", server.url + "/", KEY, server.process.pid)
    finally:
        server.stop()
