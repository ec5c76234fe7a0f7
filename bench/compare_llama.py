"""Prefill and decode of frugal against llama.cpp (llama_cpp_python), alternating in one run, medians, as ratios.

    .venv/bin/python bench/compare_llama.py build/frugal MODEL.gguf [ROUNDS]
"""
import json
import statistics
import subprocess
import sys
import time

import llama_cpp

PROMPT, GENERATED, THREADS = 256, 64, 2


def ours(binary, model):
    done = subprocess.run([binary, "bench", model, "-p", str(PROMPT), "-n", str(GENERATED), "-r", "1", "-t", str(THREADS), "--json"],
                          capture_output=True, text=True, check=True)
    rows = {row["test"]: row["tps"] for row in json.loads(done.stdout)}
    return rows[f"pp{PROMPT}"], rows[f"tg{GENERATED}"]


def theirs(llm):
    tokens = [(i * 7919) % 40000 + 10 for i in range(PROMPT)]
    llm.reset()
    start = time.perf_counter()
    llm.eval(tokens)
    prefill = PROMPT / (time.perf_counter() - start)
    llm.reset()
    llm.eval(tokens[:1])
    start = time.perf_counter()
    for token in tokens[1:GENERATED + 1]:
        llm.eval([token])
    return prefill, GENERATED / (time.perf_counter() - start)


def main():
    binary, model = sys.argv[1:3]
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    llm = llama_cpp.Llama(model, n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False)
    theirs(llm)
    results = [(ours(binary, model), theirs(llm)) for _ in range(rounds)]
    for i, name in enumerate([f"pp{PROMPT}", f"tg{GENERATED}"]):
        a = statistics.median(r[0][i] for r in results)
        b = statistics.median(r[1][i] for r in results)
        ratio = statistics.median(r[0][i] / r[1][i] for r in results)
        print(f"{name}: frugal {a:.1f} t/s, llama.cpp {b:.1f} t/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
