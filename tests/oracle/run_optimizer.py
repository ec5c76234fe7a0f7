"""Runs an optimizer that this project did not write over gradients that a test recorded:

    run_optimizer.py FOLDER NAME [argument=value ...]

FOLDER/header says {tensors: [{name, shape, scale, decays}], rates: [per step], defined: [per step, per tensor]}; FOLDER/numbers
holds in float32 the tensors, then for every step the gradients that are defined. Prints, in float32, the tensors after each step.
"""
import ast
import json
import sys
from pathlib import Path

import bitsandbytes
import numpy as np
import torch


class PaperLion(torch.optim.Optimizer):
    """Program 1 of 2302.06675 and its published implementation in PyTorch, in their names."""

    def __init__(self, params, lr, weight_decay=0.0, betas=(0.9, 0.99)):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, betas=betas))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                exp_avg = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                update = exp_avg * beta1 + p.grad * (1 - beta1)
                p.add_(update.sign_(), alpha=-group["lr"])
                exp_avg.mul_(beta2).add_(p.grad, alpha=1 - beta2)


OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "lion": bitsandbytes.optim.Lion,
    "lion_of_the_paper": PaperLion,
}


def main():
    folder, name, *given = sys.argv[1:]
    header = json.loads(Path(folder, "header").read_text())
    numbers = np.fromfile(Path(folder, "numbers"), np.float32)
    at = 0

    def take(shape):
        nonlocal at
        count = int(np.prod(shape))
        at += count
        return torch.from_numpy(numbers[at - count:at].reshape(shape).copy())

    arguments = {key: ast.literal_eval(value) for key, value in (text.split("=", 1) for text in given)}
    tensors = [take(spec["shape"]).requires_grad_() for spec in header["tensors"]]
    groups = []
    for spec, tensor in zip(header["tensors"], tensors):
        groups.append({"params": [tensor], "name": spec["name"], "scale": spec["scale"]})
        if not spec["decays"]:
            groups[-1]["weight_decay"] = 0.0
    optimizer = OPTIMIZERS[name](groups, lr=1.0, **arguments)
    for rate, defined in zip(header["rates"], header["defined"]):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        for tensor, spec, there in zip(tensors, header["tensors"], defined):
            tensor.grad = take(spec["shape"]) if there else None
        optimizer.step()
        for tensor in tensors:
            sys.stdout.buffer.write(tensor.detach().numpy().tobytes())
    assert at == len(numbers)


main()
