#!/usr/bin/env python3
"""frugal train and tune against PyTorch eager (transformers, peft) of the same version: same model, data, batch, threads, alternating.

    bench/train.py small [--rounds 5]     a new model of 10 M parameters, float32, AdamW: bar 1.15x tokens/s
    bench/train.py lora  [--rounds 5]     SmolLM2-135M, LoRA of rank 16 on all linear layers, sequences of 512: bar 1.0x
                                          (both: at most 0.8x of the peak memory)
    bench/train.py small --precision bf16 against torch.autocast (fp16: with its GradScaler too)

Each prints a table; --json FILE also writes the figures. Rates are medians over the steps of a round but the first two, then over rounds; the share of the sgemm
peak is 6 (LoRA: 4) x parameters x tokens/s over what torch.mm of 1,024 x 1,024 matrices reaches in the same run. Nothing else should run on the machine.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("FRUGAL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "frugal")
RANK = 16


def torch_round(arguments):
    """Run in a process of its own: trains with PyTorch, prints {rate, peak, peak_gflops, loss}."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    spec = json.loads(arguments)
    torch.set_num_threads(spec["threads"])
    a = torch.randn(1024, 1024)
    torch.mm(a, a)
    began = time.perf_counter()
    for _ in range(10):
        torch.mm(a, a)
    gflops = 10 * 2 * 1024**3 / (time.perf_counter() - began) / 1e9
    model = AutoModelForCausalLM.from_pretrained(spec["model"], dtype=torch.float32).train()
    parameters = sum(p.numel() for p in model.parameters())
    if spec["lora"]:
        from peft import LoraConfig, get_peft_model
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=spec["rate"], weight_decay=0.0)
    ids = load_file(spec["data"])["ids"].long()
    autocast = torch.autocast("cpu", {"fp16": torch.float16}.get(spec["precision"], torch.bfloat16), enabled=spec["precision"] != "fp32")
    scaler = torch.amp.GradScaler("cpu", enabled=spec["precision"] == "fp16")
    rates, losses = [], []
    for step in range(spec["steps"]):
        began = time.perf_counter()
        batch = ids[[(step * spec["batch"] + i) % len(ids) for i in range(spec["batch"])]]
        optimizer.zero_grad()
        with autocast:
            loss = model(input_ids=batch, labels=batch, use_cache=False).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
        rates.append(batch.numel() / (time.perf_counter() - began))
    print(json.dumps({"rate": statistics.median(rates[2:]), "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "gflops": gflops, "parameters": parameters,
                      "first": losses[0], "last": losses[-1]}))


