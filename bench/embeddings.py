"""Sentences a second of all-MiniLM-L6-v2: frugal serve over HTTP against transformers in this process, by turns, on the same two threads.

    .venv/bin/python bench/embeddings.py [ROUNDS]
"""
import statistics
import subprocess
import sys
import time
from pathlib import Path

import openai
import torch
from transformers import AutoModel, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from test_serve import KEY, Server

torch.set_num_threads(2)
folder = subprocess.check_output([str(Path(__file__).resolve().parent.parent / "scripts/fetch-model"), "encoder"], text=True).strip()
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
tokenizer.backend_tokenizer.no_padding()
WORDS = "the model reads a text and gives one vector that says what it is about so that texts which mean the same lie close".split()
TEXTS = [" ".join(WORDS[(i * 7 + j) % len(WORDS)] for j in range(4 + i * 5 % 29)) for i in range(64)]  # 6 to 34 tokens, 18 in the mean


def transformers_embed(texts):
    with torch.inference_mode():
        inputs = tokenizer(texts, padding=True, return_tensors="pt")
        mask = inputs["attention_mask"].unsqueeze(-1)
        hidden = model(**inputs).last_hidden_state
        return torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)


def rate(embed, batch, seconds=4):
    embed(TEXTS[:batch])
    begin, count = time.monotonic(), 0
    while time.monotonic() - begin < seconds:
        first = count % 64 if batch == 1 else 0
        embed(TEXTS[first:first + batch])
        count += batch
    return count / (time.monotonic() - begin)


server = Server(f"m={folder}", "-t", 2, "--api-key", KEY)
client = server.client()
ways = {"frugal": lambda texts: client.embeddings.create(model="m", input=texts), "transformers": transformers_embed}
rates = {}
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
    for batch in (1, 64):
        for name, embed in ways.items():
            rates.setdefault((batch, name), []).append(rate(embed, batch))
for (batch, name), values in rates.items():
    print(f"batch {batch:2}  {name:12}  median {statistics.median(values):6.1f} sentences/s  (lowest {min(values):.1f}, highest {max(values):.1f})")
server.stop()
