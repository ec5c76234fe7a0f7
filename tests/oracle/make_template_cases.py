"""Cases for chat_template_test: templates rendered by the environment that transformers itself uses (jinja2).

usage: make_template_cases.py --seed N --count N > cases.jsonl
A line is {name, template, messages, options, expected: text or null for an error, error,
generated: what {% generation %} marks}.
Templates: the families of template_families.py, those found in installed packages, and random ones from a grammar.
"""
import argparse
import datetime
import json
import random
import sys
import warnings
from pathlib import Path

from transformers.utils import chat_template_utils

import template_families

NOW = 1_700_000_000
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "Weather of a \"city\" <now> \u00e9\u4e2d", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "description": " Name "}, "days": {"type": "integer"},
                                         "tags": {"type": "array", "items": {"type": ["string", "number"]}},
                                         "where": {"type": "object", "additionalProperties": {"type": "boolean"}}},
        "required": ["city"]}, "return": {"type": "number"}}},
    {"type": "function", "function": {"name": "stop", "description": "", "parameters": {"type": "object", "properties": {}}}},
]
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "K\u00f6ln", "days": 3, "x": 1.5, "n": None}}}
CONVERSATIONS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "Hi <|im_end|> {{ 7*7 }} {% if %}\n"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nb"}, {"role": "user", "content": "\u00e7\U0001f600 \u4e2d\u6587"}],
    [{"role": "system", "content": "s"}, {"role": "user", "content": "weather?"},
     {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "{\"t\": 21}", "tool_call_id": "abcdef123"},
     {"role": "tool", "content": "two"}, {"role": "assistant", "content": "21", "reasoning_content": "easy"}],
    [{"role": "user", "content": "w"}, {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]}],
    [{"role": "user", "content": [{"type": "text", "text": " look "}, {"type": "image"}]}],
    [{"role": "assistant", "content": "first"}, {"role": "user", "content": "second"}],
    [{"role": "user"}], [{"content": "no role"}], [], [{"role": "alien", "content": "x"}], [{"role": "user", "content": 3}],
]


def found_templates():
    """Templates of installed packages: GGUF metadata and tokenizer files."""
    site = Path(chat_template_utils.__file__).parents[2]
    for path in sorted(site.glob("*/*.gguf")):
        from gguf import GGUFReader
        field = GGUFReader(path).fields.get("tokenizer.chat_template")
        if field is not None:
            yield path.name, field.contents()
    for path in sorted(site.glob("*/**/tokenizer_config.json")):
        template = json.loads(path.read_text()).get("chat_template")
        if isinstance(template, str):
            yield str(path.relative_to(site)), template
    for path in sorted(site.glob("*/**/chat_template.jinja")):
        yield str(path.relative_to(site)), path.read_text()


