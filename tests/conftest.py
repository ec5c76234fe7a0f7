"""What the end-to-end tests share: the binary, the real model, a tiny checkpoint made by transformers."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FRUGAL = ROOT / "build" / "frugal"


class Run:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="session")
def frugal():
    assert FRUGAL.is_file(), f"{FRUGAL} is not built"

    def run(*arguments, prefix=(), timeout=600, **environment):
        done = subprocess.run([*map(str, prefix), str(FRUGAL), *map(str, arguments)], capture_output=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env={**os.environ, **environment})
        return Run(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    return run


@pytest.fixture(scope="session")
def smollm2():
    cache = os.environ.get("FRUGAL_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "frugal")
    path = Path(cache) / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert path.is_file(), f"{path}: scripts/fetch-model puts it there"
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """model, a Llama with odd sizes; one-block, the same with one block; a text that is long enough to calibrate and to evaluate on."""
    folder = tmp_path_factory.mktemp("tiny")
    script = f"""
import sys, torch
sys.path.insert(0, {str(ROOT / "tests/oracle")!r})
import make_tiny_models as made
from transformers import AutoModelForCausalLM, LlamaConfig
tokenizer = made.make_tokenizer()
for name, blocks in (("model", 3), ("one-block", 1)):
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=72, intermediate_size=136, num_hidden_layers=blocks, num_attention_heads=6,
                         num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.2, tie_word_embeddings=True,
                         bos_token_id=0, eos_token_id=1)
    AutoModelForCausalLM.from_config(config).save_pretrained({str(folder)!r} + "/" + name)
    tokenizer.save_pretrained({str(folder)!r} + "/" + name)
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    (folder / "text.txt").write_text(" ".join(f"Sentence {i} says that grouped integers and sparse masks add up to {i * 7}." for i in range(400)))
    return folder


@pytest.fixture(scope="session")
def one_block(tiny):
    return tiny / "one-block"