def frugal(*arguments):
    done = subprocess.run([str(ROOT / "build/frugal"), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"frugal {' '.join(map(str, arguments))}\n{done.stderr}")
    return done.stdout


def frugal_round(command, output):
    summary = json.loads(frugal(*command, "-o", output, "--overwrite", "--json"))
    rates = [json.loads(line)["throughput"] for line in (Path(output) / "trainer_log.jsonl").read_text().splitlines()]
    return {"rate": statistics.median(rates[2:]), "peak": summary["peak_rss_bytes"], "first": summary["train_loss_first"], "last": summary["train_loss_last"]}


def rows_of(folder, tokenizer, length, count):
    """`count` texts of exactly `length` tokens each (as their own tokenization has it), as JSONL for frugal and ids for torch."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(tokenizer)
    ids = words((CACHE / "text/calibration.txt").read_text())["input_ids"]
    rows, kept = [], []
    for begin in range(0, len(ids) - 2 * length, length):
        text = words.decode(ids[begin:begin + length + 64])
        again = words(text)["input_ids"]
        if len(again) < length:
            continue
        rows.append(json.dumps({"text": text}))
        kept.append(again[:length])
        if len(kept) == count:
            break
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")
    save_file({"ids": torch.tensor(kept, dtype=torch.int32)}, folder / "ids.safetensors")
    return len(kept)


def compare(options, folder, spec, command, report):
    rounds = []
    for _ in range(options.rounds):
        ours = frugal_round(command, folder / "out")
        done = subprocess.run([sys.executable, __file__, "torch-round", json.dumps(spec)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        rounds.append((ours, json.loads(done.stdout)))
        print(f"  round {len(rounds)}: frugal {ours['rate']:.0f} tokens/s, {ours['peak'] / 1e6:.0f} MB, loss {ours['first']:.3f} -> {ours['last']:.3f}; torch {rounds[-1][1]['rate']:.0f}, "
              f"{rounds[-1][1]['peak'] / 1e6:.0f} MB, {rounds[-1][1]['first']:.3f} -> {rounds[-1][1]['last']:.3f}", file=sys.stderr)
    middle = lambda index, key: statistics.median(r[index][key] for r in rounds)
    ratio = statistics.median(a["rate"] / b["rate"] for a, b in rounds)
    operations = 4 if spec["lora"] else 6
    share = operations * rounds[0][1]["parameters"] * middle(0, "rate") / 1e9 / middle(1, "gflops")
    row = {"what": options.verb, "precision": options.precision, "frugal_tokens_per_second": middle(0, "rate"), "torch_tokens_per_second": middle(1, "rate"), "ratio": ratio, "frugal_peak_bytes": middle(0, "peak"),
           "torch_peak_bytes": middle(1, "peak"), "memory_ratio": middle(0, "peak") / middle(1, "peak"), "sgemm_gflops": middle(1, "gflops"), "share_of_sgemm": share, "rounds": options.rounds}
    print(f"{options.verb} {options.precision}: {row['frugal_tokens_per_second']:.0f} against {row['torch_tokens_per_second']:.0f} tokens/s ({ratio:.2f}x), {row['frugal_peak_bytes'] / 1e6:.0f} against "
          f"{row['torch_peak_bytes'] / 1e6:.0f} MB ({row['memory_ratio']:.2f}x); {100 * share:.0f} % of sgemm's {row['sgemm_gflops']:.0f} GFLOP/s")
    report.append(row)


def main():
    if sys.argv[1:2] == ["torch-round"]:
        return torch_round(sys.argv[2])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["small", "lora"])
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common = [*([] if options.precision == "fp32" else [f"--{options.precision}", "true"]), "--max-steps", options.steps, "-t", options.threads, "--lr-scheduler-type", "constant"]
        if options.verb == "small":
            frugal("tokenizer", "train", CACHE / "text/calibration.txt", "-o", folder / "tokenizer", "--vocab-size", 8192)
            shape = ["--tokenizer", folder / "tokenizer", "--width", 320, "--layers", 6, "--heads", 5, "--intermediate-size", 864]
            rows_of(folder, folder / "tokenizer", 256, 64)
            frugal("train", *shape, "--data", folder / "rows.jsonl", "--max-steps", 1, "--sequence-len", 256, "-o", folder / "first", "--learning-rate", "1e-9")
            command = ["train", folder / "first", "--data", folder / "rows.jsonl", "--sequence-len", 256, "--micro-batch-size", 8, "--learning-rate", "1e-3", *common]
            spec = {"model": str(folder / "first"), "data": str(folder / "ids.safetensors"), "batch": 8, "rate": 1e-3}
        else:
            model = CACHE / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
            frugal("convert", model, folder / "base", "--format", "hf", "--expand", "--dtype", "F32")
            rows_of(folder, folder / "base", 512, 32)
            command = ["tune", model, "--data", folder / "rows.jsonl", "--sequence-len", 512, "--micro-batch-size", 1, "--learning-rate", "2e-4", "--over-length", "truncate", "--method",
                       f"lora:r={RANK},alpha={2 * RANK}", *common]
            spec = {"model": str(folder / "base"), "data": str(folder / "ids.safetensors"), "batch": 1, "rate": 2e-4}
        compare(options, folder, {**spec, "steps": options.steps, "threads": options.threads, "lora": options.verb == "lora", "precision": options.precision}, command, report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
