"""Tokenizers that `tokenizers` trains, for the tests of our trainers.

usage: make_trained_tokenizers.py CASES.json
CASES is a list of {"out": path to write, "type": "bpe" or "unigram", "files": [...], "pattern": "gpt2" or "llama3", "normalization": ...,
"byte_fallback": bool, and any of the trainer's own arguments}; `initial_alphabet` may be "bytes".
"""
import json
import sys

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train(case):
    out, kind, files = case.pop("out"), case.pop("type"), case.pop("files")
    pattern, normalization, byte_fallback = case.pop("pattern", "gpt2"), case.pop("normalization", "none"), case.pop("byte_fallback", False)
    special = case.get("special_tokens", [])
    if kind == "bpe":
        tokenizer = Tokenizer(models.BPE(ignore_merges=pattern == "llama3"))
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern == "gpt2")
        tokenizer.pre_tokenizer = byte_level if pattern == "gpt2" else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        if case.get("initial_alphabet") == "bytes":
            case["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(show_progress=False, **case)
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        if byte_fallback:
            case["special_tokens"] = special + [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.UnigramTrainer(show_progress=False, **case)
    if normalization != "none":
        tokenizer.normalizer = {"nfc": normalizers.NFC, "nfkc": normalizers.NFKC}[normalization]()
    tokenizer.train(files, trainer)
    tokenizer.save(out)


if __name__ == "__main__":
    with open(sys.argv[1]) as f:
        for case in json.load(f):
            train(case)