class Grammar:
    """Random small templates over a handful of variables."""

    NAMES = ["messages", "m", "s", "n", "x", "items", "missing", "d", "flag", "nested", "y", "z", "ns.v"]

    def __init__(self, rng):
        self.rng = rng

    def pick(self, *options):
        return self.rng.choice(options)

    def string(self):
        return self.pick("''", "'a'", "'Hello World'", "' pad '", "'a,b,,c'", "'\\n line\\n\\nlast'", "'\u00c9t\u00e9 \u4e2d'", "'x<y>&\"'", "'%s-%s'", "'tab\\tend'",
                         "\"it's\"", "'12'", "' 3.75 '", "'aXbXc'", "'ABC def'", "'\u00df\U0001f600'")

    def number(self):
        return self.pick("0", "1", "2", "-3", "7", "10", "2.5", "-0.5", "1e3", "100", "true", "3.0", "1234567")

    def atom(self):
        r = self.rng.random()
        if r < 0.3:
            return self.string()
        if r < 0.55:
            return self.number()
        if r < 0.8:
            return self.rng.choice(self.NAMES)
        return self.pick("none", "true", "false", "[]", "[1, 2, 3]", "['b', 'a', 'C', 'b']", "{'k': 1, 'b': [2], 'A': 'x'}", "(1, 'two')", "range(4)",
                         "messages[0]", "messages[-1].content", "m.role", "m['content']", "nested.a.b", "nested['list'][1]", "loop.index", "items[0]", "[[1, 2], [3]]")

    FILTERS = ["trim", "upper", "lower", "title", "capitalize", "length", "first", "last", "list", "join", "join(', ')", "sort", "sort(reverse=true)",
               "reverse|list", "unique|list", "string", "int", "float", "abs", "round", "round(1)", "round(1, 'floor')", "default('dflt')",
               "default('dflt', true)", "d(0)", "tojson", "tojson(indent=2)", "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "replace('a', 'zz')",
               "replace('', '-')", "replace('l', 'L', 1)", "indent", "indent(2, true)", "indent('> ', blank=true)", "map('upper')|list", "map('string')|join('|')",
               "map(attribute='role')|list", "map(attribute='zip', default='-')|list", "select|list", "select('string')|list", "select('defined')|list", "reject('none')|list",
               "select('number')|list", "selectattr('role', 'equalto', 'user')|list", "rejectattr('content')|list", "selectattr('role')|list|length",
               "items|list", "dictsort", "dictsort(true, 'key', true)", "sum", "min", "max", "batch(2)|list", "batch(2, 'f')|list", "slice(2)|list",
               "truncate(7)", "truncate(7, true, '..', 0)", "wordcount", "center(12)", "count", "attr('upper')", "format(1, 2)", "striptags", "urlencode",
               "groupby('role')|list", "filesizeformat", "int(base=16)", "int(-1)", "float(1.5)", "trim('aH ')", "sum(start=2)", "last|string", "tojson(separators=(',', ':'))"]
    TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "true", "false", "mapping", "sequence", "iterable", "odd", "even",
             "divisibleby 3", "divisibleby(2)", "in [1, 2, 'a']", "eq 1", "equalto 'a'", "ne 2", "lt 3", "ge(1)", "lower", "upper", "callable", "sameas none", "== 7", "greaterthan 2"]
    METHODS = ["strip()", "lstrip('Ha ')", "rstrip()", "split()", "split(',')", "split(',', 1)", "rsplit(',', 1)", "splitlines()", "upper()", "lower()", "title()", "capitalize()",
               "swapcase()", "startswith('a')", "endswith(('c', 'd'))", "find('l')", "rfind('l')", "count('a')", "replace('a', 'b')", "replace('X', '--', 1)", "join(['p', 'q'])",
               "zfill(6)", "ljust(8, '.')", "rjust(8)", "center(9, '*')", "isdigit()", "isalpha()", "isupper()", "islower()", "isspace()", "isalnum()", "removeprefix('a')", "removesuffix('d')",
               "partition(',')", "rpartition('X')", "format(1, 'b')", "items()", "keys()|list", "values()|list", "get('k')", "get('zz', 5)", "index(2)", "append(1)", "pop()", "update({})",
               "role", "content", "k", "a.b", "missing_attr", "__class__", "isnumeric()", "splitlines(true)", "copy()", "find('o', 5)", "startswith('W', 6)"]

    def expr(self, depth=0):
        if depth > 3 or self.rng.random() < 0.3:
            return self.atom()
        e = lambda: self.expr(depth + 1)
        kind = self.rng.randrange(12)
        if kind == 0:
            return f"{e()} {self.pick('+', '-', '*', '/', '//', '%')} {e()}"
        if kind == 1:
            return f"({e()}) {self.pick('==', '!=', '<', '<=', '>', '>=', 'in', 'not in')} ({e()})"
        if kind == 2:
            return f"{e()} {self.pick('and', 'or')} {e()}"
        if kind == 3:
            return f"not {e()}"
        if kind == 4:
            return f"{e()} ~ {e()}" + (f" ~ {e()}" if self.rng.random() < 0.4 else "")
        if kind in (5, 6):
            return f"({e()})|{self.rng.choice(self.FILTERS)}"
        if kind == 7:
            return f"({e()}) is {self.pick('', 'not ')}{self.rng.choice(self.TESTS)}"
        if kind in (8, 9):
            return f"({e()}).{self.rng.choice(self.METHODS)}"
        if kind == 10:
            i = lambda: self.pick("", "0", "1", "-1", "2", "-2", "5")
            return f"({self.pick('s', 'items', 'm.content', 'nested.list', 'messages')})[{self.pick(i() + ':' + i(), i() + ':' + i() + ':' + self.pick('1', '2', '-1'), '0', '-1', chr(39) + 'k' + chr(39), '1')}]"
        return f"{e()} if {e()}" + (f" else {e()}" if self.rng.random() < 0.8 else "")

    # Expressions that fit their operators, so that most templates render.

    def typed(self, kind, depth=0):
        deep = depth > 2 or self.rng.random() < 0.25
        text, number, values, truth = (lambda k=k: self.typed(k, depth + 1) for k in ("text", "number", "list", "truth"))
        if kind == "text":
            if deep:
                return self.pick(self.string(), self.string(), "s", "nested.a.b", "m.content", "m['role']", "(messages[0].role or 'none')")
            return self.pick(
                lambda: f"{text()} ~ {self.pick(text, number, values)()}", lambda: f"({text()} + {text()})",
                lambda: f"({text()})|{self.pick('trim', 'upper', 'lower', 'title', 'capitalize', 'indent', 'indent(2, true)', chr(34).join(['replace(', 'l', ', ', 'zz', ')']), 'center(14)', 'truncate(7)', 'reverse', 'string', 'tojson', 'striptags', 'urlencode', 'first', 'last')}",
                lambda: f"({text()}).{self.pick('strip()', 'upper()', 'title()', 'swapcase()', 'zfill(9)', 'ljust(8, chr)', 'rstrip()', 'lower()', 'capitalize()', 'removeprefix(s)')}".replace("chr", "'.'"),
                lambda: f"({text()})[{self.pick('1:', ':-1', '::-1', '2:5', '::2', '-3:')}]", lambda: f"({values()})|join({self.string()})",
                lambda: f"({self.pick(text, number, values)()})|tojson", lambda: f"({text()} if {truth()} else {text()})",
                lambda: f"'%s=%r' % ({self.pick(text, number, values)()}, {text()})", lambda: f"'{{}}/{{:>6}}'.format({number()}, {text()})")()
        if kind == "number":
            if deep:
                return self.pick(self.number(), self.number(), "n", "x", "messages|length", "items[1]")
            return self.pick(
                lambda: f"({number()} {self.pick('+', '-', '*')} {number()})", lambda: f"({number()} {self.pick('/', '//', '%')} {self.pick('3', '2.5', '-7')})",
                lambda: f"({self.pick(text, values)()})|{self.pick('length', 'count')}", lambda: f"({number()})|{self.pick('abs', 'int', 'float', 'round', 'round(2)', 'round(1, quote)')}".replace("quote", "'ceil'"),
                lambda: f"({text()})|{self.pick('int', 'float', 'wordcount', 'int(7)')}", lambda: f"({text()}).{self.pick('find', 'count', 'rfind')}({self.string()})",
                lambda: f"(-{self.number()})", lambda: f"({number()} ** 2)")()
        if kind == "list":
            if deep:
                return self.pick("[]", "[1, 2, 3]", "['b', 'a', 'C', 'b']", "(1, 'two')", "range(4)|list", "items", "messages", "nested.list", "d.items()|list", "d|dictsort(true)")
            return self.pick(
                lambda: f"({text()}).split({self.pick('', chr(39) + ',' + chr(39), chr(39) + 'l' + chr(39) + ', 1')})", lambda: f"[{number()}, {text()}]",
                lambda: f"({values()})|{self.pick('list', 'reverse|list', 'map(quote)|list', 'select|list', 'batch(2)|list', 'slice(2)|list', 'unique|list', 'select(kind)|list', 'reject(kind)|list')}".replace("quote", "'string'").replace("kind", "'string'"),
                lambda: f"({values()} + {values()})" if depth > 9 else f"([{text()}] + [{number()}])", lambda: f"({values()})[{self.pick('1:', ':2', '::-1', '-2:')}]",
                lambda: f"({text()})|list", lambda: f"[{number()}, {number()}, {number()}]|sort(reverse={self.pick('true', 'false')})",
                lambda: f"[{text()}, {text()}]|sort", lambda: f"({text()}).splitlines()")()
        return self.pick(
            lambda: f"({text()} {self.pick('==', '!=', '<', '>=', 'in', 'not in')} {text()})", lambda: f"({number()} {self.pick('==', '!=', '<', '>=', '>')} {number()})",
            lambda: f"({text()} in {values()})", lambda: f"not {truth()}" if not deep else "flag", lambda: f"({self.pick(text, number, values)()} is {self.pick('', 'not ')}{self.pick('string', 'number', 'none', 'defined', 'iterable', 'sequence', 'mapping', 'integer', 'float')})",
            lambda: f"({truth()} {self.pick('and', 'or')} {truth()})" if not deep else "true", lambda: self.pick("missing is defined", "m.nothing", "messages", "flag"))()

    def either(self):
        return self.expr() if self.rng.random() < 0.25 else self.typed(self.pick("text", "text", "number", "list", "truth"))

    def printed(self):
        """An expression that is written out at once. Only there `e` and `safe` give what a plain string would: Markup, which
        text/ leaves out, would go on escaping what is joined to it."""
        if self.rng.random() < 0.15:
            return f"({self.typed(self.pick('text', 'number', 'list'))})|{self.pick('e', 'escape', 'forceescape', 'safe')}"
        return self.either()

    def text(self):
        return self.pick("", "t", " ", "\n", "\n  ", "a\n", "  b", "\t", "<|x|>", "{ }", "\n\n", "#", "\u00e9")

    def tag(self, body):
        return self.pick("{%", "{%-", "{%+", "{%") + " " + body + " " + self.pick("%}", "-%}", "%}", "+%}")

    def body(self, depth, in_loop=False):
        return "".join(self.text() + self.statement(depth, in_loop) for _ in range(self.rng.randrange(1, 3))) + self.text()

    def statement(self, depth=0, in_loop=False):
        kind = self.rng.randrange(14 if depth < 2 else 5)
        if kind <= 3:
            return self.pick("{{ ", "{{- ", "{{") + self.printed() + self.pick(" }}", " -}}", "}}")
        if kind == 4:
            return self.tag(f"set {self.pick('y', 'z', 'ns.v')} = {self.either()}")
        inner = lambda loop=in_loop: self.body(depth + 1, loop)
        if kind in (5, 6):
            middle = (self.tag(f"elif ({self.either()})") + inner() if self.rng.random() < 0.3 else "") + (self.tag("else") + inner() if self.rng.random() < 0.5 else "")
            return self.tag(f"if ({self.either()})") + inner() + middle + self.tag("endif")
        if kind in (7, 8):
            head = self.pick("for m in messages", "for x in items", "for k, v in d.items()", "for c in s", "for x in range(3) if x is odd", f"for x in {self.typed('list')}")
            skip = self.tag(self.pick("if loop.index > 1", "if loop.first", "if x == 2")) + self.tag(self.pick("break", "continue")) + self.tag("endif") if self.rng.random() < 0.3 else ""
            shown = self.pick("", "{{ loop.index }}", "{{ loop.last }}", "{{ x }}", "{{ loop.revindex0 }}{{ loop.length }}", "{{ loop.cycle('a', 'b') }}", "{{ k }}={{ v }}", "{{ loop.changed(x) }}")
            other = self.tag("else") + inner() if self.rng.random() < 0.2 else ""
            return self.tag(head) + shown + inner(True) + skip + other + self.tag("endfor")
        if kind == 9:
            return self.tag("set y") + inner(False) + self.tag("endset") + "{{ y }}"
        if kind == 10:
            default = self.pick("", "=1", "='z'")
            return self.tag(f"macro f(a, b{default})") + "{{ a }}|{{ b }}" + inner(False) + self.tag("endmacro") + self.pick("{{ f(1) }}", "{{ f('p', b=2) }}", "{{ f(1, 2, 3) }}", "{{ f(c=1) }}", "{{ f() }}")
        if kind == 11:
            return self.tag(f"filter {self.pick('upper', 'trim', 'indent(2)', 'title')}") + inner(False) + self.tag("endfilter")
        if kind == 12:
            return self.tag(f"with x = {self.either()}") + inner() + self.tag("endwith")
        return self.pick("{# c #}", "{#- c -#}", "  {# c #}\n", "{% raw %} {{ x }} {% endraw %}\n", "{%- raw -%} {% if %} {%- endraw -%} ")

    def template(self):
        return "{% set ns = namespace(v=0) %}" + self.body(0)


