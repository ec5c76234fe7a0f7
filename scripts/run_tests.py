"""Runs the project's tests and sums them up; scripts/test calls it after set-up. Only the standard library is used.

Each stage adds to one tally. A build that fails, a binary that crashes, hangs or writes no result, and a fuzzer that
finds something each count as one failure more. The last line is "N passed, N failed" (", N skipped" where some were).
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
JOBS = os.cpu_count() or 1
TEST_TIMEOUT_S = 1500
FUZZ_S = 20


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []

    def add(self, name, passed=0, failures=(), skipped=0, output="", seconds=0.0):
        self.passed += passed
        self.skipped += skipped
        self.failed += len(failures)
        self.failures += [f"{name}: {failure}" for failure in failures]
        counts = f"{passed} passed" + (f", {len(failures)} FAILED" if failures else "") + (f", {skipped} skipped" if skipped else "")
        if failures and output:
            print(output[-20000:])
        print(f"   {name:<44} {counts} ({seconds:.1f} s)", flush=True)


def say(text):
    print(f"\n== {text}", flush=True)


def run(command, timeout=TEST_TIMEOUT_S, **environment):
    """Exit code (None after a time-out), output, seconds. The child gets no standard input."""
    start = time.monotonic()
    child = subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             cwd=ROOT, env={**os.environ, **environment}, start_new_session=True)
    try:
        output, _ = child.communicate(timeout=timeout)
        code = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, 9)
        output, _ = child.communicate()
        code = None
    return code, output.decode(errors="replace"), time.monotonic() - start


def build(tally, folder, *arguments, only=None):
    """Configures (only when the arguments changed) and builds, all or what the list `only` names; a failure is one failed test."""
    say(f"building {folder}/")
    build_folder = ROOT / folder
    wanted = "\n".join([str(ROOT), *arguments])
    stamp = build_folder / "configured-with"
    output, start = "", time.monotonic()
    code = 0
    if not (build_folder / "build.ninja").is_file() or not stamp.is_file() or stamp.read_text().strip() != wanted:
        code, output, _ = run(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build_folder, *arguments])
        if code == 0:
            stamp.write_text(wanted + "\n")
    if code == 0:
        run(["ninja", "-C", build_folder, "build.ninja"])  # the lists are those of the CMake files as they are now
        targets = [os.path.relpath(binary, build_folder) for binary in listed(folder, only)] if only else []
        code, output, _ = run(["ninja", "-C", build_folder, "-j", JOBS, *targets], timeout=4 * TEST_TIMEOUT_S)
    tally.add(f"build {folder}", failures=[] if code == 0 else ["does not build"], output=output,
              seconds=time.monotonic() - start)
    return code == 0


def listed(folder, name):
    """A list that CMake exported: tests.list or fuzzers.list, one binary a line."""
    path = ROOT / folder / name
    return [Path(line) for line in path.read_text().splitlines() if line] if path.is_file() else []


def run_gtest(binary, text_filter, prefix=(), **environment):
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [*prefix, binary, f"--gtest_output=json:{result}", "--gtest_brief=1"]
        if text_filter:
            command.append(f"--gtest_filter=*{text_filter}*")
        code, output, seconds = run(command, FRUGAL_PYTHON=str(ROOT / ".venv/bin/python"), **environment)
        try:
            report = json.loads(result.read_text())
        except (OSError, ValueError):
            how = "timed out" if code is None else f"ended with {code} and wrote no result"
            return dict(failures=[how], output=output, seconds=seconds)
    passed, failures, skipped = 0, [], 0
    for suite in report["testsuites"]:
        for test in suite["testsuite"]:
            if test.get("failures"):
                failures.append(f"{suite['name']}.{test['name']}")
            elif test.get("result") == "SKIPPED":
                skipped += 1
            elif test.get("status") == "RUN":
                passed += 1
    if code != 0 and not failures:
        failures.append(f"every test passed, but the binary ended with {code}")
    return dict(passed=passed, failures=failures, skipped=skipped, output=output, seconds=seconds)


def start_gtests(pool, tally, folder, text_filter, prefix=(), **environment):
    """Every test binary of a build, as jobs of `pool`."""
    binaries = listed(folder, "tests.list")
    if not binaries:
        tally.add(folder, failures=["no test binaries"])
    return [(f"{folder}/{binary.name}", pool.submit(run_gtest, binary, text_filter, prefix, **environment)) for binary in binaries]


def collect(tally, title, jobs):
    say(title)
    for name, job in jobs:
        tally.add(**{"name": name, **job.result()})


def run_gtests(tally, title, folder, text_filter, **options):
    """As many binaries at a time as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        collect(tally, title, start_gtests(pool, tally, folder, text_filter, **options))


