"""Makes the seeds of the fuzz targets of io/: small files that reach every branch of the readers, in fuzz/corpus/<target>/.

Run from anywhere: python fuzz/make_corpus.py. What it writes is committed; all seeds together stay below 100 KB.
"""
import json
import os
import struct

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def save(target, name, data):
    os.makedirs(f"{FOLDER}/{target}", exist_ok=True)
    with open(f"{FOLDER}/{target}/{name}", "wb") as file:
        file.write(data if isinstance(data, bytes) else json.dumps(data).encode())


def safetensors(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def text(value):
    return struct.pack("<Q", len(value)) + value


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def tensor(name, shape, kind, offset):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf(keys, tensors, data=b"", version=3):
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


save("safetensors", "empty", safetensors({}))
save("safetensors", "metadata", safetensors({"__metadata__": {"format": "pt"}}))
save("safetensors", "two", safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                                        "b.weight": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8, 16]}}, bytes(16)))
save("safetensors", "scalar", safetensors({"s": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}, "e": {"dtype": "F8_E4M3", "shape": [0, 3], "data_offsets": [8, 8]}}, bytes(8)))

scalars = [key(b"k%d" % kind, kind, struct.pack("<" + code, 1)) for kind, code in enumerate("BbHhIif?") if code != "?"]
scalars += [key(b"bool", 7, b"\1"), key(b"text", 8, text(b"llama")), key(b"u64", 10, bytes(8)), key(b"i64", 11, bytes(8)), key(b"f64", 12, bytes(8))]
arrays = [key(b"a%d" % kind, 9, struct.pack("<IQ", kind, 2) + bytes(2 * size)) for kind, size in {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}.items()]
arrays.append(key(b"strings", 9, struct.pack("<IQ", 8, 2) + text(b"a") + text(b"")))
save("gguf", "empty", gguf([], []))
save("gguf", "v2", gguf([], [], version=2))
save("gguf", "scalars", gguf(scalars, []))
save("gguf", "arrays", gguf(arrays, []))
save("gguf", "tensors", gguf([key(b"general.architecture", 8, text(b"llama"))],
                             [tensor(b"a", [2, 3], 0, 0), tensor(b"q", [32, 2], 2, 32), tensor(b"s", [], 1, 96)], bytes(98)))
save("gguf", "alignment", gguf([key(b"general.alignment", 4, struct.pack("<I", 64))], [tensor(b"a", [4], 1, 0)], bytes(64)))

plain = {"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 8,
         "intermediate_size": 128, "rms_norm_eps": 1e-5, "eos_token_id": [1, 2], "torch_dtype": "float16",
         "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}}
weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32}
group = {"targets": ["Linear"], "weights": weights}
token = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}


def quantized(config):
    return {"quantization_config": config}


def compressed(groups, form):
    return quantized({"quant_method": "compressed-tensors", "format": form, "config_groups": groups})


save("config", "plain", plain)
save("config", "nested", {"text_config": plain, "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}})
save("config", "packed", compressed({"g": group}, "pack-quantized"))
save("config", "asymmetric", compressed({"g": {**group, "weights": {**weights, "symmetric": False}}}, "pack-quantized"))
save("config", "bytes", compressed({"a": {"targets": ["re:b$"], "weights": {"num_bits": 8, "strategy": "channel"}, "input_activations": token},
                                    "b": {**group, "targets": ["m"]}}, "mixed-precision"))
save("config", "float", compressed({"g": {"targets": ["f"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}}}, "float-quantized"))
save("config", "gptq", quantized({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": "gptq", "meta": {"quantizer": ["gptqmodel:1"]}}))
save("config", "awq", quantized({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}))
save("config", "fp8", quantized({"quant_method": "fp8", "weight_block_size": [1, 64], "activation_scheme": "static"}))
save("config", "own", {"modules": {"m": {"terms": [{"kind": "low_rank", "first": {"kind": "block", "rows": 8, "columns": 64, "format": "F16"},
                                                    "second": {"kind": "grouped", "rows": 8, "columns": 64, "bits": 4, "group_size": 32, "scale_format": "F16"}}],
                                         "activation": {"kind": "per_token", "bits": 8}}}})

llama = {"general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 64, "llama.context_length": 128, "llama.feed_forward_length": [128, 96],
         "llama.attention.head_count": 8, "llama.attention.head_count_kv": [8, 4], "llama.attention.key_length": 8, "llama.rope.freq_base": 1e4,
         "llama.attention.layer_norm_rms_epsilon": 1e-5, "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.scores": [0, 1], "tokenizer.ggml.token_type": [1, 1],
         "tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.padding_token_id": 4294967295, "tokenizer.chat_template": "{{ messages }}"}
save("config", "keys", llama)
save("config", "recurrent", {**llama, "llama.ssm.state_size": 1, "llama.attention.head_count": [0, 8], "llama.expert_count": 8, "llama.expert_used_count": 2})
save("config", "blocks", compressed({"g": {"targets": ["f"], "weights": {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [8, 64]},
                                           "input_activations": {"num_bits": 8, "type": "float", "strategy": "token"}}}, "float-quantized"))

# Requests; the first byte is where http_fuzz.cpp cuts.
HOST = b"Host: x\r\n"
POST = b"POST /v1/%41/../b?c=d HTTP/1.1\r\n" + HOST
for name, request in {
    "get": b"GET /a HTTP/1.1\r\n" + HOST + b"A:  b \r\nConnection: te, close\r\n\r\n",
    "http10": b"GET http://x/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "length": POST + b"Content-Length: 5\r\nContent-Type: a/b\r\n\r\nhello",
    "chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0a\r\n0123456789\r\n0\r\nT: u\r\n\r\n",
    "pipeline": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n\r\n") * 3,
    "expect": POST + b"Expect: 100-continue\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx",
    "options": b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "connect": b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
    "both": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "utf8": b"GET /%e2%82%ac%c0%ae HTTP/1.1\r\n" + HOST + b"\r\n",
    "version": b"GET / HTTP/2.0\r\n\r\n",
    "absolute": b"GET http://[::1]:8080?q HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
}.items():
    save("http", name, b"\x11" + request)