VARIABLES = {"s": "Hello, a World", "n": 5, "x": 2, "items": [3, 1, 2], "d": {"k": 1, "b": "two", "A": None}, "flag": False,
             "nested": {"a": {"b": "deep"}, "list": [1, "\u00e9", None, 2.5]}, "m": {"role": "user", "content": " data \n"}}


def render(template, messages, options):
    """(text, None, generation spans) or (None, error, [])."""
    try:
        compiled = chat_template_utils._compile_jinja_template(template)
        compiled.globals["strftime_now"] = lambda f: datetime.datetime.fromtimestamp(NOW).strftime(f)
        variables = {k: v for k, v in options.items() if k in ("bos_token", "eos_token", "add_generation_prompt")} | options["extra"]
        text, spans = chat_template_utils._render_with_assistant_indices(
            compiled, messages, options["tools"], None, variables.pop("add_generation_prompt"), **variables)
        text.encode()
        return text, None, spans
    except RecursionError:
        raise
    except Exception as error:  # whatever Python raises is an error of the template
        return None, f"{type(error).__name__}: {error}", []


def undecidable(text, error):
    """Results that depend on addresses in memory, or on integers without bound."""
    return (text is not None and (" object at 0x" in text or "<function" in text or "<built-in" in text or "<bound method" in text or "<Loop" in text or "Macro" in text)) or (
        error is not None and "int too large" in error)


