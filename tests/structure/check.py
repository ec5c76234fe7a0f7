"""The structure guards: rules of the architecture that a machine can check. Run by scripts/test, or alone:

    .venv/bin/python -m pytest -q tests/structure/check.py

A guard lists every place that breaks its rule, as FILE:LINE and what is wrong.
"""
import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
BINARY = ROOT / "build/frugal"

# The folders in the order of their rank, and which others each may include (architecture, section 1).
METHOD_FOLDERS = ["quantize", "prune", "lowrank", "share", "distill", "tune", "select", "prompt"]
INCLUDES = {
    "base": [],
    "formats": ["base"],
    "text": ["base"],
    "kernels": ["base", "formats"],
    "io": ["base", "formats"],
    "dist": ["base"],
    "ops": ["base", "formats", "kernels"],
    "nn": ["base", "formats", "ops", "io", "dist"],
    # Wider than the architecture says: a loaded model comes with its tokenizer and template, and block formats are named there.
    "models": ["base", "text", "formats", "io", "nn"],
    "data": ["base", "text", "io"],
    "engine": ["base", "text", "formats", "ops", "io", "nn", "dist"],
    "chain": ["base", "text", "formats", "ops", "io", "nn", "data", "engine"],
}
BELOW_EVAL = [folder for folder in INCLUDES if folder != "models"]
INCLUDES["eval"] = BELOW_EVAL
INCLUDES["train"] = BELOW_EVAL + ["eval"]
for folder in METHOD_FOLDERS:
    INCLUDES[folder] = BELOW_EVAL + ["eval", "train"]
INCLUDES["serve"] = ["base", "text", "io", "nn", "engine", "chain", "prompt"]
for folder in ("search", "claims"):
    INCLUDES[folder] = BELOW_EVAL + ["eval", "train"] + METHOD_FOLDERS
INCLUDES["cli"] = list(INCLUDES)

TORCH_FREE = ["base", "formats", "text", "kernels", "io", "data", "serve/http"]
DEVICE_FOLDERS = ["kernels", "ops", "dist"]
MAX_LINES = 600
MAX_FUNCTION_LINES = 80
CODE_FOLDERS = ["src", "testing", "tests", "scripts", "bench", "fuzz", "python", "web"]
CODE_SUFFIXES = {".cpp", ".h", ".cu", ".py", ".html", ".css", ".js", ".mjs", ".ts", ".tsx", ".sh", ".cmake", ""}
NOT_WRITTEN_HERE = {"corpus", "__pycache__", "node_modules"}


def is_test(path):
    return path.stem.endswith(("_test", "_test_rows")) or path.stem.startswith("test_") or path.stem.startswith("simde_") or path.stem.endswith("_support")


def sources(suffixes=(".cpp", ".h", ".cu"), under=SRC):
    return sorted(p for p in under.rglob("*") if p.suffix in suffixes)


def folder_of(path):
    return path.relative_to(SRC).parts[0]


def at(path, line):
    return f"{path.relative_to(ROOT)}:{line}"


# Comments, texts and character literals of C++; a digit before ' is a separator in a number.
LITERAL = re.compile(r'''//[^\n]*|/\*.*?\*/|R"([^(\s]*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+\'''', re.S)


@lru_cache(maxsize=None)
def code_of(path):
    """The text of a C++ file with comments and literals blanked out, line breaks kept."""
    return LITERAL.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), path.read_text(encoding="utf-8"))


def matches(path, pattern):
    """Line numbers and texts of what `pattern` finds in the code of a file."""
    code = code_of(path)
    for match in re.finditer(pattern, code, re.M):
        yield code.count("\n", 0, match.end()) + 1, match[0].strip()


def includes_of(path):
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+([<"])([^">]+)', line)
        if match:
            yield number, match[1] == '"', match[2]


def report(problems):
    assert not problems, "\n" + "\n".join(problems)


def test_every_folder_is_in_the_include_table():
    report([f"src/{p.name}: not in the table of tests/structure/check.py" for p in SRC.iterdir() if p.is_dir() and p.name not in INCLUDES])


