"""Makes the seeds of the fuzz targets tokenizer_json and sentencepiece: tiny tokenizers that reach every section of a file.

Run from anywhere: python fuzz/make_tokenizer_corpus.py. What it writes is committed.
"""
import json
import os
import struct

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def save(target, name, data):
    os.makedirs(os.path.join(FOLDER, target), exist_ok=True)
    with open(os.path.join(FOLDER, target, name), "wb") as f:
        f.write(data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode())


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def text_field(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def number_field(field, value):
    return varint(field << 3) + varint(value)


def piece(text, score=-1.0, kind=1):
    return text_field(1, text_field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score) + number_field(3, kind))


def byte_level():
    return {
        "added_tokens": [{"id": 4, "content": "<s>", "special": True, "lstrip": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": {"a": 0, "l": 1, "o": 2, "lo": 3, "<s>": 4}, "merges": ["l o"]},
    }


def many_steps():
    result = byte_level()
    split = {"type": "Split", "pattern": {"Regex": r"(?i:'s|'t)|\p{N}{1,3}| ?[^\s\p{L}]+|\s+(?!\S)"}, "behavior": "Isolated", "invert": False}
    result["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        split, {"type": "Digits", "individual_digits": True}, {"type": "Metaspace"}, {"type": "Punctuation", "behavior": "Contiguous"}]}
    result["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, {"type": "Strip"},
        {"type": "StripAccents"}, {"type": "Prepend", "prepend": "\u2581"}]}
    result["model"].update(byte_fallback=True, unk_token="<s>", fuse_unk=True, merges=[["l", "o"]])
    result["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1}]}
    return result


def other_steps():
    result = byte_level()
    result["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "WhitespaceSplit"}, {"type": "Whitespace"}, {"type": "CharDelimiterSplit", "delimiter": "_"}, {"type": "Metaspace", "prepend_scheme": "first"},
        {"type": "Metaspace", "prepend_scheme": "never"}]}
    result["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "NFKC"}, {"type": "NFKD"}, {"type": "ByteLevel"}]}
    result["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}
    return result


def word_level():
    return {"pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}}


def main():
    save("tokenizer_json", "bpe.json", byte_level())
    save("tokenizer_json", "steps.json", many_steps())
    save("tokenizer_json", "other_steps.json", other_steps())
    save("tokenizer_json", "wordlevel.json", word_level())
    save("tokenizer_json", "unigram.json", {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}, "pre_tokenizer": {"type": "Metaspace"},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["\u2581", -2], ["lo", -1.5], ["l", -3]]},
        "decoder": {"type": "Metaspace"}})
    save("tokenizer_json", "wordpiece.json", {
        "normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "hello": 3, "##l": 4, "w": 5}},
        "decoder": {"type": "WordPiece"}})
    small = (piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("\u2581") + piece("l") + piece("o") +
             piece("lo", -0.5) + piece("He", 0, 4))
    save("sentencepiece", "bpe.model", small + text_field(2, number_field(3, 2) + number_field(41, 1) + number_field(42, 2)))
    save("sentencepiece", "unigram.model", small + text_field(2, number_field(3, 1)) + text_field(3, number_field(3, 1) + number_field(4, 1)))
    save("sentencepiece", "bytes.model", piece("<unk>", 0, 2) + b"".join(piece("<0x%02X>" % i, 0, 6) for i in range(256)) +
         text_field(2, number_field(3, 2) + number_field(35, 1)))


if __name__ == "__main__":
    main()
