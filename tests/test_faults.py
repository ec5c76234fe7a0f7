"""Kill -9 and a full disk at every call that writes, in a compress of a tiny model: OUT is whole or absent, the ledger is valid, nothing is left over."""
import json
import shutil
import subprocess

import pytest
from conftest import FRUGAL

SAMPLES = 20  # calls that a fault is injected at, spread evenly, where a run makes more
CALLS = {"write": "write", "fsync": "fsync", "rename": "rename,renameat2", "open": "openat"}


def command(tiny, folder):
    return [str(FRUGAL), "compress", str(tiny / "model"), "-o", str(folder / "out"), "--step", "rtn:bits=4", "--format", "frugal", "--ledger",
            str(folder / "ledger.jsonl"), "-t", "1"]


def count_calls(tiny, folder, calls):
    log = folder / "strace.log"
    subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", f"trace={calls}", *command(tiny, folder)], check=True, capture_output=True)
    return log.read_text().splitlines()


def check_state(frugal, folder):
    out = folder / "out"
    if out.exists():
        result = frugal("inspect", out, "--json")
        assert result.code == 0 and result.json["manifest"], result.err
    ledger = folder / "ledger.jsonl"
    if ledger.exists():
        for line in ledger.read_bytes().split(b"\n")[:-1]:
            assert json.loads(line)["kind"] == "step"


@pytest.mark.parametrize("name", ["write", "fsync", "rename", "open"])
@pytest.mark.parametrize("fault", ["signal=KILL", "error=ENOSPC"])
def test_a_fault_at_any_call_leaves_no_half_output(frugal, tiny, tmp_path, name, fault):
    folder = tmp_path / "count"
    folder.mkdir()
    lines = count_calls(tiny, folder, CALLS[name])
    # Opens before the first one that can create a file only read libraries and the model.
    first = next((i for i, line in enumerate(lines) if "O_CREAT" in line), 0) if name == "open" else 0
    total = len(lines)
    assert total > first, lines[:5]
    steps = range(first + 1, total + 1)
    for k in steps if len(steps) <= SAMPLES else [first + 1 + i * (total - first - 1) // (SAMPLES - 1) for i in range(SAMPLES)]:
        run = tmp_path / f"{k}"
        run.mkdir()
        subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={CALLS[name]}:{fault}:when={k}", *command(tiny, run)],
                       capture_output=True, timeout=120)
        check_state(frugal, run)
        if fault != "signal=KILL":
            assert not [p.name for p in run.iterdir() if ".tmp" in p.name]
        # The next run succeeds whatever was left.
        if k == first + 1 or k == total:
            shutil.rmtree(run / "out", ignore_errors=True)
            assert subprocess.run(command(tiny, run), capture_output=True).returncode == 0
        shutil.rmtree(run)
