"""Cases for grammar_test: random regular expressions and whether Python's re.fullmatch takes a text.

usage: make_regex_cases.py --seed N --count N > cases.jsonl
A line is {pattern, texts, expected}. The texts are made from the expression's own parts, so that about half of them match.
"""
import argparse
import json
import random
import re
import signal

LETTERS = "abcXYZ019 _-.\n\u00e9\u4e2d\U0001f600"
CLASSES = ["[abc]", "[^abc]", "[a-cX-Z]", r"[\d_]", r"[^\d\s]", r"[\w-]", "[.]", "[\u00e0-\u00ff]", "[^\u00e9]", r"[\u4e00-\u9fff]", r"[\]\\]", "[a\\-c]", "[+-]"]
ATOMS = ["a", "b", "c", "X", "1", "0", " ", r"\.", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", ".", r"\n", r"\x61", r"\u00e9", "\u4e2d", "\U0001f600", r"\-", "-", "_", "{", "}", "]", "x{"]


class Draw:
    def __init__(self, rng):
        self.rng = rng

    def atom(self, depth):
        roll = self.rng.random()
        if roll < 0.25 and depth > 0:
            return self.rng.choice(["({})", "(?:{})", "(?P<n%d>{})" % self.rng.randrange(10**9)]).replace("{}", self.alternatives(depth - 1))
        return self.rng.choice(CLASSES) if roll < 0.45 else self.rng.choice(ATOMS)

    def piece(self, depth):
        atom = self.atom(depth)
        if atom in ("x{", "{") or self.rng.random() < 0.6:
            return atom
        low = self.rng.randrange(3)
        return atom + self.rng.choice(["*", "+", "?", "*?", "+?", "??", "{%d}" % low, "{%d,}" % low, "{%d,%d}" % (low, low + self.rng.randrange(4)), "{0,40}"])

    def sequence(self, depth):
        return "".join(self.piece(depth) for _ in range(self.rng.randrange(5)))

    def alternatives(self, depth):
        return "|".join(self.sequence(depth) for _ in range(self.rng.choice([1, 1, 1, 2, 3])))


def sample(rng, tree):
    """A text that the parsed expression takes, most likely."""
    out = []
    for op, argument in tree:
        name = str(op)
        if name == "LITERAL":
            out.append(chr(argument))
        elif name == "MAX_REPEAT" or name == "MIN_REPEAT":
            low, high, body = argument
            for _ in range(rng.randint(low, min(int(high), low + 3))):
                out.append(sample(rng, body))
        elif name == "SUBPATTERN":
            out.append(sample(rng, argument[3]))
        elif name == "BRANCH":
            out.append(sample(rng, rng.choice(argument[1])))
        else:
            out.append(rng.choice(LETTERS))
    return "".join(out)


class TooSlow(Exception):
    pass


def give_up(*_):
    raise TooSlow


def main():
    signal.signal(signal.SIGALRM, give_up)
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    draw = Draw(rng)
    made = 0
    while made < options.count:
        pattern = draw.alternatives(3)
        if rng.random() < 0.2:
            pattern = "^(?:" + pattern + ")$"
        try:
            compiled = re.compile(pattern, re.ASCII)
            tree = re._parser.parse(pattern, re.ASCII)
        except (re.error, OverflowError):
            continue
        texts = set()
        for _ in range(12):
            text = sample(rng, tree)[:30]
            if rng.random() < 0.4 and text:
                at = rng.randrange(len(text))
                text = text[:at] + rng.choice(["", rng.choice(LETTERS)]) + text[at + rng.randrange(2):]
            texts.add(text)
        texts = sorted(text for text in texts if "\r" not in text)
        signal.setitimer(signal.ITIMER_REAL, 0.1)  # Python backtracks
        try:
            expected = [compiled.fullmatch(text) is not None for text in texts]
        except TooSlow:
            continue
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps({"pattern": pattern, "texts": texts, "expected": expected}))
        made += 1


main()
