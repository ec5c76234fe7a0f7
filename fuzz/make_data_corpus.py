"""Makes the seeds of the fuzz targets parquet and peft: small files of every codec, encoding and page version, and adapters as peft configures them.

Run from anywhere with the tests' Python: .venv/bin/python fuzz/make_data_corpus.py. What it writes is committed.
"""
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
from make_corpus import save

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
TABLE = pa.table({"text": ["a", None, "bb", "a"], "n": pa.array([1, 2, None, 1 << 40]),
                  "messages": pa.array([[{"role": "user", "content": "x"}], [], None, [{"role": "user", "content": None}, {"role": "assistant", "content": "y"}]], pa.list_(MESSAGE))})
MANY = pa.table({"text": ["same"] * 300, "n": pa.array(list(range(300)), pa.int32())})


def parquet(name, table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    save("parquet", name, file.getvalue())


for codec in ("none", "snappy", "gzip", "zstd"):
    parquet(codec, TABLE, compression=codec)
parquet("plain", TABLE, compression="none", use_dictionary=False)
parquet("pages2", TABLE, compression="snappy", data_page_version="2.0")
parquet("small-pages", MANY, compression="none", data_page_size=64, row_group_size=100)
parquet("runs", MANY, compression="none", store_schema=False, write_statistics=False)
parquet("delta", MANY, compression="none", use_dictionary=False, column_encoding={"n": "DELTA_BINARY_PACKED"})
parquet("types", pa.table({"text": [b"\xff"], "n": pa.array([True])}), compression="none")
parquet("floats", pa.table({"n": pa.array([1.5, None], pa.float32()), "text": pa.array(["a", "b"], pa.large_string())}), compression="none")
parquet("empty", TABLE.slice(0, 0), compression="none")

LORA = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "m", "r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"], "bias": "none"}
for name, config in {
    "lora": LORA,
    "dora": {**LORA, "use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {**LORA, "rank_pattern": {"q_proj": 4, "^layers.0": 2}, "alpha_pattern": {"v_proj": 32}, "exclude_modules": "lm_head", "target_modules": ".*(q|v)_proj"},
    "layers": {**LORA, "layers_to_transform": [0, 2], "layers_pattern": "layers"},
    "qalora": {**LORA, "use_qalora": True, "qalora_group_size": 16},
    "ia3": {"peft_type": "IA3", "target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "vera": {"peft_type": "VERA", "r": 16, "target_modules": ["q_proj"], "projection_prng_key": 7, "save_projection": False, "d_initial": 0.1},
    "adalora": {"peft_type": "ADALORA", "target_r": 4, "init_r": 8, "tinit": 1, "tfinal": 2, "deltaT": 1, "total_step": 10, "target_modules": ["q_proj"], "beta1": 0.85, "beta2": 0.85,
                "orth_reg_weight": 0.5, "rank_pattern": {"model.layers.0.q_proj.lora_E": [True, False]}},
    "prompt": {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "token_dim": 64, "num_layers": 2, "num_attention_heads": 4, "num_transformer_submodules": 1},
    "prefix": {"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 4, "token_dim": 64, "num_layers": 2, "num_attention_heads": 4, "prefix_projection": False, "encoder_hidden_size": 64},
    "bottleneck": {"peft_type": "BOTTLENECK", "bottleneck_size": 64, "non_linearity": "tanh", "scaling": 1.0, "use_parallel_adapter": True, "adapter_dropout": 0.0, "target_modules": ["down_proj"]},
    "bias": {**LORA, "bias": "all"},
    "saved": {**LORA, "modules_to_save": ["lm_head"]},
}.items():
    save("peft", name, json.dumps(config).encode())