def main():
    warnings.simplefilter("ignore", SyntaxWarning)
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    arguments = parser.parse_args()
    out = sys.stdout
    count = 0

    def emit(name, template, messages, options):
        nonlocal count
        text, error, spans = render(template, messages, options)
        if undecidable(text, error):
            return
        count += 1
        out.write(json.dumps({"name": name, "template": template, "messages": messages, "options": options, "expected": text, "error": error, "generated": "".join((text or "")[a:b] for a, b in spans)}) + "\n")

    templates = list(template_families.FAMILIES.items()) + list(found_templates())
    for name, template in templates:
        for i, messages in enumerate(CONVERSATIONS):
            for tools in (None, TOOLS):
                options = {"tools": tools, "add_generation_prompt": i % 2 == 0, "bos_token": "<s>", "eos_token": "</s>",
                           "extra": {"enable_thinking": False} if i % 3 == 0 else {}}
                emit(f"{name}/{i}", template, messages, options)
    rng = random.Random(arguments.seed)
    grammar = Grammar(rng)
    for i in range(arguments.count):
        template = grammar.template() if i % 3 else "{{ " + grammar.printed() + " }}"
        options = {"tools": None, "add_generation_prompt": False, "bos_token": "<s>", "eos_token": "</s>", "extra": VARIABLES}
        emit(f"random/{arguments.seed}/{i}", template, rng.choice(CONVERSATIONS[:5]), options)
    sys.stderr.write(f"{count} cases\n")


if __name__ == "__main__":
    main()
