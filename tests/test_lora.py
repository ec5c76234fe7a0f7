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
    """one, two: LoRA of all linear layers; dora; prompt and prefix, with what peft says after PROMPT."""
    folder = tmp_path_factory.mktemp("adapters")
    script = f"""
import json, torch
from peft import LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
for seed, name in enumerate(("one", "two", "dora")):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained({str(tiny / "model")!r})
    config = LoraConfig(r=4, lora_alpha=4, target_modules="all-linear", init_lora_weights=False, use_dora=name == "dora", task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained({str(folder)!r} + "/" + name)
tokenizer, said = AutoTokenizer.from_pretrained({str(tiny / "model")!r}), {{}}
for kind in (PromptTuningConfig, PrefixTuningConfig):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained({str(tiny / "model")!r}, attn_implementation="eager"), kind(num_virtual_tokens=7, task_type="CAUSAL_LM")).eval()
    name = kind.__name__[:6].lower()
    model.save_pretrained({str(folder)!r} + "/" + name)
    ids = tokenizer({PROMPT[2]!r})["input_ids"]
    begin = len(ids)
    with torch.no_grad():
        for _ in range({PROMPT[4]}):
            ids.append(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item())
    said[name] = tokenizer.decode(ids[begin:])
open({str(folder)!r} + "/said.json", "w").write(json.dumps(said))
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


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_a_soft_prompt_says_what_it_says_in_peft_alone_and_served(frugal, tiny, quantized, adapters, name):
    said = json.loads((adapters / "said.json").read_text())[name]
    assert text_of(frugal, tiny / "model", "--exact", "--lora", adapters / name) == said != text_of(frugal, tiny / "model", "--exact")
    both = text_of(frugal, tiny / "model", "--exact", "--lora", f"{adapters / name},{adapters / 'one'}")
    assert both != said and both != text_of(frugal, tiny / "model", "--exact", "--lora", adapters / "one")
    server = Server(quantized, "--lora", adapters / name, "--alias", "tuned")

    def complete(prompt, **more):
        status, _, answer = server.request("/v1/completions", {"model": "tuned", "prompt": prompt, "max_tokens": 12, "temperature": 0, "ignore_eos": True, **more}, key=None)
        assert status == 200, answer
        return answer

    prompts = ["Sentence 3 says", *(f"Sentence {i} says that grouped integers" for i in range(4, 12)), "Sentence 3 says that sparse masks and integers add up. " * 4]
    alone = [complete(prompt)["choices"][0]["text"] for prompt in prompts]
    assert alone[0] == text_of(frugal, quantized, "--lora", adapters / name) != text_of(frugal, quantized)
    with ThreadPoolExecutor(len(prompts)) as pool:
        assert [one["choices"][0]["text"] for one in pool.map(complete, prompts)] == alone
    # The virtual tokens are nobody's: neither counted, nor in the log-probabilities, nor found in the cache.
    again = complete(prompts[-1], echo=True, logprobs=0, max_tokens=1)
    generated = frugal("generate", quantized, "--raw", "-p", prompts[-1], "-n", 1, "--json").json
    assert again["usage"]["prompt_tokens"] == generated["prompt_tokens"]
    assert len(again["choices"][0]["logprobs"]["tokens"]) == generated["prompt_tokens"] + 1
    assert 0 < complete(prompts[-1])["usage"]["prompt_tokens_details"]["cached_tokens"] < generated["prompt_tokens"]
    status, _, answer = server.request("/v1/completions", {"model": "tuned", "prompt": "word " * 1000}, key=None)
    assert status == 400 and "249" in json.dumps(answer), answer
    assert server.stop() == 0


def test_soft_prompts_are_evaluated_and_what_cannot_take_them_says_so(frugal, tiny, adapters, tmp_path):
    text = ("--text", tiny / "text.txt", "--ctx", 64, "--chunks", 4, "--json", "-t", 1)
    for name in ("prompt", "prefix"):
        done = frugal("eval", tiny / "model", "--lora", adapters / name, "--base", tiny / "model", *text)
        assert done.code == 0 and abs(done.json["ln_ratio"]) > 1e-3, done.err
        refused = frugal("merge", tiny / "model", "--lora", adapters / name, "-o", tmp_path / "merged")
        assert refused.code == 1 and "cannot be merged" in refused.err
    for arguments, message in ((("--lora", f"{adapters / 'prompt'},{adapters / 'prefix'}"), "one goes at a time"), (("--lora-scaled", f"{adapters / 'prompt'}:2"), "only a plain LoRA")):
        refused = frugal("generate", tiny / "model", *PROMPT, *arguments)
        assert refused.code == 1 and message in refused.err


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