def test_folders_include_only_what_their_row_allows():
    problems = []
    for path in sources():
        if is_test(path):
            continue
        own = folder_of(path)
        for line, _, name in includes_of(path):
            other = name.split("/")[0]
            if other in INCLUDES and "/" in name and other != own and other not in INCLUDES[own]:
                problems.append(f"{at(path, line)}: {own}/ must not include {name}")
    report(problems)


def test_the_http_layer_uses_base_only():
    report([f"{at(path, line)}: {name}" for path in sources(under=SRC / "serve/http") for line, quoted, name in includes_of(path)
            if quoted and "/" in name and not name.startswith(("base/", "serve/http/"))])


def test_includes_in_quotes_start_at_the_root_of_src():
    problems = []
    for path in sources():
        for line, quoted, name in includes_of(path):
            in_src = name.split("/")[0] in INCLUDES and "/" in name
            if quoted and not in_src and not (ROOT / "testing" / name).is_file():
                problems.append(f'{at(path, line)}: "{name}" is not a path from the root of src/')
    report(problems)


def test_only_cli_and_tests_include_the_models():
    report([f"{at(path, line)}: {name}" for path in sources() if folder_of(path) not in ("cli", "models") and not is_test(path)
            for line, _, name in includes_of(path) if name.startswith("models/")])


def test_torch_free_folders_never_see_torch():
    report([f"{at(path, line)}: {name}" for folder in TORCH_FREE for path in sources(under=SRC / folder)
            for line, _, name in includes_of(path) if re.match(r"(torch|ATen|c10)/", name)])


def test_files_stay_short():
    problems = []
    for folder in CODE_FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix in CODE_SUFFIXES and not NOT_WRITTEN_HERE & set(path.parts) and ROOT / "web/dist" not in path.parents:
                lines = path.read_bytes().count(b"\n")
                if lines >= MAX_LINES:
                    problems.append(f"{path.relative_to(ROOT)}: {lines} lines, {MAX_LINES - 1} at most")
    report(problems)


def functions_of(lines):
    """(first line, length) of every function body: from a line that ends a signature to the brace at its own indentation."""
    head = re.compile(r"^(\s{0,2})(?!\s)(?!.*\b(?:namespace|class|struct|enum|if|for|while|switch|else|do|catch)\b).*\)[^;]*\{$")
    for first, line in enumerate(lines):
        if match := head.match(line):
            last = next((i for i in range(first + 1, len(lines)) if lines[i].startswith(match[1] + "}")), first)
            yield first + 1, last - first + 1


def test_functions_stay_short():
    assert list(functions_of(["int f(int x) {", "  for (;;) {", "  }", "}", "", "  bool g() const {", "  }"])) == [(1, 4), (6, 2)]
    report([f"{path.relative_to(ROOT)}:{line}: a function of {length} lines, {MAX_FUNCTION_LINES - 1} at most"
            for path in sources() for line, length in functions_of(path.read_text(encoding="utf-8").splitlines()) if length >= MAX_FUNCTION_LINES])


CALL = r"(?:(?<![\w.>:])|(?<!\w)std::|(?<!\w)::)"
PRINTS = CALL + r"(?:printf|fprintf|puts|fputs|putchar|vprintf|vfprintf|perror)\s*\(|std::(?:cout|cerr|clog)\b|fmt::print\b|fmt::println\b"
# A declaration `void abort(` is no call, `return abort(` is one.
ENDS = r"(?:^|[;{}()?:,=]|\breturn\b|\belse\b|std::|(?<!\w)::)\s*(?:exit|_exit|_Exit|quick_exit|abort|terminate)\s*\("


def test_nothing_prints_or_ends_the_process_outside_cli():
    problems = []
    for path in sources():
        if folder_of(path) == "cli" or is_test(path):
            continue
        problems += [f"{at(path, line)}: {text}" for pattern in (PRINTS, ENDS) for line, text in matches(path, pattern)]
    report(problems)


def test_validation_is_never_an_assert():
    report([f"{at(path, line)}: {text}" for path in sources() if not is_test(path) for line, text in matches(path, CALL + r"assert\s*\(")])


