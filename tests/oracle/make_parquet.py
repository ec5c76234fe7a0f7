"""Parquet files as pyarrow writes them, with the rows they hold.

usage: make_parquet.py JSONL PARQUET     the rows of a file of JSON lines
       make_parquet.py OUT_DIR SEED     OUT_DIR/<n>.parquet, OUT_DIR/<n>.jsonl (a row a line), OUT_DIR/odd_<what>.parquet (not to be read)
"""
import datetime
import decimal
import itertools
import json
import os
import random
import sys

import pyarrow as pa
import pyarrow.parquet as pq

CALL = pa.struct([("name", pa.string()), ("arguments", pa.string())])
MESSAGE = pa.struct([pa.field("role", pa.string(), nullable=False), ("content", pa.string()), ("tool_calls", pa.list_(CALL))])
SCHEMA = pa.schema([
    ("text", pa.string()), pa.field("id", pa.int64(), nullable=False), ("small", pa.int32()), ("good", pa.bool_()), ("score", pa.float64()), ("half", pa.float32()),
    ("messages", pa.list_(MESSAGE)), ("history", pa.list_(pa.list_(pa.string()))), ("meta", pa.struct([("source", pa.large_string()), ("tags", pa.list_(pa.int32()))])),
    ("choice", pa.dictionary(pa.int32(), pa.string())), pa.field("all", pa.list_(pa.field("element", pa.string(), nullable=False)), nullable=False),
    ("when", pa.timestamp("ms")), ("vector", pa.list_(pa.float32(), 3))])


def text(rng):
    return rng.choice(["", "a", "caf\u00e9", "\u4e16\u754c \U0001F600", "x" * rng.randint(0, 300), str(rng.random())])


def maybe(rng, value, share=0.2):
    return None if rng.random() < share else value()


def some(rng, value, most=4):
    return [value() for _ in range(rng.randint(0, most))]


def row(rng):
    call = lambda: maybe(rng, lambda: {"name": text(rng), "arguments": maybe(rng, lambda: text(rng))}, 0.1)
    message = lambda: {"role": rng.choice(["user", "assistant"]), "content": maybe(rng, lambda: text(rng)), "tool_calls": maybe(rng, lambda: some(rng, call, 2), 0.6)}
    return {"text": maybe(rng, lambda: text(rng)), "id": rng.randint(-2**62, 2**62), "small": maybe(rng, lambda: rng.randint(-5, 5)),
            "good": maybe(rng, lambda: rng.random() < 0.5), "score": maybe(rng, rng.random), "half": maybe(rng, lambda: rng.randint(-9, 9) / 4),
            "messages": maybe(rng, lambda: some(rng, lambda: maybe(rng, message, 0.05))),
            "history": maybe(rng, lambda: some(rng, lambda: maybe(rng, lambda: some(rng, lambda: maybe(rng, lambda: text(rng)), 2)))),
            "meta": maybe(rng, lambda: {"source": maybe(rng, lambda: text(rng)), "tags": maybe(rng, lambda: some(rng, lambda: maybe(rng, lambda: rng.randint(0, 3))))}),
            "choice": maybe(rng, lambda: rng.choice(["one", "two"])), "all": some(rng, lambda: text(rng)),
            "when": datetime.datetime(2026, 1, 1), "vector": [0.5, 1.5, 2.5]}


def main():
    if sys.argv[1].endswith(".jsonl"):
        with open(sys.argv[1]) as f:
            pq.write_table(pa.Table.from_pylist([json.loads(line) for line in f]), sys.argv[2], row_group_size=7)
        return
    out, rng = sys.argv[1], random.Random(int(sys.argv[2]))
    combinations = list(itertools.product(["none", "snappy", "gzip", "zstd"], ["1.0", "2.0"], [True, False]))
    for n, (compression, version, dictionary) in enumerate(combinations):
        rows = [row(rng) for _ in range(rng.choice([0, 1, 7, 400]) if n % 5 == 0 else 300)]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), os.path.join(out, f"{n}.parquet"), compression=compression, data_page_version=version, use_dictionary=dictionary,
                       row_group_size=rng.choice([1, 50, 1000]), data_page_size=rng.choice([64, 1000, 1 << 20]), write_statistics=rng.random() < 0.5,
                       use_compliant_nested_type=rng.random() < 0.7, dictionary_pagesize_limit=rng.choice([100, 1 << 20]), store_schema=rng.random() < 0.5)
        with open(os.path.join(out, f"{n}.jsonl"), "w") as f:
            for one in rows:
                del one["when"], one["vector"]
                f.write(json.dumps(one) + "\n")
    odd = {"map": (pa.map_(pa.string(), pa.int32()), [[("a", 1)]], {}), "decimal": (pa.decimal128(5, 2), [decimal.Decimal("1.25")], {}),
           "brotli": (pa.string(), ["a"], {"compression": "brotli"}), "delta": (pa.int32(), [1, 2, 3], {"use_dictionary": False, "column_encoding": {"text": "DELTA_BINARY_PACKED"}}),
           "fixed": (pa.binary(3), [b"abc"], {})}
    for name, (kind, values, options) in odd.items():
        pq.write_table(pa.table({"text": pa.array(values, kind), "fine": ["x"] * len(values)}), os.path.join(out, f"odd_{name}.parquet"), **options)


if __name__ == "__main__":
    main()
