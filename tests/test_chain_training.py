"""Training in the loop: steps of a chain that train, and models that are quantized from their first step."""
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from conftest import FRUGAL

CALIBRATION = ["--calib-sequences", 8, "--calib-length", 64]
TEXT = ["--ctx", 64, "--exact", "--no-speed", "--json"]


def compress(frugal, tiny, out, *steps, more=()):
    run = frugal("compress", tiny / "model", "-o", out, "--calib", tiny / "text.txt", *CALIBRATION, "-t", 1, *more, "--json",
                 *(argument for step in steps for argument in ("--step", step)))
    assert run.code == 0, run.err
    return run


def loss_of(frugal, tiny, path, chunks=8):
    run = frugal("eval", path, "--text", tiny / "text.txt", *TEXT, "--chunks", chunks)
    assert run.code == 0, run.err
    return run.json["ln_perplexity"]


def test_training_with_rounded_weights_and_inputs_beats_rounding(frugal, tiny, tmp_path):
    compress(frugal, tiny, tmp_path / "rounded", "w8a8-dynamic:bits=4,activation_bits=4")
    step = "qat-ste:bits=4,group=0,symmetric=true,activation_bits=4,num_epochs=8,learning_rate=3e-3"
    compress(frugal, tiny, tmp_path / "trained", step, more=["--ledger", tmp_path / "ledger.jsonl"])
    divergence = [frugal("eval", tmp_path / name, "--text", tiny / "text.txt", *TEXT, "--chunks", 8, "--base", tiny / "model").json["kl_mean"] for name in ("trained", "rounded")]
    assert divergence[0] < 0.7 * divergence[1]
    assert (tmp_path / "trained/model.safetensors").stat().st_size == (tmp_path / "rounded/model.safetensors").stat().st_size
    manifest = json.loads((tmp_path / "trained/frugal.json").read_text())
    assert manifest["chain"] == [{"step": step, "leaf": "quantize"}] and manifest["calibration"].startswith("text.txt:")
    rows = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [row["chain"] for row in rows] == [[step]] and rows[0]["step_seconds"] > 0


def test_ternary_weights_taught_by_the_model_beat_rounding_and_are_stored_in_2_bits(frugal, tiny, tmp_path):
    compress(frugal, tiny, tmp_path / "rounded", "tsld:max_steps=1,learning_rate=0")
    compress(frugal, tiny, tmp_path / "trained", "tsld:num_epochs=8,learning_rate=3e-3")
    divergence = [frugal("eval", tmp_path / name, "--text", tiny / "text.txt", *TEXT, "--chunks", 8, "--base", tiny / "model").json["kl_mean"] for name in ("trained", "rounded")]
    assert divergence[0] < 0.7 * divergence[1]
    from safetensors.torch import load_file

    packed = [tensor for name, tensor in load_file(tmp_path / "trained/model.safetensors").items() if name.startswith("model.layers.0.mlp.up_proj")]
    floats = load_file(tiny / "model/model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert sum(tensor.nbytes for tensor in packed) < floats.numel() / 4 + 8 * floats.shape[0] + 64
    assert frugal("generate", tmp_path / "trained", "-p", "Sentence", "-n", 5).code == 0


def test_recovery_after_pruning_keeps_the_mask_and_wins_back_what_was_lost(frugal, tiny, tmp_path):
    compress(frugal, tiny, tmp_path / "pruned", "magnitude:sparsity=0.6")
    compress(frugal, tiny, tmp_path / "recovered", "magnitude:sparsity=0.6", "recover:num_epochs=6,learning_rate=3e-3")
    assert loss_of(frugal, tiny, tmp_path / "recovered") < loss_of(frugal, tiny, tmp_path / "pruned") - 0.3
    sizes = [sum(path.stat().st_size for path in (tmp_path / name).glob("*.safetensors")) for name in ("recovered", "pruned")]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)
    # And what was recovered is quantized as anything else, the mask still there.
    compress(frugal, tiny, tmp_path / "both", "shortgpt:blocks=1", "recover:rank=4,distillation=0.5,num_epochs=2", "rtn:bits=4,group=8")


def test_orders_that_would_lose_something_are_refused(frugal, tiny, tmp_path):
    run = frugal("compress", tiny / "model", "-o", tmp_path / "out", "--step", "rtn", "--step", "recover")
    assert run.code != 0 and "recover cannot follow rtn" in run.err and not (tmp_path / "out").exists()


def test_a_stopped_chain_leaves_nothing(tiny, tmp_path):
    process = subprocess.Popen([FRUGAL, "compress", tiny / "model", "-o", tmp_path / "out", "--calib", tiny / "text.txt", *map(str, CALIBRATION), "-t", "1", "--step",
                                "recover:num_epochs=100000"], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    status = Path(f"/proc/{process.pid}/status")
    while not int(re.search(r"SigCgt:\s*(\w+)", status.read_text())[1], 16) & 1 << signal.SIGINT - 1:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_ternary_model_is_trained_resumed_and_served_as_it_was_trained(frugal, tiny, tmp_path):
    arguments = ["train", "--tokenizer", tiny / "model", "--data", tiny / "text.txt", "--layers", 2, "--width", 64, "--heads", 4, "--sequence-len", 64, "--micro-batch-size", 4,
                 "--max-steps", 30, "--learning-rate", "3e-3", "--eval-data", tiny / "text.txt", "--method", "bitnet-b158", "--save-steps", 10, "-t", 1, "--json"]
    run = frugal(*arguments, "-o", tmp_path / "model")
    assert run.code == 0, run.err
    assert run.json["train_loss_last"] < 0.7 * run.json["train_loss_first"]
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["architectures"] == ["BitNetForCausalLM"] and config["quantization_config"]["config_groups"]
    # What is held out is the training text, in the same pieces: all of it, where eval reads as many.
    chunks = len(frugal("tokenize", "-m", tmp_path / "model", "--file", tiny / "text.txt", "--json").json["ids"]) // 64
    assert loss_of(frugal, tiny, tmp_path / "model", chunks) == pytest.approx(run.json["eval_loss"], rel=2e-2)
    assert frugal("generate", tmp_path / "model", "-p", "Sentence", "-n", 5).code == 0
    for step in (20, 30):  # the run goes on from its first checkpoint, to the same bits
        for path in sorted((tmp_path / f"model/checkpoint-{step}").rglob("*"), reverse=True):
            path.unlink()
        (tmp_path / f"model/checkpoint-{step}").rmdir()
    before = (tmp_path / "model/model.safetensors").read_bytes()
    (tmp_path / "model/model.safetensors").unlink()
    again = frugal(*arguments, "-o", tmp_path / "model", "--resume", "--save-total-limit", 3)
    assert again.code == 0, again.err
    assert (tmp_path / "model/model.safetensors").read_bytes() == before
