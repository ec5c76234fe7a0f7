"""Golden files for src/formats: what other people's code says about the formats. Usage: make_formats_golden.py FOLDER SEED

decode/ID.in, decode/ID.out   random blocks and the floats that `gguf` (GGUF types) or torch (FP8) make of them
encode/floats.in, encode/ID.out   weights and the bytes that `gguf` makes of them, for the formats it encodes
number/NAME.*   exhaustive decoding of 8 and 16-bit floats, and encoding at and around every rounding boundary
pack/*   bit-packed codes and masks (compressed-tensors)
"""
import importlib.util
import pathlib
import sys

import gguf
import numpy as np
import torch

folder = pathlib.Path(sys.argv[1])
rng = np.random.default_rng(int(sys.argv[2]))
Type = gguf.GGMLQuantizationType


def write(name, array):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.ascontiguousarray(array).tobytes())


def decode_q8_k(blocks):  # gguf has no decoder for it; the layout is float scale, 256 codes, 16 sums
    scale = blocks[:, :4].copy().view(np.float32)
    return scale * blocks[:, 4:260].view(np.int8).astype(np.float32)


def torch_decode(dtype):
    return lambda data: torch.from_numpy(data.copy()).view(dtype).float().numpy()


DECODERS = {
    "F64": (1, 8, lambda b: b.view(np.float64).astype(np.float32)),
    "Q8_K": (256, 292, decode_q8_k),
    "F8_E4M3": (1, 1, torch_decode(torch.float8_e4m3fn)),
    "F8_E5M2": (1, 1, torch_decode(torch.float8_e5m2)),
    "F8_E8M0": (1, 1, torch_decode(torch.float8_e8m0fnu)),
}
for type in Type:
    if type.name in DECODERS:
        continue
    size, bytes_ = gguf.GGML_QUANT_SIZES[type]
    try:
        gguf.quants.dequantize(np.zeros((1, bytes_), np.uint8), type)
    except NotImplementedError:
        continue
    DECODERS[type.name] = (size, bytes_, lambda b, type=type: gguf.quants.dequantize(b, type))

# F16 scale fields (offset in the block) that get a usual size in half of the blocks; all other bits are random in all.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2],
          "Q5_K": [0, 2], "Q6_K": [208], "TQ1_0": [52], "TQ2_0": [64], "IQ4_NL": [0], "IQ4_XS": [0], "IQ2_XXS": [0], "IQ2_XS": [0],
          "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ1_S": [0]}
np.seterr(all="ignore")
for name, (size, bytes_, decode) in DECODERS.items():
    blocks = rng.integers(0, 256, (200 if size > 1 else 4096, bytes_), dtype=np.uint8)
    for offset in SCALES.get(name, []):
        blocks[::2, offset:offset + 2] = rng.normal(0, 0.01, (len(blocks[::2]), 1)).astype(np.float16).view(np.uint8)
    # the scales that must not trap: zero, the smallest and largest subnormal, infinity, NaN
    for row, bits in enumerate([0x0000, 0x8000, 0x0001, 0x03FF, 0x7C00, 0xFC00, 0x7E00]):
        for offset in SCALES.get(name, []):
            blocks[row, offset:offset + 2] = np.array([bits], np.uint16).view(np.uint8)
    out = decode(blocks.reshape(len(blocks), bytes_) if size > 1 else blocks.reshape(1, -1))
    assert out.dtype == np.float32, name
    write(f"decode/{name}.in", blocks)
    write(f"decode/{name}.out", out)

rows = [rng.normal(0, 0.02, (40, 256)), rng.laplace(0, 0.02, (40, 256)), rng.normal(0, 300, (4, 256)), rng.normal(0, 1e-6, (4, 256)),
        rng.integers(-1, 2, (4, 256)) * 0.37, np.abs(rng.normal(0, 1, (4, 256))), np.zeros((1, 256)), np.full((1, 256), 0.7), np.full((1, 256), -3.0)]
outlier = np.zeros((2, 256))
outlier[0, 77], outlier[1, 200] = 5.0, -5.0
floats = np.concatenate(rows + [outlier]).astype(np.float32)
write("encode/floats.in", floats)
for type in Type:
    try:
        write(f"encode/{type.name}.out", gguf.quants.quantize(floats, type))
    except NotImplementedError:
        pass

# Every 16-bit and 8-bit pattern.
half = np.arange(65536, dtype=np.uint16)
byte = np.arange(256, dtype=np.uint8)
write("number/f16.decoded", half.view(np.float16).astype(np.float32))
write("number/bf16.decoded", torch.from_numpy(half.view(np.int16).copy()).view(torch.bfloat16).float().numpy())
write("number/f8e4m3.decoded", torch.from_numpy(byte).view(torch.float8_e4m3fn).float().numpy())
write("number/f8e5m2.decoded", torch.from_numpy(byte).view(torch.float8_e5m2).float().numpy())


# Encoding: every value, every midpoint of neighbours and the floats beside it, and random bits.
def boundaries(values):
    values = np.sort(values[np.isfinite(values)]).astype(np.float64)
    middle = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    top = np.float32([values[-1] * 1.03, values[-1] * 1.0625, values[-1] * 1.08, values[-1] * 2, 3e38, np.inf])
    edge = np.concatenate([values.astype(np.float32), middle, top, -top])
    near = np.concatenate([edge, np.nextafter(edge, np.float32(np.inf)), np.nextafter(edge, np.float32(-np.inf))])
    return np.concatenate([near, rng.integers(0, 2**32, 50000, dtype=np.uint32).view(np.float32)]).astype(np.float32)


def torch_bits(x, dtype, store):
    return torch.from_numpy(x.copy()).to(dtype).view(store).numpy()


for name, values, encode in [
        ("f16", half.view(np.float16).astype(np.float32), lambda x: x.astype(np.float16).view(np.uint16)),
        ("bf16", torch.from_numpy(half.view(np.int16).copy()).view(torch.bfloat16).float().numpy(), lambda x: torch_bits(x, torch.bfloat16, torch.int16)),
        ("f8e4m3", torch.from_numpy(byte).view(torch.float8_e4m3fn).float().numpy(), lambda x: torch_bits(x, torch.float8_e4m3fn, torch.uint8)),
        ("f8e5m2", torch.from_numpy(byte).view(torch.float8_e5m2).float().numpy(), lambda x: torch_bits(x, torch.float8_e5m2, torch.uint8))]:
    x = boundaries(values)
    write(f"number/{name}.floats", x)
    write(f"number/{name}.encoded", encode(x))


# Dense bit packing: compressed-tensors' own file, without its package (whose import takes 15 s).
package = importlib.util.find_spec("compressed_tensors").submodule_search_locations[0]
spec = importlib.util.spec_from_file_location("helpers", f"{package}/compressors/pack_quantized/helpers.py")
helpers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(helpers)
for bits in range(1, 9):
    codes = torch.from_numpy(rng.integers(0, 2**bits, (5, 75)))
    signed = (codes - 2 ** (bits - 1)).to(torch.int8)
    write(f"pack/{bits}.codes", codes.to(torch.uint8).numpy())
    write(f"pack/{bits}.words", helpers.pack_to_int32(signed, bits).numpy())
    write(f"pack/{bits}.words_down_the_rows", helpers.pack_to_int32(signed, bits, packed_dim=0).numpy())
# Its sparse-bitmask is this call.
mask = rng.integers(0, 2, (5, 75)).astype(np.uint8)
write("pack/mask.bytes", mask)
write("pack/mask.packed", np.packbits(mask, axis=-1, bitorder="little"))
