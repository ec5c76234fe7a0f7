"""Models whose blocks share weights: trained, resumed, served, and the same as transformers computes with shared modules."""
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

SHAPE = ["--layers", 3, "--width", 32, "--intermediate-size", 64, "--heads", 2, "--kv-heads", 1, "--sequence-len", 24, "-t", 1, "--json"]
METHODS = ["mobilellm-ls", "mobillama"]
TEXT = "The river runs under the bridge and the horse looks at the water. "


def train(frugal, tiny, output, *more):
    text = tiny / "text.txt"
    run = frugal("train", "--tokenizer", tiny / "model", "--data", text, "-o", output, *SHAPE, *more)
    assert run.code == 0, run.err
    return run


@pytest.fixture(scope="module", params=METHODS)
def trained(request, frugal, tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("shared") / request.param
    run = train(frugal, tiny, output, "--method", request.param, "--max-steps", 4, "--save-steps", 2, "--micro-batch-size", 2)
    return request.param, output, run


def in_transformers(path):
    """A Llama of transformers whose modules are shared as the configuration says."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = json.loads((path / "config.json").read_text())
    sharing = config.pop("model_type")
    model = LlamaForCausalLM(LlamaConfig(**{key: value for key, value in config.items() if key != "architectures"}))
    tensors = load_file(path / "model.safetensors")
    if sharing == "mobillama":
        for layer in model.model.layers:
            layer.mlp = model.model.layers[0].mlp
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    shared = [name for name in missing if ".mlp." in name and sharing == "mobillama" or name == "lm_head.weight"]
    assert not unexpected and missing == shared, (missing, unexpected)
    model.tie_weights()
    if sharing == "mobilellm":
        assert config["layer_sharing"] is True and config["share_embedding"] is True
        model.model.layers = torch.nn.ModuleList(layer for layer in model.model.layers for _ in range(2))
        model.config.num_hidden_layers *= 2
    return model.float()


def test_the_file_has_each_weight_once_and_says_what_is_shared(trained):
    method, output, _ = trained
    config = json.loads((output / "config.json").read_text())
    names = load_file(output / "model.safetensors").keys()
    assert config["num_hidden_layers"] == 3 and config["model_type"] == {"mobilellm-ls": "mobilellm", "mobillama": "mobillama"}[method]
    assert sum(name.endswith("mlp.up_proj.weight") for name in names) == (3 if method == "mobilellm-ls" else 1)
    assert sum(name.endswith("q_proj.weight") for name in names) == 3


def test_loss_and_gradient_norm_are_those_of_torch_with_shared_modules(frugal, tiny, trained, tmp_path):
    """One sequence is all of the data, so that the order says nothing; the gradients of all uses add up."""
    method, output, _ = trained
    from transformers import AutoTokenizer

    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    ids = AutoTokenizer.from_pretrained(tiny / "model")(TEXT, return_tensors="pt").input_ids
    run = frugal("train", output, "--data", text, "--sequence-len", 1000, "--max-steps", 3, "--num-epochs", 3, "--learning-rate", "1e-2", "--lr-scheduler-type", "constant",
                 "--optimizer", "adamw:weight_decay=0", "--max-grad-norm", 0, "-o", tmp_path / "out", "-t", 1, "--logging-steps", 1)
    assert run.code == 0, run.err
    log = [json.loads(line) for line in (tmp_path / "out/trainer_log.jsonl").read_text().splitlines()]
    model = in_transformers(output)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
    candidates = [ids]
    for extra in (model.config.eos_token_id, model.config.bos_token_id):  # a text may end, or begin, with a token of its own
        if extra is not None:
            candidates += [torch.cat([one, torch.tensor([[extra]])], 1) for one in list(candidates)] + [torch.cat([torch.tensor([[extra]]), one], 1) for one in list(candidates)]
    with torch.no_grad():
        losses = [model(one, labels=one, use_cache=False).loss.item() for one in candidates]
    ids = candidates[min(range(len(losses)), key=lambda i: abs(losses[i] - log[0]["loss"]))]
    for row in log:
        optimizer.zero_grad()
        loss = model(ids, labels=ids, use_cache=False).loss
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9).item()
        optimizer.step()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert row["grad_norm"] == pytest.approx(norm, rel=1e-3)


def test_greedy_words_are_those_of_transformers_through_generate_and_each_block_has_its_own_keys(frugal, tiny, trained):
    _, output, _ = trained
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny / "model"), in_transformers(output)
    ids = tokenizer("The river", return_tensors="pt").input_ids
    run = frugal("generate", output, "-p", "The river", "-n", 12, "--temp", 0, "--raw", "--exact")
    assert run.code == 0, run.err
    with torch.no_grad():
        for _ in range(12):
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    written = tokenizer.decode(ids[0, len(tokenizer("The river").input_ids):], skip_special_tokens=True)
    assert run.out.strip() and run.out.strip().removeprefix("The river").strip() == written.strip()


def test_a_run_that_is_resumed_is_the_one_that_was_not(frugal, tiny, trained, tmp_path):
    method, output, _ = trained
    part = tmp_path / "part"
    shutil.copytree(output, part)
    shutil.rmtree(part / "checkpoint-4")
    train(frugal, tiny, part, "--method", method, "--max-steps", 4, "--save-steps", 2, "--micro-batch-size", 2, "--resume")
    assert (part / "model.safetensors").read_bytes() == (output / "model.safetensors").read_bytes()


def test_what_would_make_shared_weights_different_is_refused(frugal, tiny, trained, tmp_path):
    method, output, _ = trained
    family = {"mobilellm-ls": "mobilellm", "mobillama": "mobillama"}[method]
    rows = tmp_path / "chat.jsonl"
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n")
    for arguments, reason in [
        (["compress", output, "--step", "rtn:bits=4", "-o", tmp_path / "c"], f"a {family}'s blocks share weights, which rtn"),
        (["tune", output, "--data", rows, "--method", "lora", "-o", tmp_path / "l"], "share weights"),
        (["grow", output, "--method", "stacking", "-o", tmp_path / "g"], "share weights"),
        (["convert", output, tmp_path / "m.gguf"], "share weights"),
        (["train", output, "--data", tiny / "text.txt", "--method", "bitnet-b158", "-o", tmp_path / "b"], "bitnet-b158"),
        (["train", output, "--data", tiny / "text.txt", "--method", method, "-o", tmp_path / "n"], f"{method} is an architecture of new models"),
        (["train", "--tokenizer", tiny / "model", "--data", tiny / "text.txt", "--method", method, "--sharing", "none", "-o", tmp_path / "s"], "give one of them"),
    ]:
        run = frugal(*arguments)
        assert run.code != 0 and reason in run.err, (arguments, run.err)
