"""Kill -9 and a full disk at every call that writes, in a compress of a tiny model: OUT is whole or absent, the ledger is valid, nothing is left over."""
import json
import os
import random
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import FRUGAL

CALLS = {"write": "write", "fsync": "fsync", "rename": "rename,renameat2", "open": "openat"}
CASES = ([("directory", call, fault) for call in CALLS for fault in ("signal=KILL", "error=ENOSPC")] + [("directory", "fsync", "error=EIO")]
         + [(output, call, "signal=KILL") for output, calls in (("gguf", ("write", "fsync", "rename")), ("overwrite", ("fsync", "rename"))) for call in calls])


def out_of(output, folder):
    return folder / ("out.gguf" if output == "gguf" else "out")


def command(model, folder, output="directory"):
    return [str(FRUGAL), "compress", str(model), "-o", str(out_of(output, folder)), "--step", "rtn:bits=4", "--ledger", str(folder / "ledger.jsonl"), "-t", "1",
            *(["--format", "frugal"] if output != "gguf" else ["--expand"]), *(["--overwrite"] if output == "overwrite" else [])]


def list_calls(model, folder, calls, output):
    log = folder / "strace.log"
    subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", f"trace={calls}", *command(model, folder, output)], check=True, capture_output=True)
    return log.read_text().splitlines()


def check_state(frugal, folder, output="directory"):
    out = out_of(output, folder)
    assert out.exists() or output != "overwrite"
    if out.exists():
        result = frugal("inspect", out, "--json")
        assert result.code == 0 and result.json["manifest"], result.err
    ledger = folder / "ledger.jsonl"
    if ledger.exists():
        for line in ledger.read_bytes().split(b"\n")[:-1]:
            assert json.loads(line)["kind"] == "step"


@pytest.mark.parametrize("output, name, fault", CASES)
def test_a_fault_at_any_call_leaves_no_half_output(frugal, one_block, tmp_path, output, name, fault):
    folder = tmp_path / "count"
    folder.mkdir()
    old = ["cp", "-r", folder / "out"]
    if output == "overwrite":
        assert subprocess.run(command(one_block, folder), capture_output=True).returncode == 0
    lines = list_calls(one_block, folder, CALLS[name], output)
    # Opens before the first one that can create a file only read libraries and the model.
    first = next((i for i, line in enumerate(lines) if "O_CREAT" in line), 0) if name == "open" else 0
    total = len(lines)
    assert total > first, lines[:5]

    def inject(k):
        run = tmp_path / f"{k}"
        run.mkdir()
        if output == "overwrite":
            subprocess.run([*old, run / "out"], check=True)
        subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={CALLS[name]}:{fault}:when={k}", *command(one_block, run, output)],
                       capture_output=True, timeout=120)
        check_state(frugal, run, output)
        if fault != "signal=KILL":
            assert not [p.name for p in run.iterdir() if ".tmp" in p.name]
        # The next run succeeds whatever was left, and clears it away.
        if k == first + 1 or k == total:
            shutil.rmtree(run / "out", ignore_errors=True)
            out_of("gguf", run).unlink(missing_ok=True)
            assert subprocess.run(command(one_block, run, output), capture_output=True).returncode == 0
            assert not [p.name for p in run.iterdir() if ".tmp" in p.name]
        shutil.rmtree(run)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(inject, range(first + 1, total + 1)))


def test_a_termination_in_the_work_leaves_nothing(smollm2, tmp_path):
    steps = ["--step", "gptq:bits=4", "--calib-sequences", "4"]
    child = subprocess.Popen([str(FRUGAL), "compress", str(smollm2), "-o", str(tmp_path / "out"), *steps], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(3)
    child.terminate()
    assert child.wait(timeout=60) == 143, child.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_twenty_kills_at_random_times_leave_the_real_model_whole_or_absent(frugal, smollm2, tmp_path):
    start = time.monotonic()
    assert subprocess.run(command(smollm2, tmp_path), capture_output=True).returncode == 0
    whole = time.monotonic() - start
    seed = int(os.environ.get("FRUGAL_TEST_SEED", random.randrange(10**6)))
    print(f"FRUGAL_TEST_SEED={seed}, a run takes {whole:.2f} s")
    times = random.Random(seed)
    for _ in range(20):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        child = subprocess.Popen(command(smollm2, tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(times.uniform(0, whole))
        child.kill()
        child.wait()
        check_state(frugal, tmp_path)
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert subprocess.run(command(smollm2, tmp_path), capture_output=True).returncode == 0
