"""http.client and requests against the stub server of http_test, which answers with what it was asked: prints JSON, the count
of requests and the differences.

    check_http_clients.py PORT SEED COUNT
"""
import http.client
import json
import random
import sys
from urllib.parse import quote

import requests

port, rng, count = int(sys.argv[1]), random.Random(int(sys.argv[2])), int(sys.argv[3])
SEGMENT = "abcXYZ019-._~!$&'()*+,;=:@ %äßあ😀"
differences = []
session = requests.Session()
session.trust_env = False
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)


def text(alphabet, low, high):
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def parts(data):
    """As an iterable, which both clients send in chunks."""
    while data:
        size = rng.randint(1, len(data))
        yield data[:size]
        data = data[size:]


for i in range(count):
    segments = [s for s in (text(SEGMENT, 1, 8) for _ in range(rng.randint(0, 3))) if s not in (".", "..")]
    path, target = "/" + "/".join(segments), "/" + "/".join(quote(s, safe="") for s in segments)
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH"])
    body = text("abc\r\n{}\"ä0", 1, rng.choice([10, 300, 70000])).encode() if method != "GET" else b""
    headers = {"Content-Type": "application/json", "X-Number": str(i)}
    chunked = bool(body) and rng.random() < 0.5
    data = parts(body) if chunked else body or None
    if rng.random() < 0.5:
        connection.request(method, target, body=data, headers=headers, encode_chunked=chunked)
        answer = connection.getresponse()
        status, content = answer.status, answer.read()
    else:
        answer = session.request(method, f"http://127.0.0.1:{port}{target}", data=data, headers=headers, timeout=10)
        status, content = answer.status_code, answer.content
    seen = json.loads(content)
    wanted = {"method": method, "path": path, "body": body.decode()}
    found = {key: seen.get(key) for key in wanted}
    if status != 200 or found != wanted or ["x-number", str(i)] not in seen["headers"]:
        differences.append({"status": status, "wanted": wanted, "found": found})

print(json.dumps({"requests": count, "differences": differences}))
