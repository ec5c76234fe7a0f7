"""What torch counts of floating-point operations in a training step of transformers' model: count_flops.py (MODEL TOKENS RANK)...

One sequence of TOKENS tokens forward and backward, every one a target, attention as plain products; RANK > 0: the model is frozen, and a LoRA of peft on all linear
layers trains. Prints one number a line.
"""
import sys

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM


def count(path, tokens, rank):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").train()
    if rank > 0:
        model.enable_input_require_grads()  # the first block's input has a gradient too, as the formula has it
        model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    ids = torch.randint(0, model.config.vocab_size, (1, tokens))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, use_cache=False).logits.sum().backward()
    return counter.get_total_flops()


for i in range(1, len(sys.argv), 3):
    print(count(sys.argv[i], int(sys.argv[i + 1]), int(sys.argv[i + 2])))
