"""What transformers makes of files that frugal wrote.

check_models.py (MODEL TOKENS.safetensors OUT.safetensors)...
    MODEL: a directory, or a .gguf file (transformers' own GGUF loader). Computes in float32 the logits [T, vocab] of
    `tokens` [T] i32 and stores them in OUT; prints for each model a line {"ids": [...]}: TEXT through the tokenizer there.
"""
import functools
import json
import sys
from pathlib import Path

import gguf
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

# transformers reads the file anew for each question, and makes the map of names once for each module: half a minute for SmolLM2.
gguf.GGUFReader = functools.cache(gguf.GGUFReader)
gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)

TEXT = "The quick brown fox, naïve café"


def load_gguf(path):
    """What from_pretrained(gguf_file=...) does, without the package `accelerate` that it asks for."""
    keys = load_gguf_checkpoint(path, return_tensors=False)["config"]
    if keys.get("pad_token_id", 0) >= keys["vocab_size"]:
        del keys["pad_token_id"]  # 2^32 - 1: none
    fields = gguf.GGUFReader(path).fields
    key_length = fields.get(fields["general.architecture"].contents() + ".attention.key_length")
    if key_length:  # transformers 5.24 overlooks it for Qwen 3
        keys["head_dim"] = int(key_length.contents())
    config = AutoConfig.for_model(**keys)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    tensors = load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and all(name == "lm_head.weight" for name in missing), (missing, unexpected)
    model.tie_weights()
    return model


def check(path, tokens, out):
    if path.suffix == ".gguf":
        model = load_gguf(path)
    else:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model.eval()(input_ids=tokens[None], use_cache=False).logits[0]
    save_file({"logits": logits.float().contiguous()}, out)
    ids = []
    if path.is_dir() and (path / "tokenizer.json").exists():
        ids = AutoTokenizer.from_pretrained(path)(TEXT)["input_ids"]
    print(json.dumps({"ids": ids}))


def main():
    torch.set_num_threads(2)
    for i in range(1, len(sys.argv), 3):
        check(Path(sys.argv[i]), load_file(sys.argv[i + 1])["tokens"].long(), sys.argv[i + 2])


if __name__ == "__main__":
    main()
