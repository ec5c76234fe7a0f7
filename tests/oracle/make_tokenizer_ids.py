"""Tokenizers trained or given, and the ids that `tokenizers` and sentencepiece give for random texts.

usage: make_tokenizer_ids.py train OUT_DIR SEED     trains tiny ones: OUT_DIR/*.json (tokenizers), OUT_DIR/*.model
       make_tokenizer_ids.py ids OUT_DIR COUNT SEED FILE ...
For each FILE (tokenizer.json or .model) OUT_DIR/<file name>.ids.json holds, in the order of OUT_DIR/texts.json,
{"plain": ids without special tokens, "full": ids with them and special tokens of the text parsed, "text": decoded plain}.
"""
import json
import os
import random
import sys

from make_tokenizer_cases import RANGES, random_text


def corpus(seed):
    rng = random.Random(seed)
    words = ["the", "The", "quick", "brown", "foxes", "jumped", "over", "lazy", "dogs", "don't", "we'll", "caf\u00e9", "na\u00efve", "\u041f\u0440\u0438\u0432\u0435\u0442",
             "\u4e16\u754c", "\u4f60\u597d", "\u3053\u3093\u306b\u3061\u306f", "12", "345", "6789", "3.14", "hello", "world", "low", "lower", "lowest", "new",
             "newer", "\ud55c\uad6d\uc5b4", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0645\u0631\u062d\u0628\u0627", "x=1;", "(a+b)", "...", "\U0001F600"]
    return [" ".join(rng.choice(words) for _ in range(rng.randint(3, 20))) + rng.choice(["", ".", "\n", "!\n"]) for _ in range(3000)]


def train(out, seed):
    import sentencepiece
    from tokenizers import (Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers, AddedToken)
    lines = corpus(seed)

    def byte_level(name, pre, **model):
        t = Tokenizer(models.BPE(**model))
        t.pre_tokenizer = pre
        t.decoder = decoders.ByteLevel()
        t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                         special_tokens=["<s>", "</s>", "<|im_end|>"], show_progress=False))
        t.add_tokens([AddedToken("  ", normalized=False), AddedToken("ABC", normalized=True), AddedToken("lowest", single_word=True)])
        t.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", t.token_to_id("<s>"))])
        return t

    sequence, split, level = pre_tokenizers.Sequence, pre_tokenizers.Split, pre_tokenizers.ByteLevel
    patterns = {
        "llama3": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
        "qwen2": [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
        "tekken": [r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
        "deepseek3": [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
                      r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""],
        "spaces": [r"\s+$"],
        "digit_groups": [r"\d{1,3}(?=(?:\d{3})*\b)"],
        "unknown": [r"\w+\s?|\p{P}\b|[^\w]"],
    }
    for name, regexes in patterns.items():
        t = byte_level(name, sequence([split(Regex(r), "isolated") for r in regexes] + [level(add_prefix_space=False, use_regex=False)]))
        if name == "qwen2":
            t.normalizer = normalizers.NFC()
        t.save(os.path.join(out, f"bytelevel_{name}.json"))
    byte_level("gpt2", level(add_prefix_space=True)).save(os.path.join(out, "bytelevel_gpt2.json"))
    byte_level("smollm", sequence([pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)])).save(os.path.join(out, "bytelevel_smollm.json"))
    falcon = sequence([pre_tokenizers.Punctuation("contiguous"), level(add_prefix_space=False), pre_tokenizers.Digits(), split(Regex("[0-9][0-9][0-9]"), "isolated")])
    byte_level("falcon", falcon).save(os.path.join(out, "bytelevel_falcon.json"))
    for behavior in ["removed", "merged_with_previous", "merged_with_next", "contiguous"]:
        byte_level(behavior, sequence([split(Regex(r"\s"), behavior), level(add_prefix_space=False, use_regex=False)])).save(
            os.path.join(out, f"bytelevel_{behavior}.json"))

    for name, pre in {"bert": pre_tokenizers.BertPreTokenizer(), "whitespace": pre_tokenizers.Whitespace()}.items():
        t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        t.normalizer, t.pre_tokenizer, t.decoder = normalizers.BertNormalizer(), pre, decoders.WordPiece()
        t.train_from_iterator(lines, trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
        t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        t.save(os.path.join(out, f"wordpiece_{name}.json"))

    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Lowercase(), normalizers.StripAccents()])
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=300, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False))
    t.save(os.path.join(out, "unigram.json"))

    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False, fuse_unk=True, end_of_word_suffix="</w>"))
    t.normalizer, t.pre_tokenizer, t.decoder = normalizers.Strip(), pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder()
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False))
    t.save(os.path.join(out, "bpe_word_end.json"))

    text = os.path.join(out, "corpus.txt")
    with open(text, "w") as f:
        f.write("\n".join(line.strip() for line in lines))
    for name, options in {"bpe": dict(model_type="bpe", byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False, vocab_size=700),
                          "bpe_nobytes": dict(model_type="bpe", vocab_size=400, user_defined_symbols=["ABC", "fox"]),
                          "unigram": dict(model_type="unigram", vocab_size=350, user_defined_symbols=["ABC"]),
                          "unigram_bytes": dict(model_type="unigram", vocab_size=600, byte_fallback=True, normalization_rule_name="nmt_nfkc_cf")}.items():
        sentencepiece.SentencePieceTrainer.train(input=text, model_prefix=os.path.join(out, "sp_" + name), character_coverage=0.99, minloglevel=2,
                                                 hard_vocab_limit=False, **options)


def ids_of(path, texts):
    if path.endswith(".model"):
        import sentencepiece
        sp = sentencepiece.SentencePieceProcessor(model_file=path)
        return [{"plain": sp.encode(t), "text": sp.decode(sp.encode(t))} for t in texts]
    from tokenizers import Tokenizer
    t = Tokenizer.from_file(path)
    result = []
    for text in texts:
        t.encode_special_tokens = True
        plain = t.encode(text, add_special_tokens=False).ids
        t.encode_special_tokens = False
        result.append({"plain": plain, "full": t.encode(text).ids, "text": t.decode(plain, skip_special_tokens=False)})
    return result


def main():
    if sys.argv[1] == "train":
        train(sys.argv[2], int(sys.argv[3]))
        return
    out, count, seed = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    rng = random.Random(seed)
    texts = ["", " ", "  ", "a", "\n"] + [random_text(rng) for _ in range(count)]
    with open(os.path.join(out, "texts.json"), "w") as f:
        json.dump(texts, f)
    for path in sys.argv[5:]:
        with open(os.path.join(out, os.path.basename(path) + ".ids.json"), "w") as f:
            json.dump(ids_of(path, texts), f)


if __name__ == "__main__":
    main()
