"""What transformers and torch make of the training run of src/train/training_test.cpp.

run_training.py (MODEL DATA.safetensors OUT.safetensors)...
    MODEL: a directory; after "ternary:" one whose matrices in the blocks shall be transformers' AutoBitLinear (BitNet b1.58).
    DATA: tokens [N] i32, trained [N] i32 (1: a target), offsets [examples + 1] i32, options f32 [steps, examples a step, learning rate, weight decay, clip,
    activations: 32 (float32), 8 (bfloat16) or 16 (float16, with a gradient scaler), under torch.autocast].
    OUT: losses [steps] f32 (mean over the targets of a step), norms [steps] f32 (of the gradient, before it is clipped), and of the first step grad.<parameter>.

Step s takes the examples s * size ... (s + 1) * size - 1, round and round; AdamW with the decay on matrices only, the rate falling linearly to 0.
"""
import os
import sys

os.environ["TORCH_COMPILE_DISABLE"] = "1"  # AutoBitLinear's roundings: compiling takes longer than all runs

import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.bitnet import AutoBitLinear
from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup


def make_ternary(model):
    for module in model.model.modules():
        if isinstance(module, torch.nn.Linear):
            module.__class__ = AutoBitLinear
            module.online_quant, module.rms_norm = True, None


def run(path, data, out):
    tokens, trained, offsets = data["tokens"].long(), data["trained"].long(), data["offsets"].tolist()
    steps, size, rate, decay, clip, activations = data["options"].tolist()
    autocast = torch.autocast("cpu", {8: torch.bfloat16, 16: torch.float16}.get(activations), enabled=activations != 32)
    scaler = torch.amp.GradScaler("cpu", enabled=activations == 16)
    steps, size = int(steps), int(size)
    model = AutoModelForCausalLM.from_pretrained(path.removeprefix("ternary:"), dtype=torch.float32, attn_implementation="eager").train()
    if path.startswith("ternary:"):
        make_ternary(model)
    named = list(model.named_parameters())
    groups = [{"params": [p for _, p in named if p.dim() >= 2], "weight_decay": decay}, {"params": [p for _, p in named if p.dim() < 2], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, steps)
    losses, norms, result = [], [], {}
    for step in range(steps):
        optimizer.zero_grad()
        rows = [(step * size + i) % (len(offsets) - 1) for i in range(size)]
        targets = sum(int(trained[offsets[row]:offsets[row + 1]].sum()) for row in rows)
        total = 0.0
        for row in rows:
            ids, mask = tokens[offsets[row]:offsets[row + 1]], trained[offsets[row]:offsets[row + 1]]
            with autocast:
                logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits, torch.where(mask[1:] == 1, ids[1:], -100), reduction="sum") / targets
            scaler.scale(loss).backward()
            total += loss.item()
        scaler.unscale_(optimizer)
        if step == 0:
            result = {"grad." + name: p.grad.clone() for name, p in named if p.grad is not None}
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip).item())
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        losses.append(total)
    save_file({"losses": torch.tensor(losses), "norms": torch.tensor(norms), **result}, out)


def main():
    torch.set_num_threads(2)
    for i in range(1, len(sys.argv), 3):
        run(sys.argv[i], load_file(sys.argv[i + 1]), sys.argv[i + 2])


if __name__ == "__main__":
    main()
