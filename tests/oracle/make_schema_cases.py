"""Cases for grammar_schema_test: random JSON Schemas with random values, and what the `jsonschema` package says of them.

usage: make_schema_cases.py --seed N --count N > cases.jsonl     a line is {schema, values, valid}
       make_schema_cases.py --check SAMPLES > wrong.jsonl        SAMPLES has lines {schema, text}; those that are wrong are printed
"""
import argparse
import json
import random
import re
import sys

import jsonschema

NAMES = ["a", "b", "ab", "c\u00e9", "d\"q", "long name", "x1", ""]
STRINGS = ["", "a", "ab", "abc", "a1", "12", "\u00e9", "\u4e2d\u6587", "\U0001f600\U0001f600", "a b", "\"", "line\n", "2024-02-29", "2023-02-29", "x" * 12]
NUMBERS = [0, 1, -1, 2, 3, 5, 7, 10, 12, 99, 100, -5, -10, -12, -100, 1000, 0.5, -0.5, 1.5, 2.25, -2.25, 0.1, 9.99, 10.01, 1e-7, 123456.789, 2**40]
PATTERNS = ["a", "^a", "b$", "^[a-c]+$", r"^\d{2,4}$", r"\d", "^(a|bc)*$", "^.{2}$", "\u00e9|\u4e2d", r"^[^\d]*$", "^$", "q"]
# The package searches names by Python's own \d.
NAME_PATTERNS = [pattern for pattern in PATTERNS if "\\d" not in pattern]
ascii_validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, {
    # \d, \w and \s as ECMAScript has them.
    "pattern": lambda validator, pattern, value, schema: [jsonschema.ValidationError("pattern")] if isinstance(value, str) and not re.search(pattern, value, re.ASCII) else [],
})



