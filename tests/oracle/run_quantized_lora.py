"""LoftQ's decomposition and QA-LoRA's forward as peft has them.

run_quantized_lora.py loftq IN.safetensors OUT.safetensors RANK BITS GROUP ITERATIONS
    IN: weights by name. OUT: <name>.quantized, <name>.a, <name>.b by algorithm 1 with peft's decomposition and plain rounding to a grid
run_quantized_lora.py qalora IN.safetensors OUT.safetensors SCALE GROUP
    IN: x [rows, in], a [rank, in / group], b [out, rank]. OUT: delta [rows, out], what the adapter adds
"""
import sys
from types import SimpleNamespace

import torch
from peft.tuners.lora.variants import QALoraLinearVariant
from peft.utils.loftq_utils import _low_rank_decomposition
from safetensors.torch import load_file, save_file


def to_grid(weight, bits, group):
    """Asymmetric, an integer zero point and a float16 scale for each group of columns; the range holds zero."""
    top, out = 2**bits - 1, torch.empty_like(weight)
    for begin in range(0, weight.shape[1], group):
        part = weight[:, begin : begin + group]
        low, high = part.min(1, keepdim=True).values.clamp_max(0), part.max(1, keepdim=True).values.clamp_min(0)
        scale = ((high - low) / top).half().float()
        zero = (-low / scale).round().clamp(0, top)
        out[:, begin : begin + group] = ((part / scale + zero).round().clamp(0, top) - zero) * scale
    return out


def loftq(weight, rank, bits, group, iterations):
    rest = weight
    for _ in range(iterations):
        quantized = to_grid(rest, bits, group)
        factors = _low_rank_decomposition(weight - quantized, rank)
        rest = weight - factors["L"] @ factors["R"]
    return quantized, factors["R"], factors["L"]


def main():
    mode, given, out = sys.argv[1], load_file(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    result = {}
    if mode == "loftq":
        for name, weight in given.items():
            parts = loftq(weight, *(int(text) for text in sys.argv[4:8]))
            result.update({f"{name}.{part}": value.contiguous() for part, value in zip(("quantized", "a", "b"), parts)})
    else:
        matrix = lambda weight: SimpleNamespace(default=SimpleNamespace(weight=weight))
        module = SimpleNamespace(lora_A=vars(matrix(given["a"])), lora_B=vars(matrix(given["b"])), lora_dropout={"default": torch.nn.Identity()},
                                 scaling={"default": float(sys.argv[4])}, qalora_group_size={"default": int(sys.argv[5])}, training=False,
                                 in_features=given["x"].shape[1])
        result["delta"] = QALoraLinearVariant.forward(module, "default", given["x"], torch.zeros(len(given["x"]), len(given["b"])))
    save_file(result, out)


if __name__ == "__main__":
    main()
