"""Tiny random checkpoints of every family, made by transformers, with what transformers computes on them.

make_tiny_models.py OUT SEED
    OUT/<name>/                      the checkpoint (config.json, model.safetensors, tokenizer.json, ...)
    OUT/<name>.expected.safetensors  tokens [T] i32, logits [T, vocab] f32, greedy [N] i32 and, in float32, grad.<parameter>
    prints the names, one a line

Shapes, head counts and weights are drawn from SEED. Logits are those of the checkpoint computed in float32. Greedy ids come
without a cache, so that dynamic and longrope frequencies are those of the whole sequence at each step.
"""
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers import BitNetConfig, Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

LENGTH = 48
GREEDY = 12
TEXT = ["Frugal makes a large language model cheaper and proves what that cost.", "The quick brown fox jumps over the lazy dog; 12345 times!",
        "Grouped integers, sparse masks, low-rank factors: every chain is measured.", "Ein Häuschen, naïve café, 東京."]
TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=["<|endoftext|>", "<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXT, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|end|>")
    fast.chat_template = TEMPLATE
    return fast


def shape(rng, vocab, qwen3=False):
    kv_heads = rng.choice([1, 2, 3])
    heads = kv_heads * rng.choice([1, 2, 3])
    head_dim = rng.choice([8, 12, 16])
    hidden = head_dim * heads
    if qwen3:
        hidden = 4 * rng.randrange(8, 17)
    sizes = dict(vocab_size=vocab + rng.randrange(0, 5), hidden_size=hidden, intermediate_size=4 * rng.randrange(10, 30), num_hidden_layers=2,
                 num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=128, rms_norm_eps=rng.choice([1e-5, 1e-6]),
                 initializer_range=0.2, bos_token_id=0, eos_token_id=1, pad_token_id=None)
    if qwen3:
        sizes["head_dim"] = head_dim
    return sizes


def configs(rng, vocab):
    def llama(**changes):
        sizes = shape(rng, vocab)
        return LlamaConfig(**{**sizes, "tie_word_embeddings": rng.random() < 0.5, **changes})

    def rope(kind, **values):
        return {"rope_type": kind, "rope_theta": 10000.0, **values}

    yield "llama", llama()
    yield "llama_bias", llama(attention_bias=True, mlp_bias=True)
    yield "llama_bf16", llama()
    yield "llama_linear", llama(rope_parameters=rope("linear", factor=2.5))
    yield "llama_dynamic", llama(rope_parameters=rope("dynamic", factor=2.0), max_position_embeddings=32)
    yield "llama_llama3", llama(rope_parameters=rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32))
    yield "llama_yarn", llama(rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=32))
    longrope = llama()
    half = longrope.hidden_size // longrope.num_attention_heads // 2
    factors = dict(short_factor=[1 + rng.random() for _ in range(half)], long_factor=[1 + 4 * rng.random() for _ in range(half)])
    yield "llama_longrope", LlamaConfig(**{**longrope.to_diff_dict(), "rope_parameters": rope("longrope", original_max_position_embeddings=32, **factors)})
    yield "mistral", MistralConfig(**shape(rng, vocab), sliding_window=rng.randrange(8, 20))
    yield "qwen2", Qwen2Config(**shape(rng, vocab), tie_word_embeddings=True)
    yield "qwen2_window", Qwen2Config(**shape(rng, vocab), use_sliding_window=True, sliding_window=9, max_window_layers=1)
    yield "qwen3", Qwen3Config(**shape(rng, vocab, True))
    yield "bitnet", BitNetConfig(**shape(rng, vocab), hidden_act="silu", tie_word_embeddings=True)
    sizes = shape(rng, vocab)
    sizes["num_hidden_layers"] = 3
    head_dim = sizes["hidden_size"] // sizes["num_attention_heads"]
    yield "gemma3", Gemma3TextConfig(**{**sizes, "initializer_range": 0.1}, head_dim=head_dim, query_pre_attn_scalar=head_dim, sliding_window=11, sliding_window_pattern=2,
                                     rope_parameters={"full_attention": rope("linear", factor=4.0), "sliding_attention": rope("default")})


def randomize_vectors(model, generator):
    """Norms of ones and biases of zeros would hide mistakes."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def expected(model, tokens, with_gradients):
    result = {"tokens": tokens.to(torch.int32)}
    logits = model(input_ids=tokens[None], use_cache=False).logits[0]
    result["logits"] = logits.detach().float().contiguous()
    if with_gradients:
        torch.nn.functional.cross_entropy(logits[:-1], tokens[1:]).backward()
        for name, parameter in model.named_parameters():
            result["grad." + name] = parameter.grad.contiguous()
    ids = tokens[:24].tolist()
    with torch.no_grad():
        for _ in range(GREEDY):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    result["greedy"] = torch.tensor(ids[24:], dtype=torch.int32)
    return result


def main():
    out, seed = Path(sys.argv[1]), int(sys.argv[2])
    names, sys.stdout = sys.stdout, sys.stderr  # the libraries print to stdout too
    rng = random.Random(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    tokenizer = make_tokenizer()
    for name, config in configs(rng, len(tokenizer)):
        bf16 = name.endswith("bf16")
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        randomize_vectors(model, generator)
        model = model.to(torch.bfloat16 if bf16 else torch.float32)
        model.generation_config.eos_token_id = [1, 0]
        model.save_pretrained(out / name)
        tokenizer.save_pretrained(out / name)
        tokens = torch.randint(0, len(tokenizer), (LENGTH,), generator=generator)
        if bf16:  # .float() would keep rotary frequencies that were rounded to bfloat16
            model = AutoModelForCausalLM.from_pretrained(out / name, dtype=torch.float32, attn_implementation="eager").eval()
        save_file(expected(model, tokens, not bf16), out / f"{name}.expected.safetensors")
        print(name, file=names)


if __name__ == "__main__":
    main()
