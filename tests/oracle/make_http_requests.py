"""Random valid HTTP/1.1 requests as h11 writes them, and what they mean: a JSON list on standard output.

    make_http_requests.py SEED COUNT
"""
import json
import random
import sys
from urllib.parse import quote

import h11

rng = random.Random(int(sys.argv[1]))
TOKEN = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"
VALUE = [chr(c) for c in range(0x21, 0x7F)] + [" ", "\t"]
SEGMENT = "abcXYZ019-._~!$&'()*+,;=:@ %äßあ😀\"<>[]{}|\\^`"
TAKEN = ("host", "content-length", "transfer-encoding", "connection", "expect", "content-encoding", "content-type", "authorization", "x-api-key")


def text(alphabet, low, high):
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(low, high)))


def one():
    segments = [s for s in (text(SEGMENT, 1, 8) for _ in range(rng.randint(0, 4))) if s not in (".", "..")]
    path = "/" + "/".join(segments)
    query = quote(text(SEGMENT, 0, 12), safe="&=+[]/?:@!$'()*,;")
    target = "/" + "/".join(quote(s, safe="!$&'()*+,;=:@") for s in segments) + ("?" + query if query else "")
    body = text("abc\r\n{}\"ä0", 0, 300).encode() if rng.random() < 0.7 else b""
    headers = [("Host", rng.choice(["localhost", "127.0.0.1:8080", "[::1]"]))]
    for _ in range(rng.randint(0, 12)):
        name = text(TOKEN, 1, 15)
        if name.lower() not in TAKEN:
            headers.append((name, text(VALUE, 0, 30).strip()))
    close = rng.random() < 0.2
    if close:
        headers.append(("Connection", rng.choice(["close", "Close", "te, close"])))
    chunked = body and rng.random() < 0.5
    if chunked:
        headers.append(("Transfer-Encoding", "chunked"))
    elif body:
        headers.append(("Content-Length", str(len(body))))
    rng.shuffle(headers)
    method = rng.choice(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
    client = h11.Connection(h11.CLIENT)
    sent = client.send(h11.Request(method=method, target=target, headers=headers))
    rest = body
    while rest:
        size = rng.randint(1, len(rest)) if chunked else len(rest)
        sent += client.send(h11.Data(rest[:size]))
        rest = rest[size:]
    sent += client.send(h11.EndOfMessage())

    # What h11 itself reads from it.
    server = h11.Connection(h11.SERVER)
    server.receive_data(sent)
    request, received = server.next_event(), b""
    while isinstance(event := server.next_event(), h11.Data):
        received += bytes(event.data)
    assert isinstance(event, h11.EndOfMessage) and received == body
    return {"bytes": list(sent), "method": request.method.decode(), "path": path, "query": query, "body": received.decode(),
            "keep_alive": not close, "headers": [[n.decode(), v.decode()] for n, v in request.headers]}


print(json.dumps([one() for _ in range(int(sys.argv[2]))]))
