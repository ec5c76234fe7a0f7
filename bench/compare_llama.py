"""frugal against llama.cpp (llama_cpp_python, which scripts/setup --full builds) on the same GGUF, in one run.

    bench/compare_llama.py speed MODEL.gguf|1.1B [--tests pp256,tg64] [--formats Q4_0,Q8_0,int4,...] [--rounds 5]
        alternating, medians and their ratios. Tests as frugal bench names them: "tg64 @ d8000", "tg32 x 8". With --formats the
        model is first expanded to F32 and quantized to each (by llama.cpp; int2 to int8, which llama.cpp does not
        read: by frugal, groups of 64). 1.1B: TinyLlama's shape, random weights.
    bench/compare_llama.py quality MODEL.gguf --text FILE [--formats Q4_0,...] [--chunks 8]
        what each one's quantized path costs against its own float path: KL, ln-perplexity, top-1, by llama-perplexity's protocol.
    bench/compare_llama.py start MODEL...
        from a new process to the first token, and its peak memory, beside a program that does nothing but load libtorch.
    bench/compare_llama.py empty-step
        what a decoding step costs per layer when its matrices are next to nothing (32 x 32, Q8_0): between 4 and 104 layers.

bench/compare runs it after building both.
"""
import argparse
import ctypes
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FRUGAL = ROOT / "build/frugal"
EMPTY = ROOT / "build/bench/empty_libtorch"
THREADS, CTX = 2, 512
SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(SILENT, None)