def run_pytest(tally, text_filter, full):
    say("structure guards and end to end")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={result}",
                   f"--numprocesses={JOBS}", "--dist=worksteal", "tests"]
        if text_filter:
            command += ["-k", text_filter]
        if not full:
            command += ["-m", "not full"]
        code, output, seconds = run(command, timeout=2 * TEST_TIMEOUT_S, FRUGAL_PYTHON=sys.executable)
        try:
            cases = list(ElementTree.parse(result).iter("testcase"))
        except (OSError, ElementTree.ParseError):
            tally.add("pytest", failures=[f"ended with {code} and wrote no result"], output=output, seconds=seconds)
            return
    failures = [f"{c.get('classname')}.{c.get('name')}" for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    if code not in (0, 1, 5) and not failures:
        failures.append(f"pytest ended with {code}")
    tally.add("pytest tests/", passed=len(cases) - len(failures) - skipped, failures=failures, skipped=skipped, output=output,
              seconds=seconds)


def run_fuzzer(binary):
    """FUZZ_S seconds on a copy of the saved corpus, so that a run leaves the tree as it was."""
    planted = binary.name.endswith("_planted_bug")  # passes when the bug is found
    corpus = ROOT / "fuzz/corpus" / binary.name.removesuffix("_planted_bug")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "corpus"
        shutil.copytree(corpus, copy) if corpus.is_dir() else copy.mkdir()
        command = [binary, f"-max_total_time={FUZZ_S}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1",
                   f"-artifact_prefix={folder}/", copy]
        code, output, seconds = run(command, timeout=FUZZ_S * 10)
        finding = next((p for p in Path(folder).iterdir() if p.is_file()), None)
        if finding and not planted:
            kept = ROOT / "build-fuzz/findings" / binary.name
            kept.mkdir(parents=True, exist_ok=True)
            output += f"\nthe input is kept as {shutil.copy(finding, kept)}\n"
    if planted:
        failures = [] if finding else ["did not find the planted bug"]
    else:
        failures = [] if code == 0 else ["found a failure" if code is not None else "timed out"]
    if not corpus.is_dir():
        failures.append(f"no saved corpus {corpus.relative_to(ROOT)}")
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    return dict(name=f"{binary.name} ({runs[1] if runs else 0} inputs)", passed=int(not failures), failures=failures, output=output,
                seconds=seconds)


def start_fuzzers(pool, text_filter):
    binaries = [b for b in listed("build-fuzz", "fuzzers.list") if text_filter in b.name]
    return [(binary.name, pool.submit(run_fuzzer, binary)) for binary in binaries]


def run_thread_sanitizer(tally, text_filter):
    # Without address randomization: gcc 12's thread sanitizer does not know the layout of newer kernels.
    prefix = ["setarch", "-R"] if run(["setarch", "-R", "true"])[0] == 0 else []
    if build(tally, "build-tsan", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1", "-DFRUGAL_TORCH_FREE=ON",
             "-DFRUGAL_STD_THREADS=ON", "-DFRUGAL_SANITIZE=thread"):
        run_gtests(tally, "unit tests under the thread sanitizer", "build-tsan", text_filter, prefix=prefix)


def main():
    arguments = argparse.ArgumentParser(prog="scripts/test", description="Builds and runs the tests.")
    arguments.add_argument("--full", action="store_true", help="also the torch folders under sanitizers, and llama.cpp")
    arguments.add_argument("--filter", default="", help="only tests whose name contains this text")
    options = arguments.parse_args()
    start, tally = time.monotonic(), Tally()
    torch = f"-DFRUGAL_TORCH={os.environ.get('FRUGAL_TORCH', '')}"
    debug = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O1 -g1"]
    # Sleeping instead of spinning at joins: several binaries share the cores.
    shared = dict(OMP_WAIT_POLICY="passive")
    if options.full:
        os.environ["FRUGAL_FULL"] = "1"

    if build(tally, "build", "-DCMAKE_BUILD_TYPE=Release", torch):
        run_gtests(tally, "unit and oracle tests", "build", options.filter, **shared)
        run_pytest(tally, options.filter, options.full)
    asan = build(tally, "build-asan", *debug, "-DFRUGAL_TORCH_FREE=ON", "-DFRUGAL_SANITIZE=address,undefined")
    fuzz = build(tally, "build-fuzz", *debug, "-DCMAKE_CXX_COMPILER=clang++", "-DFRUGAL_TORCH_FREE=ON", "-DFRUGAL_FUZZ=ON", "-DFRUGAL_TESTS=OFF",
                 "-DFRUGAL_STD_THREADS=ON", "-DFRUGAL_SANITIZE=address,undefined,fuzzer-no-link", only="fuzzers.list")
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:  # one for both: a core that the last test binary leaves idle can fuzz
        tests = start_gtests(pool, tally, "build-asan", options.filter, **shared) if asan else []
        fuzzers = start_fuzzers(pool, options.filter) if fuzz else []
        collect(tally, "torch-free folders under ASan + UBSan", tests)
        collect(tally, f"fuzzers, {FUZZ_S} s each", fuzzers)

    if options.full:
        run_thread_sanitizer(tally, options.filter)
        if build(tally, "build-asan-torch", *debug, torch, "-DFRUGAL_SANITIZE=address,undefined"):
            # libtorch keeps what it allocates until the process ends: leaks of ours are looked for in build-asan.
            run_gtests(tally, "all folders under ASan + UBSan", "build-asan-torch", options.filter, ASAN_OPTIONS="detect_leaks=0",
                       **shared)

    if tally.failures:
        say("failures")
        print("\n".join(f"   {failure}" for failure in tally.failures))
    print(f"\n{time.monotonic() - start:.0f} s")
    skipped = f", {tally.skipped} skipped" if tally.skipped else ""
    print(f"{tally.passed} passed, {tally.failed} failed{skipped}", flush=True)
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
