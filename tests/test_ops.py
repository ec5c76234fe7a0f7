"""The operators from Python, against torch's own: values, and gradients of every input."""
import pytest
import torch
import torch.nn.functional as F
from conftest import FRUGAL


@pytest.fixture(scope="module")
def ops():
    torch.ops.load_library(FRUGAL.parent / "libfrugal_ops.so")
    return torch.ops.frugal


def rotated(x, positions, cos, sin):
    half = cos.shape[1]
    c, s = cos[positions][:, None], sin[positions][:, None]
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    return torch.cat([a * c - b * s, b * c + a * s, rest], -1)


def attended(q, k, v, lengths, scale):
    out = []
    for q, k, v in zip(*(t.split(lengths) for t in (q, k, v))):
        out.append(F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v)), is_causal=True, scale=scale, enable_gqa=True).transpose(0, 1))
    return torch.cat(out)


def grouped(bits, rows, columns, group_size):
    """Random codes, the same in words of 32 bits, LSB first, and the group of each column."""
    codes = torch.randint(0, 2**bits, (rows, columns))
    words = []
    for row in codes.tolist():
        number = sum(code << i * bits for i, code in enumerate(row))
        words.append([number >> 32 * i & 0xffffffff for i in range(-(-columns * bits // 32))])
    packed = torch.tensor(words).to(torch.uint32).view(torch.int32)
    return codes, packed, torch.arange(columns) // group_size


def grouped_case(bits, rows, columns, group_size, with_zeros, device):
    codes, packed, group = (t.to(device) for t in grouped(bits, rows, columns, group_size))
    groups = int(group.max()) + 1
    inputs = [torch.randn(shape, device=device) for shape in [(6, columns), (rows, groups)] + [(rows, groups)] * with_zeros]
    ours = lambda ops, x, scales, zeros=None: ops.grouped_linear(x, packed, scales, zeros, bits, group_size)
    theirs = lambda x, scales, zeros=None: x @ ((codes - (2**(bits - 1) if zeros is None else zeros[:, group])) * scales[:, group]).T
    return inputs, ours, theirs


def cases(device):
    torch.manual_seed(3)
    draw = lambda *shape: torch.randn(shape, device=device)
    angles = torch.rand(40, 9, device=device) * 6
    positions, cos, sin = torch.randint(0, 40, (11,), device=device), angles.cos(), angles.sin()
    lengths = [5, 1, 8]
    return {
        "rms_norm": ([draw(7, 30), draw(30)], lambda ops, x, w: ops.rms_norm(x, w, 1e-5, 0.0), lambda x, w: F.rms_norm(x, (30,), w, 1e-5)),
        "rope": ([draw(11, 3, 20)], lambda ops, x: ops.rope(x, positions, cos, sin), lambda x: rotated(x, positions, cos, sin)),
        "silu": ([draw(5, 17), draw(5, 17)], lambda ops, g, u: ops.gated_activation(g, u), lambda g, u: F.silu(g) * u),
        "gelu_tanh": ([draw(5, 17), draw(5, 17)], lambda ops, g, u: ops.gated_activation(g, u, "gelu_tanh"), lambda g, u: F.gelu(g, approximate="tanh") * u),
        "attention": ([draw(14, 6, 12), draw(14, 2, 12), draw(14, 2, 12)], lambda ops, q, k, v: ops.attention(q, k, v, lengths, 0.3),
                      lambda q, k, v: attended(q, k, v, lengths, 0.3)),
        **{f"grouped {bits}": grouped_case(bits, 11, 40 + bits, 24, bits % 2 == 0, device) for bits in range(1, 9)},
    }


DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", cases("cpu"))
def test_values_and_gradients_are_those_of_torch(ops, name, device):
    inputs, ours, theirs = cases(device)[name]
    with torch.no_grad():
        torch.testing.assert_close(ours(ops, *inputs), theirs(*inputs), rtol=1e-5, atol=1e-5)
    for tensor in inputs:
        tensor.requires_grad_()
    out, want = ours(ops, *inputs), theirs(*inputs)
    torch.testing.assert_close(out, want, rtol=1e-5, atol=1e-5)
    direction = torch.randn_like(want)
    for a, b in zip(torch.autograd.grad(out, inputs, direction), torch.autograd.grad(want, inputs, direction)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_wrong_arguments_are_errors_that_say_what(ops):
    with pytest.raises(RuntimeError, match="lengths add up to 3"):
        ops.attention(torch.zeros(4, 2, 8), torch.zeros(4, 2, 8), torch.zeros(4, 2, 8), [3], 1.0)
    with pytest.raises(RuntimeError, match="silu or gelu_tanh"):
        ops.gated_activation(torch.zeros(2, 8), torch.zeros(2, 8), "swish")
    with pytest.raises(RuntimeError, match=r"scales must be \[rows, groups\], is \[3, 2\]"):
        ops.grouped_linear(torch.zeros(1, 64), torch.zeros(3, 8, dtype=torch.int32), torch.zeros(3, 2), None, 4, 64)


def test_operators_are_registered_for_cuda(ops):
    for name in ["rms_norm", "rope", "gated_activation", "attention", "grouped_linear"]:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"frugal::{name}", "CUDA")
