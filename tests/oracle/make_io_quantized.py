"""Oracle for quantized checkpoints: the `compressed-tensors` package, and packers written here from the format descriptions.

write DIR   writes model folders DIR/<layout>; each has what the layout's tools write, and expected.safetensors: the weights as
            the layout's reference decodes them, by module name
check DIR.. reads each DIR (config.json, model.safetensors) with compressed-tensors and writes DIR/decoded.safetensors
"""
import json
import os
import sys

import numpy
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from compressed_tensors.utils.match import match_name
from safetensors.torch import load_file, save_file


def save(folder, config, tensors, expected):
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/config.json", "w") as file:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "quantization_config": config}, file)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder + "/model.safetensors", {"format": "pt"})
    save_file({k: v.float().contiguous() for k, v in expected.items()}, folder + "/expected.safetensors")


def grouped_parameters(weight, args, dtype):
    """Scales and zero points of plain round-to-nearest, in compressed-tensors' shapes."""
    rows, columns = weight.shape
    size = args.group_size if args.strategy == "group" else columns
    groups = weight.reshape(rows, columns // size, size)
    if args.strategy == "tensor":
        groups = weight.reshape(1, 1, -1)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    if args.symmetric:
        scale = (torch.maximum(-low, high) / ((2**args.num_bits - 1) / 2)).to(dtype)
        zero = torch.zeros_like(scale, dtype=torch.int8)
    else:
        scale = ((high - low) / (2**args.num_bits - 1)).to(dtype)
        zero = (-(2 ** (args.num_bits - 1)) - torch.round(low / scale.float())).clamp(-(2 ** (args.num_bits - 1)), 2 ** (args.num_bits - 1) - 1).to(torch.int8)
    if args.strategy == "tensor":
        scale, zero = scale.reshape(1), zero.reshape(1)
    return scale, zero


def compressed_tensors(folder, form, cases):
    tensors, expected, groups = {}, {}, {}
    compressor = BaseCompressor.load_from_registry(form)
    for i, (shape, dtype, weights, activations) in enumerate(cases):
        module = f"model.layers.{i}.mlp.up_proj"
        # The second half of the groups is found by a pattern.
        target = module if i % 2 == 0 else rf"re:.*layers\.{i}\..*_proj$"
        scheme = QuantizationScheme(targets=[target], weights=QuantizationArgs(**weights), format=form,
                                    input_activations=QuantizationArgs(**activations) if activations else None)
        weight = torch.randn(shape, generator=torch.Generator().manual_seed(i))
        if weights.get("type") == "float":
            top = {"channel": weight.abs().amax(1, keepdim=True), "tensor": weight.abs().max().reshape(1)}
            if weights["strategy"] == "block":
                r, c = weights["block_structure"]
                padded = torch.nn.functional.pad(weight, (0, -shape[1] % c, 0, -shape[0] % r))
                scale = padded.reshape(padded.shape[0] // r, r, -1, c).abs().amax((1, 3)) / 448
            else:
                scale = top[weights["strategy"]] / 448
            scale, zero = scale.to(dtype), torch.zeros_like(scale, dtype=torch.float8_e4m3fn)
        else:
            scale, zero = grouped_parameters(weight, scheme.weights, dtype)
        state = {"weight": weight.to(dtype), "weight_scale": scale, "weight_zero_point": zero}
        if activations and not activations.get("dynamic"):
            state["input_scale"] = torch.tensor([0.125 + i])
        stored = compressor.compress(state, scheme)
        for name, value in stored.items():
            if value is not None:
                tensors[f"{module}.{name}"] = value
        expected[module] = compressor.decompress(stored, scheme)["weight"]
        groups[f"group_{i}"] = scheme
    config = QuantizationConfig(config_groups=groups, format=form, quantization_status="compressed").to_dict()
    config = json.loads(json.dumps(config, default=str))
    save(folder, config, tensors, expected)


def pack(codes, bits):
    """codes [n, k] -> uint32 [n, k * bits / 32], LSB first and dense: through one long bit string per row."""
    codes = numpy.asarray(codes, dtype=numpy.uint64)
    width = -(-codes.shape[1] * bits // 32) * 32
    stream = numpy.zeros((codes.shape[0], width), dtype=numpy.uint8)
    for b in range(bits):
        stream[:, b : codes.shape[1] * bits : bits] = codes >> numpy.uint64(b) & numpy.uint64(1)
    return numpy.packbits(stream, axis=1, bitorder="little").view(numpy.uint32).view(numpy.int32)


def gptq(folder, version, quantizer="other:1"):
    for bits in (2, 3, 4, 8):
        for group, order, sym in ((32, False, True), (-1, False, False), (32, True, False)):
            rng = numpy.random.default_rng(bits)
            rows, columns = 64, 96
            size = columns if group == -1 else group
            groups = columns // size
            codes = rng.integers(0, 2**bits, (rows, columns))
            zeros = numpy.full((rows, groups), 2 ** (bits - 1)) if sym else rng.integers(0 if version == "gptq_v2" else 1, 2**bits, (rows, groups))
            scales = rng.uniform(0.01, 0.1, (rows, groups)).astype(numpy.float16)
            index = rng.permutation(numpy.arange(columns) // size) if order else numpy.arange(columns) // size
            qzeros = pack((zeros - (1 if version == "gptq" else 0)).T % 2**bits, bits)
            if quantizer.startswith("gptqmodel") and bits == 3 and version == "gptq":
                # What that package subtracts, word by word.
                offsets = numpy.resize(numpy.array([0x24924924, 0x92492492, 0x49249249], dtype=numpy.uint32), qzeros.shape[1])
                qzeros = (pack(zeros.T, bits).view(numpy.uint32) - offsets).view(numpy.int32)
            module = "model.layers.0.self_attn.q_proj"
            tensors = {"qweight": pack(codes, bits).T.copy(), "qzeros": qzeros, "scales": scales.T.copy(), "g_idx": index.astype(numpy.int32)}
            expected = (codes - zeros[:, index]) * scales.astype(numpy.float32)[:, index]
            config = {"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": order, "sym": sym, "checkpoint_format": version,
                      "meta": {"quantizer": [quantizer]}}
            name = f"{folder}/{version}-{quantizer.split(':')[0]}-{bits}-{group}-{int(order)}"
            save(name, config, {f"{module}.{k}": torch.from_numpy(v) for k, v in tensors.items()}, {module: torch.from_numpy(expected)})


def awq(folder):
    rng = numpy.random.default_rng(1)
    rows, columns, size = 64, 96, 32
    codes, zeros = rng.integers(0, 16, (columns, rows)), rng.integers(0, 16, (columns // size, rows))
    scales = rng.uniform(0.01, 0.1, (columns // size, rows)).astype(numpy.float16)

    def pack_awq(values):
        out = numpy.zeros((values.shape[0], values.shape[1] // 8), dtype=numpy.int64)
        for column in range(out.shape[1]):
            for nibble, source in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
                out[:, column] |= values[:, column * 8 + source] << (4 * nibble)
        return out.astype(numpy.uint32).view(numpy.int32)

    expected = (codes - zeros.repeat(size, 0)) * scales.astype(numpy.float32).repeat(size, 0)
    module = "model.layers.0.self_attn.q_proj"
    tensors = {"qweight": pack_awq(codes), "qzeros": pack_awq(zeros), "scales": scales}
    config = {"quant_method": "awq", "bits": 4, "group_size": size, "zero_point": True, "version": "gemm"}
    save(folder + "/awq", config, {f"{module}.{k}": torch.from_numpy(v) for k, v in tensors.items()}, {module: torch.from_numpy(expected.T.copy())})


def fp8_block(folder):
    weight = torch.randn(150, 200, generator=torch.Generator().manual_seed(1))
    scale = torch.rand(2, 2) * 0.01 + 0.01
    spread = scale.repeat_interleave(128, 0)[:150].repeat_interleave(128, 1)[:, :200]
    codes = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
    module = "model.layers.0.self_attn.q_proj"
    config = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
    save(folder + "/fp8", config, {module + ".weight": codes, module + ".weight_scale_inv": scale}, {module: codes.float() * spread})


def bitsandbytes(folder):
    rng = numpy.random.default_rng(1)
    rows, columns, block, nested = 48, 80, 64, 16
    table = numpy.linspace(-1, 1, 16, dtype=numpy.float32)
    codes = rng.integers(0, 16, rows * columns)
    blocks = rows * columns // block
    nested_map = numpy.linspace(-1, 1, 256, dtype=numpy.float32)
    absmax_codes = rng.integers(0, 256, blocks).astype(numpy.uint8)
    nested_absmax = rng.uniform(0.1, 0.2, -(-blocks // nested)).astype(numpy.float32)
    offset = 0.5
    absmax = nested_map[absmax_codes] * nested_absmax.repeat(nested)[:blocks] + numpy.float32(offset)
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "bfloat16", "shape": [rows, columns], "nested_blocksize": nested,
             "nested_dtype": "float32", "nested_offset": offset}
    module = "model.layers.0.self_attn.q_proj"
    tensors = {"weight": (codes[0::2] << 4 | codes[1::2]).astype(numpy.uint8).reshape(-1, 1), "weight.absmax": absmax_codes, "weight.quant_map": table,
               "weight.nested_absmax": nested_absmax, "weight.nested_quant_map": nested_map,
               "weight.quant_state.bitsandbytes__nf4": numpy.frombuffer(json.dumps(state).encode(), dtype=numpy.uint8).copy()}
    expected = (table[codes] * absmax.repeat(block)).reshape(rows, columns)
    other = "model.layers.0.self_attn.k_proj"
    int8 = rng.integers(-127, 128, (rows, columns)).astype(numpy.int8)
    scb = rng.uniform(1, 2, rows).astype(numpy.float32)
    every = {f"{module}.{k}": torch.from_numpy(v) for k, v in tensors.items()}
    every |= {other + ".weight": torch.from_numpy(int8), other + ".SCB": torch.from_numpy(scb), other + ".weight_format": torch.zeros(1, dtype=torch.uint8)}
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    save(folder + "/bitsandbytes", config, every, {module: torch.from_numpy(expected), other: torch.from_numpy(int8 * (scb / numpy.float32(127))[:, None])})


def write(folder):
    f16, bf16, f32 = torch.float16, torch.bfloat16, torch.float32
    packed = []
    for bits in range(2, 9):
        dtype = (f32, f16, bf16)[bits % 3]
        packed.append(((10, 96), dtype, {"num_bits": bits, "strategy": "group", "group_size": 32, "symmetric": True}, None))
        packed.append(((33, 96), f32, {"num_bits": bits, "strategy": "group", "group_size": 48, "symmetric": False}, None))
    packed.append(((7, 50), f32, {"num_bits": 3, "strategy": "channel", "symmetric": False}, None))
    packed.append(((7, 50), f16, {"num_bits": 4, "strategy": "channel", "symmetric": True}, None))
    token = {"num_bits": 8, "strategy": "token", "dynamic": True, "symmetric": True}
    static = {"num_bits": 8, "strategy": "tensor", "dynamic": False, "symmetric": True}
    packed.append(((16, 64), f16, {"num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": True}, token))
    compressed_tensors(folder + "/pack-quantized", "pack-quantized", packed)
    compressed_tensors(folder + "/int-quantized", "int-quantized", [
        ((9, 40), f32, {"num_bits": 8, "strategy": "channel", "symmetric": True}, token),
        ((9, 40), bf16, {"num_bits": 8, "strategy": "channel", "symmetric": True}, static),
        ((9, 40), f32, {"num_bits": 8, "strategy": "tensor", "symmetric": True}, static),
        ((9, 40), f32, {"num_bits": 8, "strategy": "channel", "symmetric": False}, token),
        ((9, 64), f32, {"num_bits": 4, "strategy": "group", "group_size": 16, "symmetric": True}, token)])
    fp8 = {"num_bits": 8, "type": "float", "symmetric": True}
    fp8_token, fp8_static = token | {"type": "float"}, static | {"type": "float"}
    compressed_tensors(folder + "/float-quantized", "float-quantized", [
        ((9, 40), f32, fp8 | {"strategy": "channel"}, fp8_token),
        ((9, 40), f32, fp8 | {"strategy": "tensor"}, fp8_static),
        ((256, 128), f32, fp8 | {"strategy": "block", "block_structure": [128, 64]}, fp8_token)])
    gptq(folder, "gptq")
    gptq(folder, "gptq_v2")
    gptq(folder, "gptq", "gptqmodel:4.0")
    awq(folder)
    fp8_block(folder)
    bitsandbytes(folder)


def check(folder):
    with open(folder + "/config.json") as file:
        config = QuantizationConfig.model_validate(json.load(file)["quantization_config"])
    tensors, decoded = load_file(folder + "/model.safetensors"), {}
    modules = sorted({name.rsplit(".", 1)[0] for name in tensors})
    for module in modules:
        state = {name.rsplit(".", 1)[1]: value for name, value in tensors.items() if name.rsplit(".", 1)[0] == module}
        if any(match_name(module, pattern) for pattern in config.ignore):
            assert set(state) == {"weight"}, state.keys()
            continue
        schemes = [s for s in config.config_groups.values() if any(t == "Linear" or match_name(module, t) for t in s.targets)]
        assert len(schemes) == 1, (module, schemes)
        form = schemes[0].format or config.format
        compressor = BaseCompressor.load_from_registry(form)
        wanted = set(compressor.compression_param_names(schemes[0])) - {"weight_shape"}
        assert wanted <= set(state), (wanted, state.keys())
        decoded[module] = compressor.decompress(state, schemes[0])["weight"].contiguous()
    save_file(decoded, folder + "/decoded.safetensors")


for argument in sys.argv[2:]:
    {"write": write, "check": check}[sys.argv[1]](argument)
