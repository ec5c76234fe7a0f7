"""A decoder with the residual stream of a method of initialization, from the papers' formulas.

run_initialized.py METHOD DIR TOKENS.safetensors LOGITS.safetensors [METHOD ...]
    METHOD  deepnorm (2203.00555: norm(alpha x + f(x)), alpha by depth), rezero and skipinit (2003.04887, 2002.10444: x + a f(x), no norms), fixup (x + f(x), no norms)
    DIR     a model that frugal wrote; of its config.json only what Llama has and the scale of the embedding is read
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import linear, scaled_dot_product_attention, silu


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


def rotated(x, theta):
    half = x.shape[-1] // 2
    angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float64), theta ** (-torch.arange(half, dtype=torch.float64) / half))
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat((x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin), -1)


def logits(method, directory, tokens):
    config = json.loads((Path(directory) / "config.json").read_text())
    w = {name: tensor.double() for name, tensor in load_file(Path(directory) / "model.safetensors").items()}
    heads, kv_heads, layers = config["num_attention_heads"], config["num_key_value_heads"], config["num_hidden_layers"]
    theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
    alpha = (2 * layers) ** 0.25
    x = w["model.embed_tokens.weight"][tokens] * config["embedding_scale"]
    for i in range(layers):
        block = f"model.layers.{i}."

        def attention(x):
            q, k, v = (linear(x, w[f"{block}self_attn.{name}_proj.weight"]).view(len(tokens), count, -1).transpose(0, 1)
                       for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)))
            k, v = (t.repeat_interleave(heads // kv_heads, 0) for t in (k, v))
            out = scaled_dot_product_attention(rotated(q, theta), rotated(k, theta), v, is_causal=True)
            return linear(out.transpose(0, 1).flatten(1), w[block + "self_attn.o_proj.weight"])

        def mlp(x):
            return linear(silu(linear(x, w[block + "mlp.gate_proj.weight"])) * linear(x, w[block + "mlp.up_proj.weight"]), w[block + "mlp.down_proj.weight"])

        for f, norm, scale in ((attention, "input_layernorm", "self_attn"), (mlp, "post_attention_layernorm", "mlp")):
            if method == "deepnorm":
                x = rms_norm(alpha * x + f(x), w[f"{block}{norm}.weight"], config["rms_norm_eps"])
            elif method == "fixup":
                x = x + f(x)
            else:
                x = x + w[f"{block}{scale}.branch_scale"] * f(x)
    return linear(x, w["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"])


def main():
    for method, directory, tokens, out in zip(*(sys.argv[i::4] for i in range(1, 5))):
        save_file({"logits": logits(method, directory, load_file(tokens)["tokens"].long()).float().contiguous()}, out)


main()
