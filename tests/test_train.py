"""frugal train and tune as their users run them: results that peft, transformers and TensorBoard read, and runs that are killed, stopped, starved and resumed."""
import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest
import torch
from conftest import FRUGAL
from safetensors.torch import load_file

SUBJECTS = ["river", "lamp", "stone", "horse", "cloud", "bread", "window", "garden", "violin", "mountain"]
# How often a run is killed at a random time: T2 wants 1,000 in scripts/torture.
KILLS = int(os.environ.get("FRUGAL_TRAINING_KILLS", "20"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "chat.jsonl"
    lines = [{"messages": [{"role": "user", "content": f"What is a {subject}?"}, {"role": "assistant", "content": f"A {subject} adds up to {i * 7}."}]} for i, subject in enumerate(SUBJECTS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def losses(output):
    return [(row["current_steps"], row["loss"]) for row in map(json.loads, (output / "trainer_log.jsonl").read_text().splitlines())]


def result_files(output):
    """What must be equal to the bit, by name."""
    newest = max(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    files = {path.name: path.read_bytes() for path in newest.iterdir() if path.suffix == ".safetensors"}
    files["result"] = (output / "adapter_model.safetensors").read_bytes()
    return newest.name, files


TUNE = ["--method", "lora:r=4,alpha=8,dropout=0.1", "--num-epochs", 6, "--micro-batch-size", 2, "--gradient-accumulation-steps", 2, "--learning-rate", "3e-3", "--save-steps", 3]


def tune(frugal, tiny, rows, output, *more, threads=1):
    return frugal("tune", tiny / "model", "--data", rows, "-o", output, *TUNE, "-t", threads, *more)


def process_of(tiny, rows, output):
    command = [FRUGAL, "tune", tiny / "model", "--data", rows, "-o", output, *TUNE, "-t", 1, "--resume"]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def tuned(frugal, tiny, rows, tmp_path_factory):
    output = tmp_path_factory.mktemp("tuned") / "adapter"
    run = tune(frugal, tiny, rows, output, "--json")
    assert run.code == 0, run.err
    return output, run.json


def test_tune_says_what_it_did_and_learns(tuned):
    output, summary = tuned
    assert summary["train_loss_last"] < 0.8 * summary["train_loss_first"]
    assert summary["steps"] == summary["total_steps"] == 18  # 5 micro-batches an epoch, two a step
    assert summary["tokens"] > 0 and summary["seconds"] > 0 and summary["peak_rss_bytes"] > 0 and summary["skipped_steps"] == 0
    rows = [json.loads(line) for line in (output / "trainer_log.jsonl").read_text().splitlines()]
    assert [row["current_steps"] for row in rows] == list(range(1, 19))
    assert rows[-1]["percentage"] == 100 and rows[0]["lr"] == pytest.approx(3e-3)
    state = json.loads((output / "checkpoint-18/trainer_state.json").read_text())
    assert [(row["step"], row["loss"]) for row in state["log_history"]] == losses(output) and state["global_step"] == 18
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-15", "checkpoint-18"]


def test_peft_loads_the_adapter_and_finds_the_loss_that_was_reported(frugal, tiny, rows, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = tmp_path / "adapter"
    run = tune(frugal, tiny, rows, output, "--eval-data", rows, "--json")
    assert run.code == 0, run.err
    base = AutoModelForCausalLM.from_pretrained(tiny / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, output).eval()
    assert run.json["trainable_parameters"] == sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    tokenizer = AutoTokenizer.from_pretrained(tiny / "model")
    total, count = 0.0, 0
    for line in rows.read_text().splitlines():
        messages = json.loads(line)["messages"]
        whole = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        prompt = tokenizer.apply_chat_template(messages[:1], tokenize=True, add_generation_prompt=True, return_dict=False)
        assert whole[:len(prompt)] == prompt
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([whole])).logits[0]
        total += torch.nn.functional.cross_entropy(logits[len(prompt) - 1:-1], torch.tensor(whole[len(prompt):]), reduction="sum").item()
        count += len(whole) - len(prompt)
    assert run.json["eval_loss"] == pytest.approx(total / count, rel=1e-4)


def test_the_whole_model_is_tuned_and_transformers_loads_it(frugal, tiny, rows, tmp_path):
    from transformers import AutoModelForCausalLM

    output = tmp_path / "model"
    run = frugal("tune", tiny / "model", "--data", rows, "--method", "full", "-o", output, "--num-epochs", 4, "--learning-rate", "1e-3", "--gradient-checkpointing", "true", "--json")
    assert run.code == 0, run.err
    assert run.json["train_loss_last"] < run.json["train_loss_first"]
    before = dict(AutoModelForCausalLM.from_pretrained(tiny / "model").named_parameters())
    after = dict(AutoModelForCausalLM.from_pretrained(output).named_parameters())
    assert before.keys() == after.keys() and all(not torch.equal(before[name], after[name]) for name in before)
    assert frugal("generate", output, "-p", "What is a lamp?", "-n", 8).code == 0


def test_show_marks_what_is_learned(frugal, tiny, rows):
    run = frugal("tune", tiny / "model", "--data", rows, "--show", 2)
    assert run.code == 0, run.err
    assert "<|user|>What is a river?<|end|><|assistant|>[[A river adds up to 0.<|end|>]]" in run.out
    assert run.out.count("-- example") == 2


def test_a_config_file_with_axolotl_keys_and_flags_before_it(frugal, tiny, rows, tmp_path):
    config = tmp_path / "tune.yaml"
    config.write_text(f"""
base_model: {tiny}/model
adapter: lora
lora_r: 2
lora_alpha: 4
lora_target_modules: [q_proj, v_proj]
datasets:
- {{path: {rows}, type: chat_template}}
sequence_len: 128
sample_packing: true
micro_batch_size: 1
num_epochs: 1
learning_rate: 1e-3
lr_scheduler: cosine
warmup_ratio: 0.1
optimizer: adamw_torch
weight_decay: 0.01
max_steps: 2
output_dir: {tmp_path}/out
""")
    run = frugal("tune", "--config", config, "--max-steps", 3, "--json")
    assert run.code == 0, run.err
    assert run.json["steps"] == 3
    adapter = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], sorted(adapter["target_modules"])) == (2, 4, ["q_proj", "v_proj"])
    for text, message in (("lora_rank: 2", 'unknown key "lora_rank"'), ("micro_batch_size: many", "micro_batch_size"), ("learning_rat: 1", 'did you mean "learning_rate"'),
                          ("num_epochs: -1", "num_epochs"), ("datasets: 3", "must be a list"), ("optimizer: adam", 'no method "adam"'), ("adapter: lorra", 'no method "lorra"')):
        broken = tmp_path / "broken.yaml"
        key = text.split(":")[0]
        broken.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith((key + ":", "- {") if key == "datasets" else key + ":")) + f"\n{text}\n")
        run = frugal("tune", "--config", broken, "-o", tmp_path / "no")
        assert run.code == 2 and message in run.err, (text, run.err)
    assert not (tmp_path / "no").exists() or not list((tmp_path / "no").glob("checkpoint-*"))


def test_killed_at_random_times_and_resumed_it_is_as_if_it_had_not_been(frugal, tiny, rows, tuned, tmp_path):
    seed = int(os.environ.get("FRUGAL_TEST_SEED") or random.randrange(1 << 32))
    print(f"FRUGAL_TEST_SEED={seed}")
    draw = random.Random(seed)
    began = time.monotonic()
    assert tune(frugal, tiny, rows, tmp_path / "timed").code == 0
    whole = time.monotonic() - began
    kills = 0
    while kills < KILLS:
        process = process_of(tiny, rows, tmp_path / "out")
        try:
            process.wait(draw.uniform(0.3, 1.1) * whole)
        except subprocess.TimeoutExpired:
            process.kill()
        error = process.stderr.read()
        assert process.wait() in (0, -signal.SIGKILL), error
        kills += 1
        if process.returncode == 0:
            assert result_files(tmp_path / "out") == result_files(tuned[0])
            assert losses(tmp_path / "out") == losses(tuned[0])
            subprocess.run(["rm", "-r", tmp_path / "out"], check=True)
    last = tune(frugal, tiny, rows, tmp_path / "out", "--resume")
    assert last.code == 0, last.err
    assert result_files(tmp_path / "out") == result_files(tuned[0])
    assert losses(tmp_path / "out") == losses(tuned[0])


@pytest.mark.parametrize("stop,code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_leaves(frugal, tiny, rows, tuned, tmp_path, stop, code):
    process = process_of(tiny, rows, tmp_path / "out")
    while not (tmp_path / "out/trainer_log.jsonl").exists() or len(losses(tmp_path / "out")) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(stop)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code, error
    assert "--resume goes on" in error
    assert not (tmp_path / "out/adapter_model.safetensors").exists()
    run = tune(frugal, tiny, rows, tmp_path / "out", "--resume")
    assert run.code == 0, run.err
    assert result_files(tmp_path / "out") == result_files(tuned[0])
    assert losses(tmp_path / "out") == losses(tuned[0])


def test_what_was_there_is_kept_unless_it_is_said_otherwise(frugal, tiny, rows, tuned, tmp_path):
    output = tmp_path / "out"
    subprocess.run(["cp", "-r", tuned[0], output], check=True)
    run = tune(frugal, tiny, rows, output)
    assert run.code == 2 and "--resume goes on" in run.err
    changed = tmp_path / "changed.jsonl"
    changed.write_text(rows.read_text().replace("river", "rivet"))
    run = tune(frugal, tiny, changed, output, "--resume")
    assert run.code == 2 and "objective/data was" in run.err and "--allow-changes" in run.err
    run = tune(frugal, tiny, rows, output, "--resume", threads=2)
    assert run.code == 2 and "threads was 1, is 2 now" in run.err
    assert result_files(output) == result_files(tuned[0])
    run = tune(frugal, tiny, rows, output, "--overwrite", "--max-steps", 2)
    assert run.code == 0 and sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-2"], run.err


def test_a_full_disk_ends_the_run_at_its_end_and_leaves_the_last_good_checkpoint(frugal, tiny, rows, tuned, tmp_path):
    output = tmp_path / "out"
    assert tune(frugal, tiny, rows, output, "--max-steps", 18, "--save-total-limit", 0).code == 0
    for path in output.glob("checkpoint-*"):
        if int(path.name.split("-")[1]) > 6:
            subprocess.run(["rm", "-r", path], check=True)
    (output / "adapter_model.safetensors").unlink()
    prefix = ("bash", "-c", 'ulimit -f 40; exec "$@"', "--")  # KiB of a file: less than the parameters have
    run = frugal("tune", tiny / "model", "--data", rows, "-o", output, *TUNE, "-t", 1, "--max-steps", 18, "--save-total-limit", 0, "--resume", prefix=prefix)
    assert run.code == 1 and "no checkpoint at step 9" in run.err and "cannot write" in run.err, run.err
    assert sorted(path.name for path in output.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    run = tune(frugal, tiny, rows, output, "--max-steps", 18, "--save-total-limit", 0, "--resume")
    assert run.code == 0, run.err
    assert result_files(output) == result_files(tuned[0])


def test_tensorboard_reads_the_curves(tuned):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tuned[0] / "runs"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(step, pytest.approx(loss)) for step, loss in losses(tuned[0])]
    assert {"train/grad_norm", "train/learning_rate"} <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("initialization", ["deepnorm", "rezero", "skipinit", "fixup", "mup:base_width=32"])
def test_a_new_model_of_another_initialization_is_trained_resumed_and_served(frugal, tiny, tmp_path, initialization):
    output = tmp_path / "model"
    arguments = ["train", "--tokenizer", tiny / "model", "--data", tiny / "text.txt", "--layers", 3, "--width", 64, "--heads", 4, "--sequence-len", 64, "--micro-batch-size", 4,
                 "--max-steps", 20, "--learning-rate", "3e-3", "--save-steps", 10, "--initialization", initialization, "-t", 1, "--json", "-o", output]
    run = frugal(*arguments)
    assert run.code == 0, run.err
    assert run.json["train_loss_last"] < 0.8 * run.json["train_loss_first"]
    plain = initialization.startswith("mup")
    assert json.loads((output / "config.json").read_text())["model_type"] == ("llama" if plain else "frugal")
    before = (output / "model.safetensors").read_bytes()
    subprocess.run(["rm", "-r", output / "checkpoint-20", output / "model.safetensors"], check=True)
    again = frugal(*arguments, "--resume")
    assert again.code == 0 and (output / "model.safetensors").read_bytes() == before, again.err
    assert frugal("generate", output, "-p", "Sentence", "-n", 5).code == 0
    gguf = frugal("compress", output, "--step", "rtn:bits=8,group=32,symmetric=true", "-o", tmp_path / "model.gguf")
    assert (gguf.code == 0) == plain and (plain or "GGUF has no words" in gguf.err), gguf.err
    rounded = frugal("compress", output, "--step", "rtn:bits=8,group=32", "-o", tmp_path / "rounded")
    assert rounded.code == 0, rounded.err
    before, after = (frugal("eval", path, "--text", tiny / "text.txt", "--ctx", 64, "--exact", "--no-speed", "--json").json["ln_perplexity"] for path in (output, tmp_path / "rounded"))
    assert after == pytest.approx(before, abs=0.05)
    further = frugal("train", output, "--data", tiny / "text.txt", "--sequence-len", 64, "--max-steps", 2, "-o", tmp_path / "further", "-t", 1)
    assert further.code == 0, further.err


def test_initializations_are_refused_where_they_mean_nothing(frugal, tiny, tmp_path):
    new = ["train", "--tokenizer", tiny / "model", "--data", tiny / "text.txt", "--layers", 2, "--width", 32, "--heads", 2, "--max-steps", 1, "--sequence-len", 16, "-o", tmp_path / "out"]
    for more, message in ((["--initialization", "rezro"], 'did you mean "rezero"'), (["--initialization", "deepnorm", "--sub-norms", "true"], "sub_norms"),
                          (["--initialization", "rezero", "--method", "bitnet-b158"], "sub_norms"), (["--initialization", "mup", "--optimizer", "sgd"], "not for sgd")):
        run = frugal(*new, *more, "--overwrite")
        assert run.code != 0 and message in run.err, run.err
    run = frugal("train", tiny / "model", "--data", tiny / "text.txt", "--initialization", "rezero", "-o", tmp_path / "out")
    assert run.code == 2 and "a model that is there has its shape" in run.err, run.err


def test_a_new_model_is_trained_from_a_text_and_its_own_tokenizer(frugal, tiny, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = tiny / "text.txt"
    run = frugal("tokenizer", "train", text, "-o", tmp_path / "tokenizer", "--vocab-size", 400, "--special", "<|end|>", "--eos-token", "<|end|>")
    assert run.code == 0, run.err
    output = tmp_path / "model"
    arguments = ["train", "--tokenizer", tmp_path / "tokenizer", "--data", text, "--layers", 2, "--width", 48, "--heads", 4, "--kv-heads", 2, "--context", 128, "--sequence-len", 64,
                 "--micro-batch-size", 8, "--max-steps", 25, "--learning-rate", "5e-3", "--lr-scheduler-type", "warmup_stable_decay", "--warmup-steps", 3, "--eval-data", text, "-o", output]
    run = frugal(*arguments, "--json")
    assert run.code == 0, run.err
    assert run.json["train_loss_last"] < 0.6 * run.json["train_loss_first"]
    model = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    assert sum(p.numel() for p in model.parameters()) == run.json["trainable_parameters"]
    ids = AutoTokenizer.from_pretrained(output)(text.read_text())["input_ids"]
    pieces = [ids[i:i + 64] for i in range(0, len(ids), 64)]
    total, count = 0.0, 0
    for piece in pieces:
        piece = torch.tensor([piece])
        if piece.shape[1] > 1:
            with torch.no_grad():
                total += model(input_ids=piece, labels=piece).loss.item() * (piece.shape[1] - 1)
            count += piece.shape[1] - 1
    assert run.json["eval_loss"] == pytest.approx(total / count, rel=2e-3)  # the end of text at the end is ours alone
    assert frugal("generate", output, "-p", "Sentence", "-n", 5).code == 0
    # The same seed draws the same model and the same run.
    assert frugal(*arguments[:-1], tmp_path / "again").code == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()


def test_preferences_are_learned_against_the_model_as_it_was(frugal, tiny, tmp_path):
    rows = tmp_path / "pairs.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"What is a {subject}?", "chosen": f"A {subject} is small.", "rejected": f"A {subject} is large."}) + "\n" for subject in SUBJECTS))
    run = frugal("tune", tiny / "model", "--data", rows, "--rl", "dpo", "-o", tmp_path / "out", "--num-epochs", 6, "--micro-batch-size", 5, "--learning-rate", "5e-3", "--json")
    assert run.code == 0, run.err
    assert run.json["train_loss_first"] == pytest.approx(0.6931472, abs=1e-5)  # ln 2: the model is its own reference
    assert run.json["train_loss_last"] < 0.5
    log = [json.loads(line) for line in (tmp_path / "out/trainer_log.jsonl").read_text().splitlines()]
    assert log[-1]["rewards/accuracies"] == 1 and log[-1]["rewards/margins"] > log[1]["rewards/margins"]
    run = frugal("tune", tiny / "model", "--data", rows, "-o", tmp_path / "no")
    assert run.code == 2 and "--rl dpo" in run.err


@pytest.mark.parametrize("arguments,message", [
    (["--heads", 5], "no multiple of num_attention_heads"), (["--kv-heads", 3], "no multiple of num_key_value_heads"), (["--hidden-sise", 64], "hidden-sise"),
    (["--sequence-len", 1], "sequence_len"), (["--optimizer", "adamw:beta3=1"], "beta3"), (["--lr-scheduler-type", "cosin"], "cosin"), (["--method", "lora"], 'no method "lora"')])
def test_what_cannot_be_trained_is_refused_before_anything_is_written(frugal, tiny, tmp_path, arguments, message):
    run = frugal("train", "--tokenizer", tiny / "model", "--data", tiny / "text.txt", "--width", 64, "--heads", 4, "-o", tmp_path / "out", "--max-steps", 1, *arguments)
    assert run.code == 2 and message in run.err, run.err
    assert not list(tmp_path.glob("out/checkpoint-*")) and not (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize("arguments,message", [
    (["--bf16", "true", "--fp16", "true"], "one type"), (["--bnb-4bit-use-double-quant", "false"], "load_in_4bit"), (["--optimizer", "mezo", "--max-grad-norm", 1], "max_grad_norm"), (["--rl", "dpo", "--optimizer", "mezo"], "mezo"),
    (["--recompute-every", 2], "gradient_checkpointing"), (["--rl-beta", 0.2], "rl: dpo"), (["--eval-steps", 2], "held-out"), (["--method", "full", "--load-in-4bit", "true"], "load_in_4bit"),
    (["--resume", "--overwrite"], "give one"), (["--rl", "dpo", "--optimizer", "sophia"], "sophia"), (["--rl", "dpo", "--val-set-size", 2], "held-out pairs"), (["--weight-decay", 0.1, "--optimizer", "adamw:weight_decay=0.2"], "twice"), (["--optimizer", "adamw:beta3=1"], "beta3"),
    (["--lr-scheduler-type", "constant", "--warmup-steps", 3], "constant_with_warmup"), (["--method", "lora:rank=3"], "rank"), (["--max-grad-norm", -1], "max_grad_norm")])
def test_options_that_mean_nothing_are_refused_and_what_is_there_stays(frugal, tiny, rows, tuned, tmp_path, arguments, message):
    output = tmp_path / "out"
    subprocess.run(["cp", "-r", tuned[0], output], check=True)
    more = [] if "--resume" in arguments else ["--overwrite"]
    run = frugal("tune", tiny / "model", "--data", rows, "-o", output, *more, *arguments)
    assert run.code in (1, 2) and message in run.err, run.err
    assert result_files(output) == result_files(tuned[0])


def test_a_folder_of_something_else_is_left_alone(frugal, tiny, rows, tmp_path):
    model = tmp_path / "model"
    subprocess.run(["cp", "-r", tiny / "model", model], check=True)
    before = (model / "model.safetensors").read_bytes()
    for more in ([], ["--overwrite"], ["--resume"]):
        run = frugal("tune", model, "--data", rows, "--method", "full", "-o", model, "--max-steps", 1, *more)
        assert run.code == 2 and "no run of frugal's" in run.err, run.err
    assert (model / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("key", ["bf16", "fp16"])
def test_sixteen_bit_activations_learn_as_float32_does_and_resume_to_the_bit(frugal, tiny, rows, tmp_path, key):
    (tmp_path / "tune.yaml").write_text(f"{key}: {'auto' if key == 'bf16' else 'true'}\n")
    more = ["--config", tmp_path / "tune.yaml"]
    for name, flags in {"float": [], "half": more}.items():
        assert tune(frugal, tiny, rows, tmp_path / name, *flags).code == 0
    exact, half = losses(tmp_path / "float"), losses(tmp_path / "half")
    assert len(half) == len(exact) and half != exact
    assert all(abs(a - b) < 0.01 * a for (_, a), (_, b) in zip(exact, half)), (exact, half)
    subprocess.run(["cp", "-r", tmp_path / "half", tmp_path / "again"], check=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (tmp_path / "again" / name).unlink()
    newest = max((tmp_path / "again").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    subprocess.run(["rm", "-r", newest], check=True)
    run = tune(frugal, tiny, rows, tmp_path / "again", *more, "--resume")
    assert run.code == 0, run.err
    assert result_files(tmp_path / "again") == result_files(tmp_path / "half")
    state = json.loads((max((tmp_path / "half").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1])) / "trainer_state.json").read_text())
    assert (state["grad_scaler"] is not None) == (key == "fp16")
    run = tune(frugal, tiny, rows, tmp_path / "again", "--resume")
    assert run.code == 2 and "activations" in run.err, run.err


def test_load_in_4bit_makes_nf4_of_floats_only(frugal, tiny, rows, tmp_path):
    qlora = tmp_path / "tune.yaml"
    qlora.write_text("adapter: qlora\nload_in_4bit: true\nbnb_4bit_quant_type: nf4\nlora_r: 4\nlora_alpha: 8\n")
    flags = ["--data", rows, "--max-steps", 3, "--learning-rate", "1e-3", "-t", 1]
    run = frugal("tune", tiny / "model", "--config", qlora, "-o", tmp_path / "qlora", *flags)
    assert run.code == 0 and "are in NF4 now, 0 stay" in run.err, run.err
    run = frugal("tune", tiny / "model", "--method", "lora:r=4,alpha=8", "--load-in-4bit", "true", "-o", tmp_path / "lora", *flags)
    assert run.code == 0, run.err
    assert (tmp_path / "lora/adapter_model.safetensors").read_bytes() == (tmp_path / "qlora/adapter_model.safetensors").read_bytes()
    plain = frugal("tune", tiny / "model", "--method", "lora:r=4,alpha=8", "-o", tmp_path / "plain", *flags, "--json")
    assert 0 < abs(losses(tmp_path / "plain")[0][1] - losses(tmp_path / "qlora")[0][1]) < 0.1 * plain.json["train_loss_first"]
    assert frugal("compress", tiny / "model", "-o", tmp_path / "int8", "--step", "rtn:bits=8").code == 0
    run = frugal("tune", tmp_path / "int8", "--method", "qlora", "-o", tmp_path / "kept", *flags)
    assert run.code == 0 and " 0 matrices are in NF4 now" in run.err, run.err


def test_dora_and_booleans_as_yaml_has_them(frugal, tiny, rows, tmp_path):
    config = tmp_path / "tune.yaml"
    config.write_text(f"peft_use_dora: yes\nadapter: lora\nlora_r: 2\nsample_packing: True\ngradient_checkpointing: on\nmax_steps: 1\ndatasets: [{{path: {rows}, roles_to_train: [assistant]}}]\n")
    run = frugal("tune", tiny / "model", "--config", config, "-o", tmp_path / "out")
    assert run.code == 0, run.err
    adapter = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert adapter["use_dora"] is True and adapter["base_model_name_or_path"] == str(tiny / "model")


def test_every_optimizer_learns(frugal, tiny, rows, tmp_path):
    rates = {"adamw": "1e-2", "adafactor": "1e-2", "adam8bit": "1e-2", "lion": "3e-3", "sophia:hessian_interval=3": "1e-2", "muon": "1e-2", "schedule-free": "1e-2", "sgd": "1", "galore:rank=4": "1e-1",
             "mezo": "1e-1", "lomo": "1", "lomo:second_moment=true": "1e-1", "fp8-lm": "1e-2"}
    for optimizer, rate in rates.items():
        run = frugal("tune", tiny / "model", "--data", rows, "-o", tmp_path / optimizer.replace(":", "-"), "--max-steps", 12, "--micro-batch-size", 10, "--optimizer", optimizer,
                     "--learning-rate", rate, "--lr-scheduler-type", "constant_with_warmup", "--json")
        assert run.code == 0, (optimizer, run.err)
        assert run.json["train_loss_last"] < run.json["train_loss_first"] - 0.2, (optimizer, run.json)


def test_lomo_is_sgd_that_holds_no_gradients_and_says_what_it_cannot_do(frugal, tiny, rows, tmp_path):
    def tuned(optimizer, *more):
        return frugal("tune", tiny / "model", "--data", rows, "-o", tmp_path / optimizer, "--method", "full", "--max-steps", 6, "--micro-batch-size", 5, "--optimizer", optimizer,
                      "--learning-rate", "0.3", "-t", 1, *more)

    for optimizer in ("sgd", "lomo"):
        assert tuned(optimizer, "--max-grad-norm", 0).code == 0
    assert (tmp_path / "sgd/model.safetensors").read_bytes() == (tmp_path / "lomo/model.safetensors").read_bytes()
    assert losses(tmp_path / "sgd") == losses(tmp_path / "lomo")
    for more, word in ((("--gradient-accumulation-steps", 2), "gradient_accumulation_steps"), (("--fp16", "true", "--max-grad-norm", 0), "fp16"),
                       (("--spike-policy", "skip", "--max-grad-norm", 0), "spike_policy")):
        run = tuned("lomo", "--overwrite", *more)
        assert run.code == 1 and word in run.err and "while backward goes on" in run.err, run.err
    run = frugal("tune", tiny / "model", "--data", rows, "-o", tmp_path / "no", "--method", "adalora", "--optimizer", "lomo", "--max-steps", 6)
    assert run.code == 1 and "adapter" in run.err, run.err


def test_lisa_trains_a_whole_model_some_blocks_at_a_time_and_goes_on_to_the_bit(frugal, tiny, rows, tmp_path):
    def tuned(output, *more, method="lisa:activated_layers=1,interval_steps=3"):
        return frugal("tune", tiny / "model", "--data", rows, "-o", tmp_path / output, "--method", method, "--micro-batch-size", 5, "--learning-rate", "3e-3", "--max-steps", 12,
                      "--save-steps", 1, "--save-total-limit", 0, "-t", 1, *more)

    run = tuned("whole", "--json")
    assert run.code == 0 and run.json["train_loss_last"] < run.json["train_loss_first"] - 0.2, run.err
    full = tuned("full", "--json", method="full")
    assert run.json["optimizer_bytes"] < full.json["optimizer_bytes"] and run.json["trainable_parameters"] == full.json["trainable_parameters"]
    for step in (2, 3, 4):  # about a draw
        shutil.copytree(tmp_path / "whole", tmp_path / f"part{step}")
        for path in (tmp_path / f"part{step}").glob("checkpoint-*"):
            if int(path.name.split("-")[1]) > step:
                shutil.rmtree(path)
        resumed = tuned(f"part{step}", "--resume")
        assert resumed.code == 0, resumed.err
        for name in ("model.safetensors", "checkpoint-12/parameters.safetensors", "checkpoint-12/optimizer.safetensors"):
            assert (tmp_path / f"part{step}" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (step, name)
        assert losses(tmp_path / f"part{step}") == losses(tmp_path / "whole")
    assert frugal("generate", tmp_path / "whole", "-p", "What is a lamp?", "-n", 8).code == 0
    # A checkpoint holds the weights of all blocks, and the state of those that train next.
    first, last = (load_file(tmp_path / "whole" / f"checkpoint-{step}/parameters.safetensors") for step in (1, 2))
    moved = {name.split(".")[2] for name in first if ".layers." in name and not torch.equal(first[name], last[name])}
    assert len(moved) == 1, moved
    for method, more, code, word in (("lisa:activated_layers=99", (), 2, "99 of the model's"), ("lisa:activated_layers=1", ("--optimizer", "mezo"), 1, "mezo"),
                                     ("lisa:activated_layers=1", ("--optimizer", "schedule-free"), 1, "schedule-free"),
                                     ("lisa:activated_layers=1", ("--load-in-4bit", "true"), 2, "load_in_4bit")):
        run = tuned("refused", "--overwrite", *more, method=method)
        assert run.code == code and word in run.err, run.err


@pytest.mark.parametrize("method", ["lora", "lora:rslora=true", "qlora", "lora-plus", "lora-fa", "dora", "ia3", "vera", "bottleneck-adapter", "adalora:init_r=6,target_r=3",
                                    "prompt-tuning", "prompt-tuning:init=text,init_text=What is a,num_virtual_tokens=5", "prefix-tuning", "prefix-tuning:prefix_projection=false"])
def test_every_adapter_learns_and_can_be_used(frugal, tiny, rows, tmp_path, method):
    run = frugal("tune", tiny / "model", "--data", rows, "--eval-data", rows, "-o", tmp_path / "out", "--method", method, "--max-steps", 10, "--micro-batch-size", 10, "--learning-rate", "2e-2",
                 "--json")
    assert run.code == 0, run.err
    assert run.json["train_loss_last"] < run.json["train_loss_first"] - 0.1, run.json
    run = frugal("generate", tiny / "model", "--lora", tmp_path / "out", "-p", "What is a lamp?", "-n", 8, "--temp", 0, "--json")
    assert run.code == 0, run.err


def test_loftq_writes_the_base_that_its_adapter_is_for_and_begins_nearer_than_lora(frugal, tiny, rows, tmp_path):
    rounded = tmp_path / "rounded"
    assert frugal("compress", tiny / "model", "-o", rounded, "--step", "rtn:bits=2,group=24").code == 0
    distances = []
    for method, model in (("lora", rounded), ("loftq:bits=2,group=24,r=8", tiny / "model")):
        out = tmp_path / method.split(":")[0]
        run = frugal("tune", model, "--data", rows, "-o", out, "--method", method, "--max-steps", 1, "--micro-batch-size", 10, "--learning-rate", "1e-7", "--json")
        assert run.code == 0, run.err
        base = json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]
        done = frugal("eval", base, "--lora", out, "--base", tiny / "model", "--text", tiny / "text.txt", "--ctx", 64, "--chunks", 4, "--no-speed", "--json")
        assert done.code == 0, done.err
        distances.append(done.json["kl_mean"])
    assert distances[1] < 0.9 * distances[0], distances


def test_qa_lora_is_merged_into_a_model_that_is_as_quantized(frugal, tiny, rows, tmp_path):
    assert frugal("compress", tiny / "model", "-o", tmp_path / "four", "--step", "rtn:bits=4,group=8").code == 0
    run = frugal("tune", tmp_path / "four", "--data", rows, "--eval-data", rows, "-o", tmp_path / "out", "--method", "qa-lora", "--max-steps", 10, "--micro-batch-size", 10,
                 "--learning-rate", "1e-2", "--json")
    assert run.code == 0 and run.json["train_loss_last"] < run.json["train_loss_first"] - 0.1, run.err
    merge = frugal("merge", tmp_path / "four", "--lora", tmp_path / "out", "-o", tmp_path / "merged")
    assert merge.code == 0, merge.err
    text = ("--text", tiny / "text.txt", "--ctx", 64, "--chunks", 4, "--no-speed", "--exact", "--json")
    merged, beside = frugal("eval", tmp_path / "merged", *text).json, frugal("eval", tmp_path / "four", "--lora", tmp_path / "out", *text).json
    assert merged["ln_perplexity"] == pytest.approx(beside["ln_perplexity"], abs=1e-4)
    assert abs(merged["ln_perplexity"] - frugal("eval", tmp_path / "four", *text).json["ln_perplexity"]) > 1e-2


@pytest.mark.parametrize("method", ["adalora:init_r=5,target_r=2,dropout=0.1,tinit=1,tfinal=2", "prefix-tuning:num_virtual_tokens=3"])
def test_a_stopped_run_of_what_has_a_state_of_its_own_goes_on_to_the_bit(frugal, tiny, rows, tmp_path, method):
    def tuned(output, *more):
        run = frugal("tune", tiny / "model", "--data", rows, "-o", tmp_path / output, "--method", method, "--micro-batch-size", 5, "--learning-rate", "1e-2", "--max-steps", 10,
                     "--save-steps", 1, "--save-total-limit", 0, "-t", 1, "--gradient-checkpointing", "true", *more)
        assert run.code == 0, run.err
        return result_files(tmp_path / output)

    whole = tuned("whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for path in [tmp_path / "again/adapter_model.safetensors", tmp_path / "again/adapter_config.json", *(tmp_path / "again").glob("checkpoint-*")]:
        if path.is_file():
            path.unlink()
        elif int(path.name.split("-")[1]) > 5:
            shutil.rmtree(path)
    assert tuned("again", "--resume") == whole
    config = json.loads((tmp_path / "whole/adapter_config.json").read_text())
    assert config == json.loads((tmp_path / "again/adapter_config.json").read_text())
    if method.startswith("adalora"):
        kept = [sum(ranks) for ranks in config["rank_pattern"].values()]
        assert sum(kept) == 2 * len(kept) == 2 * 21 and len(set(kept)) > 1
        assert load_file(tmp_path / "whole/adapter_model.safetensors")["base_model.model.model.layers.0.self_attn.q_proj.lora_A"].shape[0] == kept[0]


@pytest.fixture(scope="module")
def small_run(frugal, tiny, tmp_path_factory):
    """A run of frugal train that is long enough to have learned, and what continues it."""
    output = tmp_path_factory.mktemp("small") / "run"
    shape = ["--tokenizer", tiny / "model", "--width", 64, "--heads", 4, "--kv-heads", 2, "--layers", 2, "--sequence-len", 64]
    run = frugal("train", *shape, "--data", tiny / "text.txt", "-o", output, "--max-steps", 60, "--learning-rate", "3e-3", "--micro-batch-size", 4, "--val-set-size", "0.2",
                 "--lr-scheduler-type", "constant", "-t", 2, "--json")
    assert run.code == 0, run.err
    return output, run.json


@pytest.mark.parametrize("method", ["staged:num_hidden_layers=4,hidden_size=128", "lemon:num_hidden_layers=3,hidden_size=96,num_attention_heads=6,intermediate_size=200"])
def test_a_grown_model_goes_on_from_the_loss_that_it_had(frugal, tiny, small_run, tmp_path, method):
    small, before = small_run
    grown, output = tmp_path / "grown", tmp_path / "run"
    run = frugal("grow", small, "--method", method, "-o", grown, "--json")
    assert run.code == 0, run.err
    assert run.json["logits_difference"] < (1e-4 if method.startswith("staged") else 1e-5)
    assert run.json["after"]["parameters"] > 1.5 * run.json["before"]["parameters"] and run.json["before"]["hidden_size"] == 64
    has_state = method.startswith("staged")
    assert run.json["optimizer_state_of_step"] == (60 if has_state else None) and (grown / "optimizer.safetensors").exists() == has_state
    config = json.loads((grown / "config.json").read_text())
    assert {key: config[key] for key in run.json["after"] if key != "parameters"} == {key: value for key, value in run.json["after"].items() if key != "parameters"}
    (tmp_path / "train.yaml").write_text(f"base_model: {grown}\nmax_steps: 30\nlearning_rate: 1.0e-3\nlr_scheduler_type: constant\nmicro_batch_size: 4\nsequence_len: 64\nval_set_size: 0.2\n")
    run = frugal("train", "--config", tmp_path / "train.yaml", "--data", tiny / "text.txt", "-o", output, "-t", 2, "--json", "--log-level", "info")
    assert run.code == 0, run.err
    assert ("the optimizer begins with the state" in run.err) == has_state
    first, rest = before["train_loss_last"], [loss for _, loss in losses(output)]
    assert rest[0] < 1.15 * first and max(rest) < 1.5 * first, (first, rest)  # a new model of this size begins at 5.8
    assert run.json["eval_loss"] < before["eval_loss"]
    if has_state:
        steps = {name: float(value) for name, value in load_file(output / "checkpoint-30/optimizer.safetensors").items() if name.startswith("step.")}
        assert steps["step.model.layers.0.mlp.up_proj.weight"] == 90 and steps["step.model.layers.1.mlp.up_proj.weight"] == 30


def test_stacking_reports_its_difference_and_what_cannot_grow_is_refused(frugal, tiny, tuned, tmp_path):
    run = frugal("grow", tiny / "model", "--method", "stacking", "-o", tmp_path / "stacked")
    assert run.code == 0 and "num_hidden_layers    3 -> 6" in run.out and "logits differ by" in run.out, run.err
    run = frugal("train", tmp_path / "stacked", "--data", tiny / "text.txt", "-o", tmp_path / "out", "--max-steps", 2, "--sequence-len", 32)
    assert run.code == 0, run.err
    for arguments, message in [([tiny / "model", "--method", "staged:hidden_size=100"], "intermediate_size: 136 times 100 / 72"), ([tiny / "model", "--method", "stack"], "no method"),
                               ([tiny / "model", "--method", "staged:width=100"], "width"), ([tuned[0], "--method", "stacking"], "config.json")]:
        run = frugal("grow", *arguments, "-o", tmp_path / "no")
        assert run.code in (1, 2) and message in run.err and not (tmp_path / "no").exists(), run.err
    assert frugal("grow", tiny / "model", "--method", "stacking", "-o", tmp_path / "stacked").code == 2


def test_the_state_of_adamw_goes_with_its_own_weights_and_to_adamw_only(frugal, tiny, small_run, tmp_path):
    assert frugal("grow", small_run[0], "--method", "staged:num_hidden_layers=3", "-o", tmp_path / "grown").code == 0
    run = frugal("train", tmp_path / "grown", "--data", tiny / "text.txt", "-o", tmp_path / "out", "--max-steps", 1, "--sequence-len", 32, "--optimizer", "lion")
    assert run.code == 0 and "with which lion cannot begin" in run.err, run.err
    subprocess.run(["cp", "-r", small_run[0], tmp_path / "other"], check=True)
    subprocess.run(["cp", small_run[0] / "initial/model.safetensors", tmp_path / "other"], check=True)
    run = frugal("grow", tmp_path / "other", "--method", "staged:num_hidden_layers=3", "-o", tmp_path / "no")
    assert run.code == 2 and "is not as in the model beside it" in run.err and not (tmp_path / "no").exists(), run.err
