"""Random texts, and the ids that llama.cpp gives for them with the vocabularies of GGUF files.

usage: make_tokenizer_cases.py OUT_DIR COUNT SEED FILE.gguf ...
Writes OUT_DIR/texts.json (COUNT random Unicode strings) and per file OUT_DIR/<stem>.llama.json: for each text
{"plain": ids without special tokens, "parsed": ids with special tokens in the text parsed}.
"""
import json
import os
import random
import sys

# Code points that are assigned since Unicode 12, so that every engine agrees on their properties. U+017F and U+212A are
# left out: the case-insensitive patterns of tokenizer.json match them as s and k, llama.cpp's spelled-out ones do not.
RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0x20, 0x7E), (0xA1, 0x17E), (0x300, 0x33F), (0x391, 0x3A1), (0x3B1, 0x3C9),
          (0x410, 0x44F), (0x5D0, 0x5EA), (0x627, 0x63A), (0x660, 0x669), (0x905, 0x939), (0x93E, 0x94C), (0xE01, 0xE30),
          (0x1100, 0x1112), (0x1E00, 0x1EFF), (0x2010, 0x2027), (0x2030, 0x205E), (0x2150, 0x215E), (0x2190, 0x21FF),
          (0x2460, 0x2473), (0x3001, 0x303F), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
          (0xFF01, 0xFF5E), (0x1D400, 0x1D454), (0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x20000, 0x20FFF)]
SNIPPETS = [" ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "'s", "'LL", "'re", "1", "12", "123", "1234567", " 42", "the", " the",
            "Hello", " world", "\u00a0", "\u3000", "\u2028", "e\u0301", "\u2581", "<|im_end|>", "</s>", "<s>", "[CLS]", "...", "!!!", "--",
            "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\u0e01\u0e33", "fi\ufb01", "A", "ABC", "aBcD", "_", "\u0130", "\u00df"]


def random_text(rng):
    parts = []
    for _ in range(rng.choice([1, 2, 3, 5, 8, 13, 30])):
        if rng.random() < 0.45:
            parts.append(rng.choice(SNIPPETS))
        else:
            low, high = rng.choice(RANGES)
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.choice([1, 1, 2, 4, 7]))))
    return "".join(parts)


def llama_ids(path, texts):
    import llama_cpp
    import llama_cpp._logger as logger
    logger.logger.setLevel(50)
    model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
    return [{"plain": model.tokenize(t.encode(), add_bos=False, special=False),
             "parsed": model.tokenize(t.encode(), add_bos=False, special=True)} for t in texts]


def main():
    out, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    texts = [random_text(rng) for _ in range(count)]
    with open(os.path.join(out, "texts.json"), "w") as f:
        json.dump(texts, f)
    for path in sys.argv[4:]:
        stem = os.path.join(out, os.path.basename(path).removesuffix(".gguf"))
        with open(stem + ".llama.json", "w") as f:
            json.dump(llama_ids(path, texts), f)


if __name__ == "__main__":
    main()
