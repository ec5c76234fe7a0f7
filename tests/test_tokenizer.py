"""frugal tokenizer train: equal to what `tokenizers` trains on the same megabyte, and read by transformers and by frugal."""
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import FRUGAL, ROOT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
SAMPLES = ["", "Hello, world!", " two  spaces\n\nand lines\r\n", "naïve café 東京 😀 Привет", "<|im_start|>user\nhi<|im_end|>", "x = 3.14159; // don't", "a\0b\t"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """About a megabyte, and ten thousand bytes held out: Shakespeare where the shared data is, else the default text twice over with
    its words turned round."""
    shared = ROOT.parent / "shared/data/text/tinyshakespeare/input.txt"
    if shared.is_file():
        whole = shared.read_text()
    else:
        cache = os.environ.get("FRUGAL_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "frugal")
        whole = (Path(cache) / "text/calibration.txt").read_text()
        whole += "\n".join(line[::-1] for line in whole.splitlines())
    folder = tmp_path_factory.mktemp("text")
    (folder / "train.txt").write_text(whole[:-10_000])
    (folder / "held-out.txt").write_text(whole[-10_000:])
    (folder / "template.jinja").write_text(TEMPLATE)
    return folder


def train(frugal, text, out, *arguments):
    special = [argument for token in SPECIAL for argument in ("--special", token)]
    result = frugal("tokenizer", "train", text / "train.txt", "-o", out, "--held-out", text / "held-out.txt", "--json", *special, *arguments)
    assert result.code == 0, result.err
    return result.json


def expect_equal_ids(frugal, out, reference, texts):
    """tokenizers, transformers and frugal on the directory that frugal wrote, and the tokens of the tokenizer that `tokenizers` trained.
    The ids are not compared here: BPE's follow from the vocabulary, and Unigram pieces of equal score, and characters that
    came back, have them in another order."""
    ours, fast = Tokenizer.from_file(str(out / "tokenizer.json")), AutoTokenizer.from_pretrained(out)
    for i, sample in enumerate(texts):
        encoding, expected = ours.encode(sample, add_special_tokens=False), reference.encode(sample, add_special_tokens=False)
        ids, decoded = encoding.ids, reference.decode(expected.ids, skip_special_tokens=False)
        assert encoding.tokens == expected.tokens, sample
        assert fast(sample, add_special_tokens=False)["input_ids"] == ids, sample
        assert fast.decode(ids) == decoded
        if not sample or i > 12:
            continue  # a process each
        path = out.parent / "sample.txt"
        path.write_bytes(sample.encode())
        result = frugal("tokenize", "-m", out, "-f", path, "--parse-special", "--json")
        assert result.code == 0, result.err
        assert result.json["ids"] == ids and result.json["text"] == decoded


def test_bpe_is_that_of_tokenizers_and_loads_everywhere(frugal, text, tmp_path):
    out = tmp_path / "bpe"
    summary = train(frugal, text, out, "--vocab-size", 3000, "--min-frequency", 2, "--eos-token", SPECIAL[0], "--chat-template", text / "template.jinja")
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer, reference.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    reference.train([str(text / "train.txt")], trainers.BpeTrainer(vocab_size=3000, min_frequency=2, special_tokens=SPECIAL, show_progress=False,
                                                                   initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    theirs, ours = json.loads(reference.to_str())["model"], json.loads((out / "tokenizer.json").read_text())["model"]
    assert ours["vocab"] == theirs["vocab"] and ours["merges"] == theirs["merges"]
    assert summary["vocabulary"] == 3000 and summary["merges"] == len(theirs["merges"]) == 3000 - 256 - len(SPECIAL)
    assert summary["bytes"] == (text / "train.txt").stat().st_size and summary["seconds"] > 0
    held_out = (text / "held-out.txt").read_text()
    assert summary["bytes_per_token"] == pytest.approx(len(held_out.encode()) / len(reference.encode(held_out).ids))
    lines = held_out.splitlines(keepends=True)
    expect_equal_ids(frugal, out, reference, [*SAMPLES, *random.Random(1).sample(lines, min(len(lines), 100))])
    fast = AutoTokenizer.from_pretrained(out)
    assert fast.eos_token == SPECIAL[0] and set(SPECIAL) <= set(fast.all_special_tokens)
    assert fast.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "<|im_start|>user\nhi<|im_end|>\n"


def test_unigram_is_that_of_tokenizers_and_loads_everywhere(frugal, text, tmp_path):
    out = tmp_path / "unigram"
    summary = train(frugal, text, out, "--type", "unigram", "--vocab-size", 2000)
    reference = Tokenizer(models.Unigram())
    reference.pre_tokenizer, reference.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    reference.train([str(text / "train.txt")], trainers.UnigramTrainer(vocab_size=2000, special_tokens=[*SPECIAL, "<unk>"], unk_token="<unk>",
                                                                       show_progress=False))
    theirs, ours = (json.loads(t)["model"]["vocab"] for t in (reference.to_str(), (out / "tokenizer.json").read_text()))
    assert summary["vocabulary"] == len(ours) == 2000 and {p for p, _ in ours} == {p for p, _ in theirs}
    # Characters that training dropped come back near the lowest score, in the order of a hash table there.
    lowest, scores = min(s for _, s in theirs), dict(theirs)
    for piece, score in ours:
        assert score == pytest.approx(scores[piece], abs=0.02 if len(piece) == 1 and score < lowest + 0.02 else 1e-6), piece
    lines = (text / "held-out.txt").read_text().splitlines(keepends=True)
    expect_equal_ids(frugal, out, reference, ["Hello there", " two  spaces\n", *random.Random(1).sample(lines, min(len(lines), 100))])


def test_byte_fallback_writes_every_character(frugal, text, tmp_path):
    out = tmp_path / "unigram"
    train(frugal, text, out, "--type", "unigram", "--vocab-size", 1500, "--byte-fallback")
    ours, fast = Tokenizer.from_file(str(out / "tokenizer.json")), AutoTokenizer.from_pretrained(out)
    for sample in ("naïve 東京 😀", "Hello there, 世界"):
        result = frugal("tokenize", "-m", out, "-p", sample, "--json").json
        assert result["ids"] == ours.encode(sample).ids == fast(sample)["input_ids"]
        assert result["text"] == sample == fast.decode(result["ids"])
        assert ours.token_to_id("<unk>") not in result["ids"]


@pytest.mark.parametrize("arguments, code, message", [
    (["--type", "unigram", "--pattern", "llama3"], 2, "--pattern is an option of --type bpe"),
    (["--byte-fallback"], 2, "--byte-fallback is an option of --type unigram"),
    (["--special", SPECIAL[0]], 2, "named twice"),
    (["--type", "unigram", "--vocab-size", "20"], 2, "cannot hold"),
    (["--pattern", "gtp2"], 2, "gtp2"),
    (["--chat-template", "BROKEN"], 2, "broken.jinja"),
    (["--held-out", "/absent"], 1, "/absent"),
    (["LATIN1"], 1, "latin1.txt: byte 3 (line 1) is not UTF-8"),
])
def test_what_cannot_be_is_refused_and_leaves_nothing(frugal, text, tmp_path, arguments, code, message):
    out, files = tmp_path / "out", tmp_path / "files"
    out.mkdir(), files.mkdir()
    (files / "latin1.txt").write_bytes("caf\xe9 au lait".encode("latin1"))
    (files / "broken.jinja").write_text("{% if %}")
    given = [str(files / {"BROKEN": "broken.jinja", "LATIN1": "latin1.txt"}[a]) if a in ("BROKEN", "LATIN1") else a for a in arguments]
    special = [argument for token in SPECIAL for argument in ("--special", token)]
    result = frugal("tokenizer", "train", text / "train.txt", "-o", out / "tokenizer", *special, *given)
    assert result.code == code and message in result.err, result.err
    assert list(out.iterdir()) == []


def test_an_output_is_replaced_only_if_it_is_a_tokenizer_and_may_be(frugal, text, tmp_path):
    command = ["tokenizer", "train", text / "held-out.txt", "-o", tmp_path / "out", "--vocab-size", 300]
    assert frugal(*command).code == 0
    refused = frugal(*command)
    assert refused.code == 2 and "--overwrite" in refused.err
    assert frugal(*command, "--overwrite").code == 0
    (tmp_path / "out/model.safetensors").write_bytes(b"weights")
    refused = frugal(*command, "--overwrite")
    assert refused.code == 2 and "model.safetensors" in refused.err
    assert (tmp_path / "out/model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_ctrl_c_leaves_nothing(text, tmp_path, kind):
    many, letters = tmp_path / "many.txt", random.Random(2)
    with open(many, "w") as file:
        for _ in range(200_000):
            file.write(" ".join("".join(letters.choices("abcdefghijklmnop", k=letters.randint(3, 12))) for _ in range(6)) + "\n")
    out = tmp_path / "out"
    out.mkdir()
    work = subprocess.Popen([FRUGAL, "tokenizer", "train", many, "-o", out / "tokenizer", "--type", kind], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not list(out.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(out.iterdir()), "the work has begun"
    time.sleep(1)
    work.send_signal(signal.SIGINT)
    _, err = work.communicate(timeout=60)
    assert work.returncode == 130 and b"interrupted" in err
    assert list(out.iterdir()) == []
