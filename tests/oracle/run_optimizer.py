"""Runs an optimizer that this project did not write over gradients that a test recorded:

    run_optimizer.py FOLDER NAME [argument=value ...]

FOLDER/header says {tensors: [{name, shape, scale, decays}], rates: [per step], defined: [per step, per tensor], for_hessian: the same,
null where none is wanted}; FOLDER/numbers holds in float32 the tensors, then for every step the gradients that are defined and those
for the Hessian. Prints, in float32, the tensors after each step, and at last at the point of evaluation.
"""
import ast
import json
import sys
from pathlib import Path

import bitsandbytes
import numpy as np
import torch
from transformers.optimization import Adafactor

BATCH_TOKENS = 48  # kBatchTokens of the test


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


class PublishedSophia(torch.optim.Optimizer):
    """SophiaG of the paper's repository (Liuhong99/Sophia, sophia.py) and its loop (train_sophiag.py), without the options that it leaves off."""

    def __init__(self, params, lr, betas=(0.965, 0.99), rho=0.04, weight_decay=0.1, interval=10):
        super().__init__(params, dict(lr=lr, betas=betas, rho=rho, weight_decay=weight_decay))
        self.interval = interval
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"exp_avg": torch.zeros_like(p), "hessian": torch.zeros_like(p)}

    def wants_hessian(self, step):
        return step % self.interval == self.interval - 1

    @torch.no_grad()
    def update_hessian(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    beta2 = group["betas"][1]
                    self.state[p]["hessian"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)

    @torch.no_grad()
    def step(self, bs=BATCH_TOKENS):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                exp_avg, hess = self.state[p]["exp_avg"], self.state[p]["hessian"]
                p.mul_(1 - group["lr"] * group["weight_decay"])
                exp_avg.mul_(group["betas"][0]).add_(p.grad, alpha=1 - group["betas"][0])
                ratio = (exp_avg.abs() / (group["rho"] * bs * hess + 1e-15)).clamp(None, 1)
                p.addcmul_(exp_avg.sign(), ratio, value=-group["lr"])


class AuthorsScheduleFree(torch.optim.Optimizer):
    """AdamWScheduleFreeReference's algorithm of facebookresearch/schedule_free, with x and z both stored, y computed from them."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.k, self.lr_max, self.weight_sum = 0, 0.0, 0.0
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {"x": p.detach().double(), "z": p.detach().double(), "exp_avg_sq": torch.zeros_like(p).double()}

    def eval(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.copy_(self.state[p]["x"])

    @torch.no_grad()
    def step(self):
        self.k += 1
        rate = max(group["lr"] / group["scale"] for group in self.param_groups)
        self.lr_max = max(self.lr_max, rate)
        self.weight_sum += self.lr_max**2
        ckp1 = self.lr_max**2 / self.weight_sum
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state, grad = self.state[p], p.grad.double()
                y = (1 - beta1) * state["z"] + beta1 * state["x"]
                state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                denom = (state["exp_avg_sq"] / (1 - beta2**self.k)).sqrt().add_(group["eps"])
                state["z"] -= group["lr"] * (grad / denom + group["weight_decay"] * y)
                state["x"].mul_(1 - ckp1).add_(state["z"], alpha=ckp1)
                p.copy_((1 - beta1) * state["z"] + beta1 * state["x"])


class AuthorsGaLore(torch.optim.Optimizer):
    """AdamW and GaLoreProjector("std") of jiaweizzhao/GaLore for hidden matrices, torch.optim.AdamW for the others."""

    def __init__(self, params, lr, rank, update_proj_gap, scale, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        super().__init__(params, dict(lr=lr, rank=rank, gap=update_proj_gap, alpha=scale, betas=betas, eps=eps, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad, state = p.grad, self.state[p]
                right = grad.shape[0] >= grad.shape[1]
                step = state.setdefault("step", 0)
                if step % group["gap"] == 0:
                    u, s, vh = torch.linalg.svd(grad, full_matrices=False)
                    state["ortho"] = vh[:group["rank"]] if right else u[:, :group["rank"]]
                low = grad @ state["ortho"].t() if right else state["ortho"].t() @ grad
                exp_avg = state.setdefault("exp_avg", torch.zeros_like(low))
                exp_avg_sq = state.setdefault("exp_avg_sq", torch.zeros_like(low))
                state["step"] += 1
                exp_avg.mul_(beta1).add_(low, alpha=1 - beta1)
                exp_avg_sq.mul_(beta2).addcmul_(low, low, value=1 - beta2)
                norm_grad = exp_avg / exp_avg_sq.sqrt().add_(group["eps"])
                step_size = group["lr"] * (1 - beta2**state["step"])**0.5 / (1 - beta1**state["step"])
                full = norm_grad @ state["ortho"] if right else state["ortho"] @ norm_grad
                p.add_(full * group["alpha"], alpha=-step_size)
                p.add_(p, alpha=-group["lr"] * group["weight_decay"])


class ScaledAdafactor(Adafactor):
    """Its own rate (relative_step) takes the scale of a parameter too."""

    def __init__(self, params, lr, relative_step=True, **arguments):
        super().__init__(params, lr=None if relative_step else lr, relative_step=relative_step, **arguments)

    @staticmethod
    def _get_lr(group, state):
        return Adafactor._get_lr(group, state) * (group["scale"] if group["relative_step"] else 1)


class Adam8bit(bitsandbytes.optim.AdamW8bit):
    """With the rounding to the nearest value that bitsandbytes has for all devices: its kernel for CPUs misses it near 0."""

    def __init__(self, *arguments, **named):
        nearest = torch.library.get_kernel("bitsandbytes::quantize_blockwise", "MTIA")  # of a device without one of its own

        def quantize(numbers, code, absmax_out, out, blocksize):
            codes, absmax = nearest.call_boxed(torch._C.DispatchKeySet(torch._C.DispatchKey.CPU), numbers, code, blocksize)
            out.copy_(codes)
            absmax_out.copy_(absmax)

        bitsandbytes.backends.cpu.ops._quant_blockwise_fp32_direct = quantize
        super().__init__(*arguments, **named)


class Fp8Lm(torch.optim.Optimizer):
    """Section 2.2 of 2310.18313 in torch's float8_e4m3fn and float16, a power of two for each tensor."""

    def __init__(self, params, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @staticmethod
    def stored(numbers, dtype):
        largest = numbers.abs().max().double()
        scale = 2.0 ** torch.floor(torch.log2(torch.finfo(dtype).max / largest)).item() if largest > 0 else 1.0
        return (numbers * scale).to(dtype), scale

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            (beta1, beta2), rate = group["betas"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                gradient, scale = self.stored(p.grad, torch.float8_e4m3fn)
                gradient = gradient.float() / scale
                state = self.state[p]
                count = state["count"] = state.get("count", 0) + 1
                first = state["first"][0].float() / state["first"][1] if count > 1 else torch.zeros_like(p)
                second = state["second"][0].float() / state["second"][1] if count > 1 else torch.zeros_like(p)
                first = first * beta1 + gradient * (1 - beta1)
                second = second * beta2 + gradient * gradient * (1 - beta2)
                p.mul_(1 - rate * group["weight_decay"])
                p.sub_(first / (second.sqrt() / (1 - beta2**count) ** 0.5 + group["eps"]) * (rate / (1 - beta1**count)))
                state["first"], state["second"] = self.stored(first, torch.float8_e4m3fn), self.stored(second, torch.float16)


class Split:
    """One optimizer for hidden matrices, another for the rest."""

    def __init__(self, groups, matrices, rest):
        def is_matrix(group):
            return group["params"][0].dim() == 2 and "embed_tokens" not in group["name"] and "lm_head" not in group["name"]

        self.parts = [matrices([g for g in groups if is_matrix(g)]), rest([g for g in groups if not is_matrix(g)])]
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self):
        for part in self.parts:
            part.step()


def muon(groups, lr, betas=(0.9, 0.95), weight_decay=0.1, **arguments):
    torch.Tensor.bfloat16 = torch.Tensor.clone  # torch's iteration in float32
    return Split(groups, lambda part: torch.optim.Muon(part, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw", **arguments),
                 lambda part: torch.optim.AdamW(part, lr=lr, betas=betas, weight_decay=weight_decay))


def galore(groups, lr, betas=(0.9, 0.999), weight_decay=0.0, **arguments):
    return Split(groups, lambda part: AuthorsGaLore(part, lr=lr, betas=betas, weight_decay=weight_decay, **arguments),
                 lambda part: torch.optim.AdamW(part, lr=lr, betas=betas, eps=1e-6, weight_decay=weight_decay))


OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "lion": bitsandbytes.optim.Lion,
    "lion_of_the_paper": PaperLion,
    "adafactor": ScaledAdafactor,
    "adam8bit": Adam8bit,
    "fp8_lm": Fp8Lm,
    "sophia": PublishedSophia,
    "muon": muon,
    "schedule_free": AuthorsScheduleFree,
    "galore": galore,
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

    def take_gradients(defined):
        for tensor, there in zip(tensors, defined):
            tensor.grad = take(tensor.shape) if there else None

    def put_tensors():
        for tensor in tensors:
            sys.stdout.buffer.write(tensor.detach().numpy().tobytes())

    for step, (rate, defined, for_hessian) in enumerate(zip(header["rates"], header["defined"], header["for_hessian"])):
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        take_gradients(defined)
        optimizer.step()
        put_tensors()
        assert (for_hessian is not None) == (hasattr(optimizer, "wants_hessian") and optimizer.wants_hessian(step)), step
        if for_hessian:
            take_gradients(for_hessian)
            optimizer.update_hessian()
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    put_tensors()
    assert at == len(numbers)


main()
