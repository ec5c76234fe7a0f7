"""Tiny random models with random adapters of peft, and what peft computes with them.

make_peft_adapters.py OUT SEED
    OUT/base/, OUT/tied/             checkpoints: a Llama with all biases, a Qwen2 with a tied head
    OUT/<name>/                      an adapter as peft saves it; its base is its name's first word
    OUT/<name>.expected.safetensors  tokens [T] i32, logits [T, vocab] f32 and, by the keys of the adapter file, grad.<key>
    prints the names, one a line

Gradients are of the mean cross-entropy of the next token. Shapes, ranks and weights are drawn from SEED.
"""
import random
import sys
from pathlib import Path

import torch
from peft import (AdaLoraConfig, IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, VeraConfig, get_peft_model)
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

LENGTH = 32


def bases(rng):
    kv_heads, head_dim = rng.choice([1, 2]), rng.choice([8, 12])
    heads = kv_heads * rng.choice([2, 3])
    sizes = dict(vocab_size=rng.randrange(60, 80), hidden_size=head_dim * heads, intermediate_size=4 * rng.randrange(10, 30), num_hidden_layers=3,
                 num_attention_heads=heads, num_key_value_heads=kv_heads, max_position_embeddings=128, initializer_range=0.1, bos_token_id=0,
                 eos_token_id=1, pad_token_id=None)
    yield "base", LlamaConfig(**sizes, attention_bias=True, mlp_bias=True, tie_word_embeddings=False)
    yield "tied", Qwen2Config(**sizes, tie_word_embeddings=True)


def adapters(rng):
    rank = rng.randrange(2, 6)
    random_init = dict(init_lora_weights=False)
    yield "base_lora_all", LoraConfig(r=rank, lora_alpha=7, target_modules="all-linear", **random_init)
    yield "base_lora_patterns", LoraConfig(
        r=rank, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"], exclude_modules=["model.layers.0.mlp.down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 7, "down_proj": 1, r"model\.layers\.[02]\.self_attn\.v_proj": 2},
        alpha_pattern={".*v_proj": 11, "model.layers.2.mlp.down_proj": 3}, **random_init)
    yield "base_lora_regex", LoraConfig(r=rank, target_modules=r".*\.layers\.[12]\.(?:self_attn|mlp)\.(q|up|down)_proj", exclude_modules=r".*2\.mlp.*", **random_init)
    yield "base_lora_layers", LoraConfig(r=rank, target_modules=["o_proj", "gate_proj"], layers_to_transform=[0, 2], layers_pattern="layers", **random_init)
    yield "base_dora", LoraConfig(r=rank, lora_alpha=5, use_dora=True, target_modules="all-linear", **random_init)
    yield "base_ia3", IA3Config(target_modules=["k_proj", "v_proj", "down_proj", "up_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False)
    yield "base_vera", VeraConfig(r=8, target_modules=["q_proj", "v_proj", "down_proj"], init_weights=False)
    yield "base_vera_drawn", VeraConfig(r=5, target_modules=["k_proj", "gate_proj"], save_projection=False, projection_prng_key=rng.randrange(1000))
    schedule = dict(total_step=10, tinit=1, tfinal=2)
    yield "base_adalora", AdaLoraConfig(init_r=rank, target_r=2, lora_alpha=6, target_modules="all-linear", init_lora_weights=False, **schedule)
    yield "base_adalora_ranks", AdaLoraConfig(init_r=4, target_r=1, target_modules=["q_proj", "down_proj"], init_lora_weights=False, **schedule)
    yield "base_prompt", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=rng.randrange(1, 9))
    yield "base_prefix", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=rng.randrange(1, 9))
    yield "tied_prefix", PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=5)
    yield "tied_lora", LoraConfig(r=rank, lora_alpha=9, target_modules=["k_proj", "v_proj", "up_proj"], **random_init)
    yield "tied_ia3", IA3Config(task_type="CAUSAL_LM", init_ia3_weights=False)


def randomize(model, generator):
    for name, parameter in model.named_parameters():
        if "magnitude" in name:
            parameter.data *= 1 + 0.3 * torch.randn(parameter.shape, generator=generator)
        # Much more would make attention sharp, which amplifies rounding.
        elif "lora_B" in name or "lora_E" in name:
            parameter.data *= 0.3
        elif name.endswith("lora_A.default"):  # AdaLoRA's, drawn larger than LoRA's
            parameter.data *= 0.2
        elif "vera_lambda_b" in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        elif "vera_lambda_d" in name or "ia3_l" in name:
            parameter.data = 1 + 0.5 * torch.randn(parameter.shape, generator=generator)


def drop_ranks(model, config, rng):
    """As AdaLoRA does at the end of its schedule; a module may lose all."""
    modules = [name for name, _ in model.base_model.model.named_parameters() if "lora_E" in name]
    pattern = {name.replace(".default", ""): [rng.random() < 0.5 for _ in range(config.init_r)] for name in modules}
    pattern[next(iter(pattern))] = [False] * config.init_r
    model.base_model.resize_modules_by_rank_pattern(pattern, "default")
    config.rank_pattern = pattern


def key_of(name):
    return name.replace(".default.weight", ".weight" if "magnitude" not in name else "").replace(".default", "")


def main():
    out, seed = Path(sys.argv[1]), int(sys.argv[2])
    names, sys.stdout = sys.stdout, sys.stderr
    rng = random.Random(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    for name, config in bases(rng):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(out / name)
    for name, config in adapters(rng):
        base = AutoModelForCausalLM.from_pretrained(out / name.split("_")[0], dtype=torch.float32, attn_implementation="eager")
        model = get_peft_model(base, config).eval()
        randomize(model, generator)
        if name == "base_adalora_ranks":
            drop_ranks(model, config, rng)
        model.save_pretrained(out / name)
        tokens = torch.randint(0, base.config.vocab_size, (LENGTH,), generator=generator)
        logits = model(input_ids=tokens[None], use_cache=False).logits[0][-LENGTH:]
        torch.nn.functional.cross_entropy(logits[:-1], tokens[1:]).backward()
        result = {"tokens": tokens.to(torch.int32), "logits": logits.detach().contiguous()}
        kept = set(load_file(out / name / "adapter_model.safetensors"))
        for parameter_name, parameter in model.named_parameters():
            if parameter.requires_grad:
                assert key_of(parameter_name) in kept or "prompt_encoder" in parameter_name, parameter_name
                result["grad." + key_of(parameter_name)] = parameter.grad.contiguous()
        save_file(result, out / f"{name}.expected.safetensors")
        print(name, file=names)


if __name__ == "__main__":
    main()
