"""frugal against llama.cpp (llama_cpp_python, which scripts/setup --full builds) on the same GGUF, in one run.

    bench/compare_llama.py speed MODEL.gguf [--formats Q4_0,Q8_0,...] [--rounds 5]
        prefill of 256 and decode of 64, alternating, medians and their ratios. With --formats the model is first expanded to
        F32 (by frugal) and quantized to each (by llama.cpp).
    bench/compare_llama.py quality MODEL.gguf --text FILE [--chunks 8]
        what each one's quantized path costs against its own float path: KL, ln-perplexity, top-1, by llama-perplexity's protocol.

Run with .venv/bin/python.
"""
import argparse
import ctypes
import json
import math
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import llama_cpp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FRUGAL = ROOT / "build/frugal"
PROMPT, GENERATED, THREADS, CTX = 256, 64, 2, 512


def frugal(*arguments):
    done = subprocess.run([str(FRUGAL), *map(str, arguments), "-t", str(THREADS), "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def llama(path, **options):
    return llama_cpp.Llama(str(path), n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False, **options)


def our_speed(model):
    rows = {row["test"]: row["tps"] for row in frugal("bench", model, "-p", PROMPT, "-n", GENERATED, "-r", 1)}
    return rows[f"pp{PROMPT}"], rows[f"tg{GENERATED}"]


def their_speed(llm):
    tokens = [(i * 7919) % (llm.n_vocab() - 10) + 10 for i in range(PROMPT)]
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


def compare_speed(name, model, rounds):
    llm = llama(model)
    their_speed(llm)
    our_speed(model)
    results = [(our_speed(model), their_speed(llm)) for _ in range(rounds)]
    for i, test in enumerate([f"pp{PROMPT}", f"tg{GENERATED}"]):
        a, b = (statistics.median(r[side][i] for r in results) for side in (0, 1))
        ratio = statistics.median(r[0][i] / r[1][i] for r in results)
        print(f"{name:<10} {test}: frugal {a:7.1f} t/s, llama.cpp {b:7.1f} t/s, ratio {ratio:.2f}", flush=True)


def expanded(model, folder):
    """Through a Hugging Face directory: it has no words for GGUF's blocks, so that they become floats."""
    directory, path = Path(folder) / "f32", Path(folder) / "f32.gguf"
    frugal("convert", model, directory, "--format", "hf", "--expand", "--dtype", "F32")
    frugal("convert", directory, path, "--dtype", "F32")
    return path


def quantized(source, name, folder):
    path = Path(folder) / f"{name}.gguf"
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    parameters.nthread = THREADS
    parameters.pure = True  # every matrix in this format, the embedding too
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(parameters)) != 0:
        raise SystemExit(f"llama.cpp does not quantize to {name}")
    return path


def speed(options):
    if not options.formats:
        compare_speed(options.model.stem, options.model, options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = expanded(options.model, folder)
        for name in options.formats.split(","):
            model = quantized(source, name, folder)
            compare_speed(name, model, options.rounds)
            model.unlink()


def their_log_probabilities(llm, tokens):
    """Of the scored half of one chunk: [CTX / 2 - 1, vocab], and the tokens that they predict."""
    llm.reset()
    llm.eval(tokens)
    first = CTX // 2
    logits = np.array(llm.scores[first:CTX - 1], dtype=np.float64)
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), np.array(tokens[first + 1:])


def quality(options):
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.logits"
        common = ["eval", options.model, "--text", options.text, "--ctx", CTX, "--chunks", options.chunks, "--no-speed"]
        frugal(*common, "--exact", "--save-logits", base)
        ours = frugal(*common, "--base-logits", base)
        print(f"frugal:    KL {ours['kl_mean']:.3e} +- {ours['kl_stderr']:.1e}, ln-perplexity {ours['ln_ratio']:+.5f} +- {ours['ln_ratio_stderr']:.5f}, "
              f"top-1 {100 * ours['top1_agreement']:.2f} %")
        floats, integers = llama(expanded(options.model, folder), logits_all=True), llama(options.model, logits_all=True)
        ids = integers.tokenize(Path(options.text).read_bytes(), add_bos=False)
        kl, difference, agree = [], [], []
        for chunk in range(options.chunks):
            tokens = ids[chunk * CTX:(chunk + 1) * CTX]
            p, targets = their_log_probabilities(floats, tokens)
            q, _ = their_log_probabilities(integers, tokens)
            rows = np.arange(len(targets))
            kl.append((np.exp(p) * (p - q)).sum(1).mean())
            difference.append((p[rows, targets] - q[rows, targets]).mean())
            agree.append((p.argmax(1) == q.argmax(1)).mean())
        error = lambda values: statistics.stdev(values) / math.sqrt(len(values))
        print(f"llama.cpp: KL {np.mean(kl):.3e} +- {error(kl):.1e}, ln-perplexity {np.mean(difference):+.5f} +- {error(difference):.5f}, "
              f"top-1 {100 * np.mean(agree):.2f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("speed")
    verb.add_argument("model", type=Path)
    verb.add_argument("--formats", default="")
    verb.add_argument("--rounds", type=int, default=5)
    verb.set_defaults(run=speed)
    verb = verbs.add_parser("quality")
    verb.add_argument("model", type=Path)
    verb.add_argument("--text", required=True)
    verb.add_argument("--chunks", type=int, default=8)
    verb.set_defaults(run=quality)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
