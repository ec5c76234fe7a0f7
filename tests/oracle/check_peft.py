"""What peft makes of adapters that frugal wrote.

check_peft.py (BASE ADAPTER TOKENS.safetensors OUT.safetensors)...
    Computes in float32 the logits [T, vocab] of `tokens` [T] i32 and stores them in OUT. A key that peft misses or does not know fails.
"""
import sys
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("error", message=".*(missing|unexpected) adapter keys.*")
    for i in range(1, len(sys.argv), 4):
        base, adapter, tokens, out = sys.argv[i : i + 4]
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
        model = PeftModel.from_pretrained(model, adapter).eval()
        with torch.no_grad():
            ids = load_file(tokens)["tokens"].long()
            logits = model(input_ids=ids[None], use_cache=False).logits[0][-len(ids):]  # virtual tokens may be before
        save_file({"logits": logits.contiguous()}, out)


if __name__ == "__main__":
    main()
