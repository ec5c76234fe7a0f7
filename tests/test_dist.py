"""frugal train and tune by several processes, as torchrun, mpirun and a killer start and end them: equal to one process but for the order of sums."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import FRUGAL
from safetensors.torch import load_file

TORCHRUN = Path(sys.executable).with_name("torchrun")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Ranks:
    """Processes of one run, started by hand with what a starter would tell them."""

    def __init__(self, count, *arguments, environment=None):
        port = str(free_port())
        names = {"rank": "RANK", "size": "WORLD_SIZE", "local": "LOCAL_RANK", "local_size": "LOCAL_WORLD_SIZE", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if environment is None else environment
        self.processes = []
        for rank in range(count):
            values = {names["rank"]: rank, names["size"]: count, names["local"]: rank, names["local_size"]: count}
            values |= {name: value for name, value in names.items() if name.isupper()}
            self.processes.append(subprocess.Popen([str(FRUGAL), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
                                                   env={**os.environ, **{name: str(value) for name, value in values.items()}}))

    def end(self, timeout=120):
        """(exit code, stdout, stderr) of each."""
        ended = [process.communicate(timeout=timeout) for process in self.processes]
        return [(process.returncode, out, err) for process, (out, err) in zip(self.processes, ended)]


TRAIN = ["--sequence-len", 32, "--micro-batch-size", 2, "--gradient-accumulation-steps", 5, "--learning-rate", "3e-3", "--save-steps", 4, "--json", "-t", 1]


def train(tiny, output, *more, steps=12):
    return ["train", tiny / "model", "--data", tiny / "text.txt", "-o", output, "--max-steps", steps, *TRAIN, *more]


def losses(output):
    return [json.loads(line)["loss"] for line in (output / "trainer_log.jsonl").read_text().splitlines()]


def newest(output):
    return max(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))


def same_weights(one, other, tolerance):
    a, b = load_file(one), load_file(other)
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].shape == b[name].shape and torch.allclose(a[name].double(), b[name].double(), rtol=0, atol=tolerance * max(1, a[name].double().abs().max().item())), name


@pytest.fixture(scope="module")
def alone(frugal, tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("alone") / "out"
    run = frugal(*train(tiny, output))
    assert run.code == 0, run.err
    return output, run.json


def assert_same_run(output, alone):
    assert losses(output) == pytest.approx(losses(alone), rel=1e-4)
    for name in ("parameters.safetensors", "optimizer.safetensors"):
        same_weights(newest(alone) / name, newest(output) / name, 2e-3)  # Adam's first steps are signs: a sum's last bit moves a weight by the rate
    same_weights(alone / "model.safetensors", output / "model.safetensors", 2e-3)


def test_torchrun_trains_the_same_model(tiny, alone, tmp_path):
    output = tmp_path / "out"
    done = subprocess.run([TORCHRUN, "--nproc-per-node", "2", "--no-python", FRUGAL, *map(str, train(tiny, output))], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["strategy"] == "ddp" and len(summary["ranks"]) == 2 and summary["tokens"] == alone[1]["tokens"]
    assert_same_run(output, alone[0])


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3"])
def test_shards_hold_a_part_of_the_state_and_train_the_same(tiny, alone, tmp_path, strategy):
    output = tmp_path / "out"
    ended = Ranks(4, *train(tiny, output, "--strategy", strategy)).end()
    assert [code for code, _, _ in ended] == [0] * 4, ended
    assert [out for _, out, _ in ended[1:]] == [""] * 3, "rank 0 speaks for all"
    state = [rank["optimizer_bytes"] for rank in json.loads(ended[0][1])["ranks"]]
    assert sum(state) == alone[1]["optimizer_bytes"] and max(state) < 0.4 * sum(state)
    assert_same_run(output, alone[0])


@pytest.mark.parametrize("optimizer", ["muon", "adam8bit", "fp8-lm", "sophia:hessian_interval=3"])
def test_every_optimizer_works_on_shards(frugal, tiny, tmp_path, optimizer):
    arguments = ["--optimizer", optimizer, "--learning-rate", "3e-4"]
    assert frugal(*train(tiny, tmp_path / "one", *arguments, steps=4)).code == 0
    ended = Ranks(2, *train(tiny, tmp_path / "two", *arguments, "--strategy", "zero2", steps=4)).end()
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    assert load_file(newest(tmp_path / "two") / "optimizer.safetensors").keys() == load_file(newest(tmp_path / "one") / "optimizer.safetensors").keys()


@pytest.mark.parametrize("arguments, message", [(["--method", "full", "--optimizer", "lomo"], "before gradients of other processes are there"), (["--method", "lisa:activated_layers=1"], "lisa:activated_layers=1")])
def test_what_takes_one_process_says_so(tiny, tmp_path, arguments, message):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"Number {i} is {i * 7}."}) + "\n" for i in range(8)))
    ended = Ranks(2, "tune", tiny / "model", "--data", rows, "-o", tmp_path / "out", "--gradient-accumulation-steps", 2, "--micro-batch-size", 1, "--max-steps", 1, "-t", 1, *arguments).end()
    assert [code for code, _, _ in ended] == [1, 1] and all(message in err and "process" in err for _, _, err in ended), ended


def test_an_adapter_with_dropout_and_recomputation(frugal, tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"messages": [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"A number, {i * 7}."}]}) + "\n" for i in range(12)))
    arguments = ["tune", tiny / "model", "--data", rows, "--method", "lora:r=4,dropout=0.2", "--gradient-checkpointing", "true", "--gradient-accumulation-steps", 3, "--micro-batch-size", 1,
                 "--max-steps", 4, "--learning-rate", "3e-3", "-t", 1]
    assert frugal(*arguments, "-o", tmp_path / "one").code == 0
    ended = Ranks(2, *arguments, "-o", tmp_path / "two").end()
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    same_weights(tmp_path / "one/adapter_model.safetensors", tmp_path / "two/adapter_model.safetensors", 2e-3)


def wait_for(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come")


@pytest.fixture(scope="module")
def unbroken(frugal, tiny, tmp_path_factory):
    output = tmp_path_factory.mktemp("unbroken") / "out"
    assert frugal(*train(tiny, output, steps=30)).code == 0
    return output


@pytest.mark.parametrize("strategy, killed", [("ddp", 1), ("zero3", 0)])
def test_a_killed_rank_ends_the_run_which_goes_on_with_fewer(tiny, unbroken, tmp_path, strategy, killed):
    output = tmp_path / "out"
    ranks = Ranks(3, *train(tiny, output, "--strategy", strategy, steps=30))
    wait_for((output / "checkpoint-4/manifest.json").exists)
    ranks.processes[killed].send_signal(signal.SIGKILL)
    begin = time.monotonic()
    ended = ranks.end(timeout=30)
    assert time.monotonic() - begin < 30
    for rank, (code, _, err) in enumerate(ended):
        assert code == (-signal.SIGKILL if rank == killed else 1), (rank, code, err)
        assert rank == killed or "frugal: error:" in err
    ended = Ranks(2, *train(tiny, output, "--strategy", strategy, "--resume", steps=30)).end()
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert "the run had 3 ranks, goes on with 2" in ended[0][2]
    assert losses(output) == pytest.approx(losses(unbroken), rel=2e-3)  # sums of other orders, 30 steps long; a step lost, repeated or of other rows is far outside


def test_a_stop_at_one_rank_is_a_stop_of_all(frugal, tiny, alone, tmp_path):
    output = tmp_path / "out"
    ranks = Ranks(2, *train(tiny, output, "--strategy", "zero1", steps=400))
    wait_for((output / "checkpoint-4/manifest.json").exists)
    ranks.processes[1].send_signal(signal.SIGTERM)
    ended = ranks.end(timeout=60)
    assert [code for code, _, _ in ended] == [0, 0], ended
    step = int(newest(output).name.split("-")[1])
    assert 4 <= step < 400 and len(losses(output)) == step and f"stopped after step {step} of 400" in ended[0][2]
    run = frugal(*train(tiny, output, "--resume", steps=400), "--max-steps", step + 1, "--allow-changes")
    assert run.code == 0, run.err


def test_mpi_and_slurm_are_understood(tiny, tmp_path):
    mpi = {"rank": "OMPI_COMM_WORLD_RANK", "size": "OMPI_COMM_WORLD_SIZE", "local": "OMPI_COMM_WORLD_LOCAL_RANK", "local_size": "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_MCA_ess_base_jobid": str(os.getpid())}
    mpi["MASTER_PORT"] = str(free_port())
    ended = Ranks(2, *train(tiny, tmp_path / "out", steps=2), environment=mpi).end()
    assert [code for code, _, _ in ended] == [0, 0], ended
    assert len(json.loads(ended[0][1])["ranks"]) == 2


MODEL_PARALLEL = {"tensor": (2, ["--tensor-parallel-size", 2]), "pipeline": (3, ["--pipeline-parallel-size", 3]),
                  "tensor and copies": (4, ["--tensor-parallel-size", 2, "--strategy", "zero1"]), "pipeline and copies": (4, ["--pipeline-parallel-size", 2]),
                  "tensor and pipeline": (4, ["--tensor-parallel-size", 2, "--pipeline-parallel-size", 2, "--gradient-checkpointing", "true"])}


@pytest.mark.parametrize("way", MODEL_PARALLEL)
def test_ranks_that_share_a_model_train_the_same(frugal, tiny, alone, tmp_path, way):
    count, arguments = MODEL_PARALLEL[way]
    output = tmp_path / "out"
    ended = Ranks(count, *train(tiny, output, "--eval-data", tiny / "text.txt", *arguments)).end()
    assert [code for code, _, _ in ended] == [0] * count, ended
    assert [out for _, out, _ in ended[1:]] == [""] * (count - 1), "rank 0 speaks for all"
    summary = json.loads(ended[0][1])
    assert max(rank["optimizer_bytes"] for rank in summary["ranks"]) < 0.75 * alone[1]["optimizer_bytes"]
    assert summary["tokens"] == alone[1]["tokens"]
    assert_same_run(output, alone[0])
    rows = [json.loads(line) for line in (output / "trainer_log.jsonl").read_text().splitlines()]
    if "pipeline" in way:
        assert all(0 < row["pipeline/bubble"] < 1 for row in rows)
    # What is written is a model as any other: its loss on the text is the one that the ranks found together.
    again = frugal("train", output, "--data", tiny / "text.txt", "--eval-data", tiny / "text.txt", "-o", tmp_path / "again", "--max-steps", 1, "--learning-rate", "1e-12", *TRAIN[:4], "--json", "-t", 1)
    assert again.code == 0, again.err
    assert again.json["eval_loss"] == pytest.approx(summary["eval_loss"], rel=1e-5)


def test_the_whole_model_is_tuned_by_ranks_that_share_it(frugal, tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"A number is {i * 7}, and the next one {i * 7 + 1}."}) + "\n" for i in range(12)))
    arguments = ["tune", tiny / "model", "--data", rows, "--method", "full", "--gradient-accumulation-steps", 3, "--micro-batch-size", 2, "--max-steps", 4, "--learning-rate", "3e-3", "-t", 1]
    assert frugal(*arguments, "-o", tmp_path / "one").code == 0
    for name, sharing in (("tensor", ["--tensor-parallel-size", 2, "--bf16", "true"]), ("pipeline", ["--pipeline-parallel-size", 2])):
        ended = Ranks(2, *arguments, *sharing, "-o", tmp_path / name).end()
        assert [code for code, _, _ in ended] == [0, 0], ended
        assert losses(tmp_path / name) == pytest.approx(losses(tmp_path / "one"), rel=1e-4 if name == "pipeline" else 0.02)


@pytest.mark.parametrize("arguments", [["--tensor-parallel-size", 2], ["--pipeline-parallel-size", 2]], ids=["tensor", "pipeline"])
def test_a_run_of_ranks_that_share_a_model_goes_on_after_a_kill(frugal, tiny, unbroken, tmp_path, arguments):
    output = tmp_path / "out"
    ranks = Ranks(2, *train(tiny, output, *arguments, steps=30))
    wait_for((output / "checkpoint-4/manifest.json").exists)
    ranks.processes[1].send_signal(signal.SIGKILL)
    ended = ranks.end(timeout=30)
    assert ended[0][0] == 1 and "frugal: error:" in ended[0][2] and ended[1][0] == -signal.SIGKILL, ended
    step = int(newest(output).name.split("-")[1])
    assert step < 30
    shutil.copytree(output, tmp_path / "copy")
    # As many and alike: the run that was never killed, to the bit. One, or four with copies: but for the order of sums.
    whole = Ranks(2, *train(tiny, tmp_path / "whole", *arguments, steps=30)).end()
    resumed = Ranks(2, *train(tiny, output, *arguments, "--resume", steps=30)).end()
    assert [code for code, _, _ in whole + resumed] == [0] * 4, (whole, resumed)
    assert losses(output) == losses(tmp_path / "whole")
    for name in ("parameters.safetensors", "optimizer.safetensors"):
        assert (newest(output) / name).read_bytes() == (newest(tmp_path / "whole") / name).read_bytes(), name
    shutil.copytree(tmp_path / "copy", tmp_path / "four")
    alone = frugal(*train(tiny, tmp_path / "copy", "--resume", steps=30))
    assert alone.code == 0, alone.err
    four = Ranks(4, *train(tiny, tmp_path / "four", "--tensor-parallel-size", 2, "--pipeline-parallel-size", 2, "--resume", steps=30)).end()
    assert [code for code, _, _ in four] == [0] * 4, four
    for other in ("copy", "four"):
        assert losses(tmp_path / other) == pytest.approx(losses(unbroken), rel=2e-3)


def test_what_ranks_cannot_share_is_said(frugal, tiny, tmp_path):
    def refused(count, *more):
        ended = Ranks(count, *train(tiny, tmp_path / "out", "--overwrite", *more)).end()
        assert all(code in (1, 2) for code, _, _ in ended), ended
        return ended[0][2]

    assert "2 key-value heads of block 0 cannot be shared evenly by 3 processes" in refused(3, "--tensor-parallel-size", 3)
    assert "2 processes make one copy of the model, 3 cannot be shared out so" in refused(3, "--tensor-parallel-size", 2)
    assert "3 blocks cannot be shared by 4 stages" in refused(4, "--pipeline-parallel-size", 4)
    assert "tensor_parallel_size: muon moves whole matrices" in refused(2, "--tensor-parallel-size", 2, "--optimizer", "muon")
    assert "tensor_parallel_size: zero3" in refused(2, "--tensor-parallel-size", 2, "--strategy", "zero3")
    assert "ddp, not zero1" in refused(2, "--pipeline-parallel-size", 2, "--strategy", "zero1")
    alone = frugal(*train(tiny, tmp_path / "alone", "--tensor-parallel-size", 2))
    assert alone.code == 2 and "2 processes make one copy of the model, 1 cannot be shared out so" in alone.err
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "A number is 7."}) + "\n")
    adapter = frugal("tune", tiny / "model", "--data", tmp_path / "rows.jsonl", "-o", tmp_path / "adapter", "--tensor-parallel-size", 2)
    assert adapter.code == 1 and "tensor_parallel_size" in adapter.err and "not an adapter" in adapter.err


def test_what_makes_no_sense_is_said(frugal, tiny, tmp_path):
    ended = Ranks(2, *train(tiny, tmp_path / "out", "--gradient-accumulation-steps", 1)).end()
    assert [code for code, _, _ in ended] == [2, 2] and "gradient_accumulation_steps: a step has 1 micro-batch for 2 processes: it must be at least 2" in ended[0][2]
    ended = Ranks(2, *train(tiny, tmp_path / "out", "--strategy", "zero1", "--optimizer", "schedule-free", "--lr-scheduler-type", "constant_with_warmup")).end()
    assert [code for code, _, _ in ended] == [1, 1] and "schedule-free" in ended[0][2]
    run = frugal(*train(tiny, tmp_path / "out"), RANK="0")
    assert run.code == 2 and "WORLD_SIZE is missing" in run.err
    # What is there already: rank 0 says it, the others that rank 0 has gone.
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    ended = Ranks(2, *train(tiny, tmp_path / "full")).end()
    assert ended[0][0] == 2 and "holds files" in ended[0][2] and ended[1][0] == 1