def test_numbers_are_read_strictly():
    pattern = CALL + r"(?:sto(?:i|l|ll|ul|ull|f|d|ld)|strto(?:l|ll|ul|ull|f|d|ld)|ato(?:i|l|ll|f)|sscanf)\s*\("
    report([f"{at(path, line)}: {text}" for path in sources() if not is_test(path) for line, text in matches(path, pattern)])


def test_nothing_uses_std_regex():
    report([f"{at(path, line)}: {text}" for path in sources() for line, text in matches(path, r"\bstd::(?:regex|basic_regex|regex_\w+)")])


def test_device_conditions_live_in_kernels_ops_and_dist():
    pattern = r"^\s*#\s*(?:el)?if.*\b(?:\w*CUDA\w*|\w*HIP\w*|\w*ROCM\w*|\w*METAL\w*|__AVX\w*|__SSE\w*|__x86_64__|__aarch64__|__ARM\w*)"
    report([f"{at(path, line)}: {text}" for path in sources() if folder_of(path) not in DEVICE_FOLDERS for line, text in matches(path, pattern)])


def cmake_lists():
    return [p for folder in ("src", "fuzz", "testing", "bench") for p in (ROOT / folder).rglob("CMakeLists.txt")]


def listed_sources():
    """Every source that a CMake list names, as (path, list), once for each list. Properties of a source are not a list of it."""
    for cmake in cmake_lists():
        text = re.sub(r"#[^\n]*", "", cmake.read_text(encoding="utf-8"))
        text = re.sub(r"(?:set_source_files_properties|set_property)\s*\([^)]*\)", "", text)
        for name in sorted(set(re.findall(r"(?<![\w/.$}-])[\w./-]+\.(?:cpp|cu)\b", text))):
            yield (cmake.parent / name).resolve(), cmake


def test_every_source_is_in_exactly_one_cmake_list():
    count = {}
    for path, cmake in listed_sources():
        count.setdefault(path, []).append(cmake)
    problems = [f"{path.relative_to(ROOT)}: listed in {cmakes[0].relative_to(ROOT)}, not on disk" for path, cmakes in count.items() if not path.is_file()]
    problems += [f"{path.relative_to(ROOT)}: listed {len(cmakes)} times" for path, cmakes in count.items() if len(cmakes) > 1]
    on_disk = [p for folder in ("src", "fuzz", "testing", "bench") for p in sources((".cpp", ".cu"), ROOT / folder)]
    problems += [f"{path.relative_to(ROOT)}: in no CMake list" for path in on_disk if path.resolve() not in count]
    report(problems)


def test_every_header_has_pragma_once():
    headers = [p for folder in ("src", "testing") for p in sources((".h",), ROOT / folder)]
    report([str(path.relative_to(ROOT)) for path in headers if not re.search(r"^#pragma once$", path.read_text(encoding="utf-8"), re.M)])


def test_the_namespace_is_the_folder():
    problems = []
    for path in sources():
        own = folder_of(path)
        if own == "base" or path.name == "main.cpp":
            continue
        code = code_of(path)
        if "namespace frugal" in code and not re.search(rf"namespace frugal::{own}\b", code):
            problems.append(f"{path.relative_to(ROOT)}: lacks namespace frugal::{own}")
    report(problems)


def words(name):
    return re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)


def test_tests_are_named_as_sentences():
    problems = []
    for path in sources((".cpp",)):
        if not path.stem.endswith("_test"):
            continue
        for match in re.finditer(r"^\s*(?:TYPED_)?TEST(?:_F|_P)?\s*\(\s*\w+\s*,\s*(\w+)", code_of(path), re.M):
            if len(words(match[1])) < 3:
                problems.append(f"{at(path, code_of(path).count(chr(10), 0, match.start(1)) + 1)}: {match[1]}")
    report(problems)


