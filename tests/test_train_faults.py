"""A training run that is killed at a call, whose disk fails, whose power fails, whose memory runs short: what is left is a checkpoint that was written whole,
and a resumed run ends as if nothing had been. T1, T3, T4, T5, T9, T17; all places instead of some with FRUGAL_TRAINING_FAULTS=all."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import FRUGAL
from power_loss import CHANGES, Disk, traced
from test_train import losses, result_files

ALL = os.environ.get("FRUGAL_TRAINING_FAULTS") == "all"
SEED = int(os.environ.get("FRUGAL_TEST_SEED") or random.randrange(1 << 32))
CALLS = {"write": "write", "fsync": "fsync", "rename": "rename,renameat,renameat2", "remove": "unlink,unlinkat,rmdir", "mkdir": "mkdir", "open": "openat"}
STEPS = 4


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "chat.jsonl"
    lines = [{"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"It is {i * 7}."}]} for i in range(10)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def command(one_block, rows):
    """The run into a folder; it saves at each step, and keeps two."""
    def of(output, *more):
        arguments = ("tune", one_block, "--data", rows, "-o", output, "--method", "lora:r=2,alpha=4,target=q_proj,dropout=0.1", "--micro-batch-size", 1, "--learning-rate", "3e-3",
                     "--gradient-accumulation-steps", 2, "--save-steps", 1, "--save-total-limit", 2, "--max-steps", STEPS, "-t", 1, "--resume", *more)
        return [str(FRUGAL), *map(str, arguments)]
    return of


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken") / "out"
    subprocess.run(command(output), check=True, capture_output=True)
    return result_files(output), losses(output)


@pytest.fixture(scope="module")
def calls(command, tmp_path_factory):
    """What an unbroken run asks the system for, by kind: (name of the call, its number from 1, the line of strace)."""
    folder = tmp_path_factory.mktemp("calls")
    lines = {}
    for kind, names in CALLS.items():
        log = folder / kind
        subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", f"trace={names}", *command(folder / f"out-{kind}")], check=True, capture_output=True)
        numbers = Counter()
        lines[kind] = []
        for line in log.read_text().splitlines():
            name = re.match(r"\d+ +(\w+)\(", line)[1]
            numbers[name] += 1
            lines[kind].append((name, numbers[name], line))
    return lines


def places(lines, kind, count):
    """(call, number): all of them or `count` drawn ones; of opens those of the run's own folder, since libtorch dies where /sys cannot be read."""
    every = [(name, number) for name, number, line in lines if kind != "open" or "/out-open" in line]
    print(f"FRUGAL_TEST_SEED={SEED}, {len(every)} {kind}")
    return every if ALL or len(every) <= count else random.Random(SEED).sample(every, count)


def under(fault, command):
    return subprocess.run(["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={fault}", *command], capture_output=True, text=True, timeout=120)


def resumes(command, output, unbroken, without_last=False):
    run = subprocess.run(command(output), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert result_files(output) == unbroken[0]
    assert losses(output) == unbroken[1] or (without_last and losses(output) == unbroken[1][:-1])
    assert not [path for path in output.rglob("*") if ".tmp" in path.name]


def each(function, of):
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(function, of))


@pytest.mark.parametrize("kind", CALLS)
def test_killed_at_any_call_a_run_goes_on_from_a_whole_checkpoint(command, calls, unbroken, tmp_path, kind):
    def kill(place):
        output = tmp_path / "-".join(map(str, place))
        killed = under("{}:signal=KILL:when={}".format(*place), command(output))
        assert killed.returncode != 0, place
        resumes(command, output, unbroken)
        shutil.rmtree(output)

    each(kill, places(calls[kind], kind, 6))


@pytest.mark.parametrize("kind,error", [("fsync", "EIO"), ("write", "ENOSPC"), ("rename", "EIO"), ("open", "EMFILE")])
def test_a_failed_call_is_reported_and_its_file_written_anew(command, calls, unbroken, tmp_path, kind, error):
    def fault(place):
        output = tmp_path / "-".join(map(str, place))
        failed = under(f"{place[0]}:error={error}:when={place[1]}", command(output))
        assert failed.returncode in (0, 1, 2), failed.stderr
        said = "no checkpoint at step" in failed.stderr or "warning" in failed.stderr
        assert failed.returncode != 0 or said or (result_files(output), losses(output)) == unbroken, failed.stderr
        assert "internal error" not in failed.stderr
        resumes(command, output, unbroken, without_last=f"the log has no step {STEPS}" in failed.stderr)
        shutil.rmtree(output)

    each(fault, places(calls[kind], kind, 6))