class Draw:
    def __init__(self, rng):
        self.rng = rng

    def some(self, pool, most):
        return [self.rng.choice(pool) for _ in range(self.rng.randrange(most + 1))]

    def maybe(self, schema, keyword, value, chance=0.4):
        if self.rng.random() < chance:
            schema[keyword] = value()

    def number(self):
        schema = {"type": self.rng.choice(["integer", "number", ["integer", "null"]])}
        for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            self.maybe(schema, keyword, lambda: self.rng.choice(NUMBERS), 0.3)
        return schema

    def string(self):
        schema = {"type": "string"}
        self.maybe(schema, "minLength", lambda: self.rng.randrange(4), 0.3)
        self.maybe(schema, "maxLength", lambda: self.rng.randrange(1, 13), 0.3)
        self.maybe(schema, "pattern", lambda: self.rng.choice(PATTERNS), 0.4)
        self.maybe(schema, "format", lambda: self.rng.choice(["date", "time", "date-time", "uuid", "ipv4"]), 0.1)
        return schema

    def array(self, depth):
        schema = {"type": "array"}
        self.maybe(schema, "prefixItems", lambda: [self.schema(depth - 1) for _ in range(self.rng.randrange(1, 3))], 0.3)
        self.maybe(schema, "items", lambda: self.schema(depth - 1), 0.7)
        self.maybe(schema, "minItems", lambda: self.rng.randrange(3), 0.3)
        self.maybe(schema, "maxItems", lambda: self.rng.randrange(1, 5), 0.4)
        return schema

    def object(self, depth):
        schema = {"type": "object"}
        names = self.rng.sample(NAMES, self.rng.randrange(4))
        if names:
            schema["properties"] = {name: self.schema(depth - 1) for name in names}
        self.maybe(schema, "required", lambda: self.rng.sample(names + ["x1"], self.rng.randrange(len(names) + 1)), 0.6)
        self.maybe(schema, "additionalProperties", lambda: self.rng.choice([False, False, True, self.schema(depth - 1)]), 0.6)
        self.maybe(schema, "patternProperties", lambda: {self.rng.choice(NAME_PATTERNS): self.schema(depth - 1) for _ in range(self.rng.randrange(1, 3))}, 0.2)
        self.maybe(schema, "minProperties", lambda: self.rng.randrange(3), 0.15)
        self.maybe(schema, "maxProperties", lambda: self.rng.randrange(1, 5), 0.15)
        return schema

    def schema(self, depth):
        roll = self.rng.random()
        if depth <= 0 or roll < 0.35:
            return self.rng.choice([self.number, self.string, self.number, self.string, lambda: {"type": "boolean"}, lambda: {"type": "null"}, lambda: True,
                                    lambda: {"enum": self.some(STRINGS, 3) + self.some(NUMBERS, 2) + [None]}, lambda: {"const": self.value(1)}])()
        if roll < 0.65:
            return self.object(depth)
        if roll < 0.78:
            return self.array(depth)
        if roll < 0.86:
            return {"anyOf": [self.schema(depth - 1) for _ in range(self.rng.randrange(1, 4))]}
        if roll < 0.92:
            return {"allOf": [self.schema(depth - 1) for _ in range(2)]}
        if roll < 0.95:
            return {"oneOf": [self.schema(depth - 1) for _ in range(self.rng.randrange(1, 3))]}
        if roll < 0.97:
            return {"$ref": "#/$defs/" + self.rng.choice(["one", "two"])}
        merged = {**self.string(), **self.number(), **self.object(depth)}
        merged.pop("type")
        return merged

    def whole(self):
        schema = self.schema(3)
        if isinstance(schema, dict):
            schema = {**schema, "$defs": {"one": self.schema(1), "two": self.schema(2)}}
        return schema

    def value(self, depth):
        roll = self.rng.random()
        if depth <= 0 or roll < 0.5:
            return self.rng.choice([self.rng.choice(STRINGS), self.rng.choice(NUMBERS), None, True, False])
        if roll < 0.7:
            return [self.value(depth - 1) for _ in range(self.rng.randrange(4))]
        return {name: self.value(depth - 1) for name in self.rng.sample(NAMES, self.rng.randrange(4))}

    def guided(self, schema, depth):
        """A value that has a chance to satisfy the schema."""
        if self.rng.random() < 0.1 or not isinstance(schema, dict) or depth <= 0:
            return self.value(1)
        for keyword in ("anyOf", "oneOf", "allOf"):
            if keyword in schema:
                return self.guided(self.rng.choice(schema[keyword]), depth - 1)
        if "enum" in schema:
            return self.rng.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type", "object")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object":
            known = schema.get("properties", {})
            names = [name for name in known if name in schema.get("required", []) or self.rng.random() < 0.5]
            names += [name for name in schema.get("required", []) if name not in names]
            if self.rng.random() < 0.4:
                names += [name for name in self.some(NAMES, 2) if name not in names]
            other = schema.get("additionalProperties", True)
            return {name: self.guided(known.get(name, other), depth - 1) for name in dict.fromkeys(names)}
        if kind == "array":
            first = schema.get("prefixItems", [])
            count = self.rng.randrange(schema.get("minItems", 0), 4)
            return [self.guided(first[i] if i < len(first) else schema.get("items", True), depth - 1) for i in range(count)]
        if kind == "string":
            return self.rng.choice(STRINGS)
        return {"boolean": True, "null": None}.get(kind, self.rng.choice(NUMBERS)) if kind in ("boolean", "null") else self.rng.choice(NUMBERS)


def usable(schema):
    """`jsonschema` reads \"format\" as an annotation unless told, and its checkers differ from RFC 3339: values are not judged there."""
    return '"format"' not in json.dumps(schema)


def check(path):
    checker = jsonschema.FormatChecker()

    @checker.checks("time")
    def _time(value):
        return not isinstance(value, str) or re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)", value) is not None

    @checker.checks("date-time")
    def _date_time(value):
        if not isinstance(value, str):
            return True
        date, _, time = value.partition("T")
        return checker.conforms(date, "date") and _time(time)

    for line in open(path, encoding="utf-8"):
        sample = json.loads(line)
        try:
            value = json.loads(sample["text"])
            error = jsonschema.exceptions.best_match(ascii_validator(sample["schema"], format_checker=checker).iter_errors(value))
            problem = error and str(error.message)
        except ValueError as broken:
            problem = f"not JSON: {broken}"
        if problem:
            print(json.dumps({**sample, "problem": problem}))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--check")
    options = parser.parse_args()
    if options.check:
        return check(options.check)
    rng = random.Random(options.seed)
    draw = Draw(rng)
    for _ in range(options.count):
        schema = draw.whole()
        values = []
        if usable(schema):
            for _ in range(12):
                values.append(draw.guided(schema, 4) if rng.random() < 0.8 else draw.value(2))
        try:
            validator = ascii_validator(schema)
            valid = [validator.is_valid(value) for value in values]
        except (jsonschema.exceptions._WrappedReferencingError, RecursionError):
            values, valid = [], []
        print(json.dumps({"schema": schema, "values": values, "valid": valid}))
    return None


if __name__ == "__main__":
    sys.exit(main())