def test_nothing_is_left_to_do():
    marks = re.compile(r"\b(?:" + "|".join(["TO" "DO", "FIX" "ME", "X" * 3]) + r")\b")
    problems = []
    for folder in ("src", "testing", "tests", "scripts", "bench", "fuzz"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".cpp", ".h", ".cu", ".py", ".txt", ".html"} and not {"corpus", "node_modules"} & set(path.parts):
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                problems += [f"{at(path, i)}: {line.strip()}" for i, line in enumerate(lines, 1) if marks.search(line)]
    report(problems)


@pytest.fixture(scope="module")
def binary():
    if not (SRC / "cli/CMakeLists.txt").is_file():
        pytest.skip("src/cli has no CMakeLists.txt yet")
    assert BINARY.is_file(), "build/frugal is not built"
    return BINARY


def output_of(binary, *arguments):
    return subprocess.run([binary, *arguments], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout


def test_every_row_of_the_method_tables_is_complete(binary):
    problems = []
    for row in json.loads(output_of(binary, "methods", "--json")):
        problems += [f"{row['id']}: no {key}" for key in ("leaf", "arxiv", "summary") if not row.get(key)]
        problems += [f"{row['id']}: option {o['name']} has no help" for o in row["options"] if not o.get("help")]
        if not row.get("claim") and not row.get("reference"):
            problems.append(f"{row['id']}: neither a claim nor a word why it is a reference")
        stem = SRC / row["leaf"] / row["id"].replace("-", "_")
        if not Path(f"{stem}.cpp").is_file():
            problems.append(f"{row['id']}: no {stem.relative_to(ROOT)}.cpp")
        # Its tests: a file or a suite of its name in the folder, or one that names it.
        tests = [test.read_text() for test in stem.parent.glob("*_test.cpp")]
        suites = {name.lower() for test in tests for name in re.findall(r"^TEST(?:_F|_P)?\((\w+),", test, re.M)}
        named = any(f'"{row["id"]}' in test for test in tests)
        if not Path(f"{stem}_test.cpp").is_file() and row["id"].replace("-", "") not in suites and not named:
            problems.append(f"{row['id']}: no {stem.relative_to(ROOT)}_test.cpp, and no test in its folder names it")
    report(problems)


def test_the_table_of_methods_in_the_readme_is_the_generated_one(binary):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    match = re.search(r"<!-- methods: .*? -->\n(.*?)<!-- /methods -->", readme, re.S)
    assert match, "README.md has no part between <!-- methods: how it is made --> and <!-- /methods -->"
    assert match[1].strip() == output_of(binary, "methods", "--markdown").strip(), "run: build/frugal methods --markdown"


@pytest.mark.parametrize("pattern, breaking, harmless", [
    (PRINTS, ['printf("x");', "std::cout << 1;", "  std::fprintf(f);", 'fmt::print("x");'], ["fmt::format(1);", "log.printf(1);", "snprintf(b);", "// printf(1)"]),
    (ENDS, ["{ exit(1); }", "std::abort();", "  ::_exit(2);", "return std::terminate();"], ["void abort();", "engine.abort(1);", "on_exit(1);", "a->exit();"]),
    (CALL + r"assert\s*\(", ["assert(x);", "{ assert (x); }"], ["static_assert(x);", "FRUGAL_ASSERT(x);"]),
], ids=["printing", "ending", "assert"])
def test_the_guards_catch_what_they_are_for(tmp_path, pattern, breaking, harmless):
    for i, code in enumerate(breaking + harmless):
        path = tmp_path / f"{i}.cpp"
        path.write_text(f'const char* text = "exit(1); printf(2); assert(3)";\n{code}\n')
        assert bool(list(matches(path, pattern))) == (code in breaking), code


def test_every_source_is_as_clang_format_leaves_it():
    paths = [p for folder in ("src", "testing", "fuzz", "bench") for p in sources(under=ROOT / folder)]
    program = Path(sys.executable).with_name("clang-format")
    done = subprocess.run([program, "--dry-run", "--Werror", "--ferror-limit=1", *paths], capture_output=True, text=True)
    report([line.replace(f"{ROOT}/", "") for line in done.stderr.splitlines() if "error:" in line])
    assert done.returncode == 0, done.stderr
