"""Golden files for src/formats/nf4_test.cpp, from bitsandbytes. Usage: make_nf4_golden.py FOLDER SEED"""
import os
import pathlib
import sys

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes would compile its reference kernels: 100 s

import bitsandbytes.functional as bnb
import numpy as np
import torch

folder = pathlib.Path(sys.argv[1]) / "nf4"
folder.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(int(sys.argv[2]))


def write(name, tensor):
    (folder / name).write_bytes(np.ascontiguousarray(tensor).tobytes())


# 301 x 77 gives ragged last blocks on both levels of the double quantization.
dense = torch.from_numpy(rng.normal(0, 0.02, (301, 77)).astype(np.float32))
codes, state = bnb.quantize_4bit(dense, blocksize=64, compress_statistics=True, quant_type="nf4")
write("dense", dense)
write("codes", codes)
write("magnitude_codes", state.absmax)
write("nested_magnitudes", state.state2.absmax)
write("nested_table", state.state2.code)
write("nested_offset", state.offset)
write("decoded", bnb.dequantize_4bit(codes, state))
write("table", state.code)