def frugal(*arguments):
    done = subprocess.run([str(FRUGAL), *map(str, arguments), "-t", str(THREADS), "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def llama(path, **options):
    return llama_cpp.Llama(str(path), n_ctx=1024, n_batch=512, n_ubatch=512, n_threads=THREADS, n_threads_batch=THREADS, verbose=False, **options)


class Test:
    """One of frugal bench's tests by its name: "pp256", "tg64", "tg64 @ d8000", "tg32 x 8"."""

    def __init__(self, name):
        kind, count, depth, streams = re.fullmatch(r"(pp|tg)(\d+)(?: @ d(\d+))?(?: x (\d+))?", name).groups()
        self.name, self.reads, self.count, self.depth, self.streams = name, kind == "pp", int(count), int(depth or 0), int(streams or 1)

    def flags(self):
        prompt, generated = (self.count, 0) if self.reads else (0, self.count)
        return ["-p", prompt, "-n", generated, "-d", self.depth, "-npl", self.streams]


class LlamaCpp:
    """A context for `streams` sequences of `length` positions each; flash attention is llama.cpp's own choice."""

    def __init__(self, path, length, streams):
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = (length + 32) * streams
        parameters.n_batch, parameters.n_ubatch, parameters.n_seq_max = 2048, 512, streams
        parameters.n_threads = parameters.n_threads_batch = THREADS
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(2048, 0, 1)
        self.past = [0] * streams

    def close(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.past = [0] * len(self.past)

    def decode(self, sequences):
        """One token of each entry of `sequences`, logits of the last one of each sequence."""
        last = {sequence: i for i, sequence in enumerate(sequences)}
        for i, sequence in enumerate(sequences):
            self.batch.token[i] = 10 + self.past[sequence] * 7919 % (self.vocab - 10)
            self.batch.pos[i] = self.past[sequence]
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = last[sequence] == i
            self.past[sequence] += 1
        self.batch.n_tokens = len(sequences)
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")

    def read(self, sequence, count):
        for begin in range(0, count, 2048):
            self.decode([sequence] * min(2048, count - begin))

    def rate(self, test):
        self.clear()
        streams = range(test.streams)
        for sequence in streams:
            self.read(sequence, test.depth)
        llama_cpp.llama_synchronize(self.context)
        start = time.perf_counter()
        if test.reads:
            for sequence in streams:
                self.read(sequence, test.count)
        else:
            for _ in range(test.count):
                self.decode(streams)
        llama_cpp.llama_synchronize(self.context)
        return test.streams * test.count / (time.perf_counter() - start)


def compare_speed(name, model, tests, rounds):
    """Prints a line for each test: medians, the median of the rounds' ratios (of a file that llama.cpp reads), and frugal's share
    of the limit of its machine."""
    for test in map(Test, tests):
        theirs = LlamaCpp(model, test.depth + test.count, test.streams) if model.suffix == ".gguf" else None
        if theirs:
            theirs.rate(test)
        rows, rates = [], []
        for _ in range(rounds):
            rows.append(frugal("bench", model, *test.flags(), "-r", 1)[0])
            rates.append(theirs.rate(test) if theirs else math.nan)
        share = statistics.median(row["peak_share" if test.reads else "bandwidth_share"] for row in rows)
        line = f"{name:<12} {test.name:<14} frugal {statistics.median(row['tps'] for row in rows):7.1f} t/s"
        if theirs:
            theirs.close()
            line += f", llama.cpp {statistics.median(rates):7.1f} t/s, ratio {statistics.median(row['tps'] / rate for row, rate in zip(rows, rates)):.2f}"
        print(f"{line}, {100 * share:.0f} % of {'the integer peak' if test.reads else 'bandwidth'}", flush=True)


def copy_fields(source, writer, prefix=""):
    for field in source.fields.values():
        if field.name.startswith(prefix) and not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            value_type = field.types[0]
            writer.add_key_value(field.name, field.contents(), value_type, sub_type=field.types[-1] if value_type == gguf.GGUFValueType.ARRAY else None)


def write(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def expanded(model, folder):
    """The same weights in F32, by gguf's own decoder. (Not by frugal convert: a directory can hold Q4_0 and Q8_0 as integers, which
    come back as Q4_0 and Q8_0.)"""
    source, path = gguf.GGUFReader(model), Path(folder) / "f32.gguf"
    writer = gguf.GGUFWriter(path, source.fields["general.architecture"].contents())
    copy_fields(source, writer)
    for tensor in source.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    write(writer)
    return path


OWN = re.compile(r"int([2-8])")


def quantized(source, name, folder):
    if own := OWN.fullmatch(name):
        path = Path(folder) / name
        frugal("compress", source, "-o", path, "--format", "frugal", "--step", f"rtn:bits={own[1]},group=64")
        return path
    path = Path(folder) / f"{name}.gguf"
    name = {"Q3_K": "Q3_K_S", "Q4_K": "Q4_K_S", "Q5_K": "Q5_K_S"}.get(name, name)  # "pure" makes S, M and L one
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}")
    parameters.nthread = THREADS
    parameters.pure = True  # every matrix in this format, the embedding too
    if llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(parameters)) != 0:
        raise SystemExit(f"llama.cpp does not quantize to {name}")
    return path


def random_model(path, hidden=2048, inner=5632, blocks=22, heads=32, kv_heads=4):
    """The shape of TinyLlama-1.1B with random F16 weights, and the tokenizer of the default model."""
    source = gguf.GGUFReader(subprocess.run([str(ROOT / "scripts/fetch-model")], capture_output=True, text=True, check=True).stdout.strip())
    writer = gguf.GGUFWriter(path, "llama")
    vocab = len(source.fields["tokenizer.ggml.tokens"].data)
    copy_fields(source, writer, "tokenizer.")
    writer.add_context_length(16384)
    writer.add_embedding_length(hidden)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(hidden // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    rng = np.random.default_rng(0)
    matrix = lambda rows, columns: (rng.standard_normal((rows, columns), dtype=np.float32) * columns**-0.5).astype(np.float16)
    norm = lambda: np.ones(hidden, np.float32)
    writer.add_tensor("token_embd.weight", matrix(vocab, hidden))
    writer.add_tensor("output_norm.weight", norm())
    writer.add_tensor("output.weight", matrix(vocab, hidden))
    kv = hidden // heads * kv_heads
    for i in range(blocks):
        for name, rows, columns in [("attn_q", hidden, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden), ("attn_output", hidden, hidden),
                                    ("ffn_gate", inner, hidden), ("ffn_up", inner, hidden), ("ffn_down", hidden, inner)]:
            writer.add_tensor(f"blk.{i}.{name}.weight", matrix(rows, columns))
        writer.add_tensor(f"blk.{i}.attn_norm.weight", norm())
        writer.add_tensor(f"blk.{i}.ffn_norm.weight", norm())
    write(writer)
    return path


def each_format(options, compare):
    """Calls compare(name, model) on the model, or with --formats on its forms, which are made one after the other."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        random = str(options.model) == "1.1B"
        source = random_model(Path(folder) / "random.gguf") if random else options.model
        if not options.formats:
            compare(source.stem, source)
            return
        source = source if random else expanded(source, folder)
        for name in options.formats.split(","):
            model = quantized(source, name, folder)
            compare(name, model)
            shutil.rmtree(model) if model.is_dir() else model.unlink()


def speed(options):
    each_format(options, lambda name, model: compare_speed(name, model, options.tests.split(","), options.rounds))


def their_log_probabilities(llm, tokens):
    """Of the scored half of one chunk: [CTX / 2 - 1, vocab], and the tokens that they predict."""
    llm.reset()
    llm.eval(tokens)
    first = CTX // 2
    logits = np.array(llm.scores[first:CTX - 1], dtype=np.float64)
    logits -= logits.max(1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), np.array(tokens[first + 1:])


def quality(options):
    each_format(options, lambda name, model: compare_quality(name, model, options))


def compare_quality(name, model, options):
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        base = Path(folder) / "base.logits"
        common = ["eval", model, "--text", options.text, "--ctx", CTX, "--chunks", options.chunks, "--no-speed"]
        frugal(*common, "--exact", "--save-logits", base)
        ours = frugal(*common, "--base-logits", base)
        print(f"{name:<12} frugal:    KL {ours['kl_mean']:.3e} +- {ours['kl_stderr']:.1e}, ln-perplexity {ours['ln_ratio']:+.5f} +- {ours['ln_ratio_stderr']:.5f}, "
              f"top-1 {100 * ours['top1_agreement']:.2f} %")
        floats, integers = llama(expanded(model, folder), logits_all=True), llama(model, logits_all=True)
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
        print(f"{name:<12} llama.cpp: KL {np.mean(kl):.3e} +- {error(kl):.1e}, ln-perplexity {np.mean(difference):+.5f} +- {error(difference):.5f}, "
              f"top-1 {100 * np.mean(agree):.2f} %", flush=True)


def seconds_and_peak(command):
    """Wall time of a command and its peak memory in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"{command}: status {status}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def start(options):
    for model in options.models:
        size = sum(file.stat().st_size for file in model.iterdir()) if model.is_dir() else model.stat().st_size
        runs = [(seconds_and_peak([FRUGAL, "generate", model, "-p", "Hello", "-n", "1", "-t", str(THREADS)]), seconds_and_peak([EMPTY])) for _ in range(options.rounds)]
        (seconds, peak), (empty_seconds, empty_peak) = ([statistics.median(run[side][what] for run in runs) for what in (0, 1)] for side in (0, 1))
        print(f"{model.name}: first token after {seconds:.2f} s ({empty_seconds:.2f} s of it libtorch's); peak {peak / 1e6:.0f} MB: the file's {size / 1e6:.0f}, "
              f"libtorch's {empty_peak / 1e6:.0f}, {(peak - size - empty_peak) / 1e6:+.0f} (KV included)", flush=True)


def empty_step(options):
    few, many = 4, 104
    with tempfile.TemporaryDirectory() as folder:
        times = {}
        for blocks in (few, many):
            source = random_model(Path(folder) / "random.gguf", hidden=32, inner=32, blocks=blocks, heads=1, kv_heads=1)
            rates = frugal("bench", quantized(source, "Q8_0", folder), "-p", 0, "-n", 64, "-r", 9)[0]["samples_tps"]
            times[blocks] = statistics.median(1e6 / rate for rate in rates)
    print(f"empty step: {(times[many] - times[few]) / (many - few):.1f} us per layer")


def main():
    def add_formats(verb):
        verb.add_argument("--formats", default="")
        verb.add_argument("--scratch", type=Path, help="folder for temporary models (several GB for 1.1B)")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("speed")
    verb.add_argument("model", type=Path)
    verb.add_argument("--tests", default="pp256,tg64")
    add_formats(verb)
    verb.add_argument("--rounds", type=int, default=5)
    verb.set_defaults(run=speed)
    verb = verbs.add_parser("quality")
    verb.add_argument("model", type=Path)
    verb.add_argument("--text", required=True)
    add_formats(verb)
    verb.add_argument("--chunks", type=int, default=8)
    verb.set_defaults(run=quality)
    verbs.add_parser("empty-step").set_defaults(run=empty_step)
    verb = verbs.add_parser("start")
    verb.add_argument("models", type=Path, nargs="+")
    verb.add_argument("--rounds", type=int, default=5)
    verb.set_defaults(run=start)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
