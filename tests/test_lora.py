"""Adapters of peft as a user has them: --lora and --lora-scaled, on a plain and on a quantized model, alone and in the server."""
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from test_serve import Server

PROMPT = ("--raw", "-p", "Sentence 3 says", "-n", 12, "--temp", 0, "--ignore-eos", "--json")


@pytest.fixture(scope="module")
def adapters(tiny, tmp_path_factory):
    """one, two: LoRA of all linear layers; dora."""
    folder = tmp_path_factory.mktemp("adapters")
    script = f"""
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
for seed, name in enumerate(("one", "two", "dora")):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained({str(tiny / "model")!r})
    config = LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", init_lora_weights=False, use_dora=name == "dora", task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained({str(folder)!r} + "/" + name)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def quantized(frugal, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("quantized") / "model"
    assert frugal("compress", tiny / "model", "-o", out, "--step", "rtn:bits=4,group=32").code == 0
    return out


def text_of(frugal, *arguments):
    done = frugal("generate", *arguments, *PROMPT)
    assert done.code == 0, done.err
    return done.json["text"]


def test_an_adapter_changes_the_answer_and_scaled_by_zero_it_does_not(frugal, tiny, quantized, adapters):
    for model in (tiny / "model", quantized):
        for form in ((), ("--exact",)):
            plain = text_of(frugal, model, *form)
            assert text_of(frugal, model, *form, "--lora", adapters / "one") != plain
            assert text_of(frugal, model, *form, "--lora-scaled", f"{adapters / 'one'}:0") == plain
            both = text_of(frugal, model, *form, "--lora", f"{adapters / 'one'},{adapters / 'two'}")
            assert both == text_of(frugal, model, *form, "--lora", adapters / "one", "--lora-scaled", f"{adapters / 'two'}:1")
        assert text_of(frugal, model, "--lora", adapters / "dora") != text_of(frugal, model)


def test_a_gguf_file_takes_the_adapter_of_the_directory_it_was_made_from(frugal, tiny, adapters, tmp_path):
    """Its rows of queries and keys lie in another order than the adapter's."""
    gguf = tmp_path / "model.gguf"
    assert frugal("convert", tiny / "model", gguf, "--dtype", "F32").code == 0
    lora = ("--exact", "--lora", adapters / "one")
    assert text_of(frugal, gguf, *lora) == text_of(frugal, tiny / "model", *lora) != text_of(frugal, gguf, "--exact")


def test_what_is_no_adapter_is_named(frugal, tiny, adapters, tmp_path):
    one = adapters / "one"
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle/adapter_config.json").write_text((one / "adapter_config.json").read_text())
    (tmp_path / "pickle/adapter_model.bin").write_bytes(b"\x80\x02}q\x00.")
    for arguments, code, message in ((("--lora", tmp_path), 2, "adapter_config.json is missing"), (("--lora-scaled", one), 2, "a colon and a number"),
                                     (("--lora-scaled", f"{one}:x"), 2, "--lora-scaled: the scale"), (("--lora", tmp_path / "pickle"), 1, "pickle"),
                                     (("--lora", ","), 2, "names no adapter"), (("--lora-scaled", f"{adapters / 'dora'}:0.5"), 1, "only a plain LoRA can be scaled"),
                                     (("--lora", f"{one},{adapters / 'dora'}"), 1, "has an adapter already")):
        done = frugal("generate", tiny / "model", *PROMPT, *arguments)
        assert done.code == code and message in done.err, (arguments, done.err)


def test_eval_compares_the_adapter_with_its_base_and_writes_it_into_the_ledger(frugal, tiny, adapters, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    text = ("--text", tiny / "text.txt", "--ctx", 64, "--chunks", 4, "--no-speed", "--json")
    plain = frugal("eval", tiny / "model", *text).json
    done = frugal("eval", tiny / "model", "--lora", adapters / "one", "--base", tiny / "model", "--ledger", ledger, *text)
    assert done.code == 0, done.err
    assert done.json["ln_perplexity"] - plain["ln_perplexity"] == pytest.approx(done.json["ln_ratio"], abs=1e-4)
    assert abs(done.json["ln_ratio"]) > 1e-3
    assert done.json["bytes"] == plain["bytes"] + (adapters / "one/adapter_model.safetensors").stat().st_size
    assert json.loads(ledger.read_text().splitlines()[-1])["runtime"] == ["lora:one"]


def test_the_server_answers_as_generate_does_and_alike_in_a_full_batch(frugal, quantized, adapters):
    server = Server(quantized, "--lora", adapters / "one", "--alias", "tuned")

    def complete(prompt):
        body = {"model": "tuned", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        status, _, answer = server.request("/v1/completions", body, key=None)
        assert status == 200, answer
        return answer["choices"][0]["text"]

    prompts = ["Sentence 3 says", *(f"Sentence {i} says that grouped integers" for i in range(4, 12))]
    alone = [complete(prompt) for prompt in prompts]
    assert alone[0] == text_of(frugal, quantized, "--lora", adapters / "one") != text_of(frugal, quantized)
    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(complete, prompts)) == alone
    assert server.stop() == 0


def test_a_server_of_several_models_takes_no_adapter(frugal, tiny, quantized, adapters):
    refused = frugal("serve", tiny / "model", quantized, "--port", 0, "--lora", adapters / "one")
    assert refused.code == 2 and "--lora is for a server of one model" in refused.err