def test_a_file_whose_sync_failed_is_not_synced_again_but_written_again(command, tmp_path):
    """The kernel says a lost page once: a second fsync of the same descriptor would succeed and mean nothing."""
    log = tmp_path / "log"
    subprocess.run(["strace", "-f", "-qq", "-y", "-o", log, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=2+5", *command(tmp_path / "out")], capture_output=True, timeout=120)
    failed = [line for line in log.read_text().splitlines() if "EIO" in line]
    assert len(failed) >= 3
    previous = None
    for line in log.read_text().splitlines():
        name = re.search(r"fsync\(\d+<(.*)>\)", line)[1]
        assert name != previous, line
        previous = name if "EIO" in line and ".safetensors" in name else None


def test_after_a_power_loss_the_newest_checkpoint_that_was_synced_is_there(command, unbroken, tmp_path):
    recorded = traced(command(tmp_path / "out"), tmp_path / "log")
    draw = random.Random(SEED)
    disk, states, safe = Disk(tmp_path / "out"), [], 0
    changes = [i for i, (call, arguments, _) in enumerate(recorded) if call in CHANGES or "O_CREAT" in arguments]
    chosen = set(changes if ALL else draw.sample(changes, 24))
    os.rename(tmp_path / "out", tmp_path / "kept")
    for i, (call, arguments, result) in enumerate(recorded):
        disk.apply(call, arguments, result)
        names = [name for name in disk.top.synced if re.fullmatch(r"checkpoint-\d+", name)]
        safe = max([safe, *(int(name.split("-")[1]) for name in names if "manifest.json" in disk.top.synced[name].synced)])
        if i not in chosen:
            continue
        for _ in range(3 if ALL else 1):
            states.append((tmp_path / f"state-{len(states)}", safe))
            disk.crash(states[-1][0], draw)
    assert safe == STEPS

    def check(state):
        folder, least = state
        found = [int(path.parent.name.split("-")[1]) for path in folder.glob("checkpoint-*/manifest.json") if path.parent.name.count("-") == 1 and "." not in path.parent.name]
        assert max(found, default=0) >= least, (folder.name, found, least)
        run = subprocess.run(command(folder), capture_output=True, text=True, timeout=120)
        assert run.returncode == 0 and "cannot be used" not in run.stderr, run.stderr
        assert (result_files(folder), losses(folder)) == unbroken, folder.name
        shutil.rmtree(folder)

    each(check, states)


def test_a_full_disk_while_a_stop_saves_and_a_kill_while_it_resumes(command, unbroken, tmp_path):
    """T17."""
    draw = random.Random(SEED)
    output = tmp_path / "out"
    for _ in range(12 if not ALL else 300):
        fault = draw.choice(["fsync:signal=KILL", "write:error=ENOSPC", "rename:signal=TERM", "openat:signal=KILL", "rename,renameat,renameat2:error=EIO", "unlink,unlinkat:signal=KILL"])
        under(f"{fault}:when={draw.randrange(1, 200 if fault.startswith('openat') else 40)}", command(output))
        if draw.random() < 0.3 and (newest := sorted(output.glob("checkpoint-?"))):
            file = draw.choice(sorted(newest[-1].iterdir()))
            data = bytearray(file.read_bytes())
            if len(newest) > 1 and data:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
                file.write_bytes(data)
        if (output / "adapter_model.safetensors").exists():
            shutil.rmtree(output)
    run = subprocess.run(command(output), capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert (result_files(output), losses(output)) == unbroken


@pytest.mark.parametrize("for_ever", [False, True])
def test_without_memory_a_run_ends_with_an_error_and_leaves_whole_checkpoints(command, unbroken, tmp_path, for_ever):
    """T9. libstdc++'s directory_iterator and nlohmann's comparisons take memory where they must not throw: there the process ends as if it were killed."""
    library = tmp_path / "starved.so"
    subprocess.run(["c++", "-O1", "-shared", "-fPIC", "-o", library, Path(__file__).parent / "starved.cpp", "-ldl"], check=True)
    counted = tmp_path / "count"
    subprocess.run(command(tmp_path / "counted"), check=True, capture_output=True, env={**os.environ, "LD_PRELOAD": str(library), "STARVED_COUNT": str(counted)})
    draw = random.Random(SEED)
    places = [draw.randrange(1, int(counted.read_text())) for _ in range(1000 if ALL else 16)]
    print(f"FRUGAL_TEST_SEED={SEED}")

    def starve(k):
        output = tmp_path / f"{k}"
        environment = {**os.environ, "LD_PRELOAD": str(library), "STARVED_AT": str(k), **({"STARVED_FOR_EVER": "1"} if for_ever else {})}
        starved = subprocess.run(command(output), capture_output=True, text=True, timeout=120, env=environment)
        assert starved.returncode in (0, 1, -signal.SIGABRT), (k, starved.returncode, starved.stderr)
        assert starved.returncode != 1 or "memory" in starved.stderr or "bad_alloc" in starved.stderr, (k, starved.stderr)
        resumes(command, output, unbroken, without_last=f"the log has no step {STEPS}" in starved.stderr)
        shutil.rmtree(output)
        return starved.returncode == -signal.SIGABRT

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        aborted = sum(pool.map(starve, places))
    print(f"{aborted} of {len(places)} aborted")
    assert for_ever or aborted <= 2 + len(places) / 20
