"""frugal runs: real runs of a tiny model, finished, stopped, at work and damaged, as a table, curves, JSON and a page in Debian's Chromium."""
import functools
import http.server
import json
import re
import signal
import subprocess
import threading
import time

import pytest
from conftest import FRUGAL
from test_web import clicks

STEPS = 40


@pytest.fixture(scope="module")
def runs(frugal, tiny, tmp_path_factory):
    """Two finished runs, and what each said at its end."""
    text = "".join(json.dumps({"text": f"Sentence {i} says that grouped integers and sparse masks add up to {i * 7}."}) + "\n" for i in range(60))
    (tiny / "rows.jsonl").write_text(text)
    folder = tmp_path_factory.mktemp("runs")
    said = {}
    for name, rate in (("slow", "1e-3"), ("fast", "1e-2")):
        run = frugal("tune", tiny / "model", "--data", tiny / "rows.jsonl", "--val-set-size", 10, "--eval-steps", 10, "--max-steps", STEPS, "--method", "lora:r=4", "--learning-rate", rate, "-t", 1,
                     "-o", folder / name, "--json")
        assert run.code == 0, run.err
        said[name] = run.json
    return folder, said


def log_of(folder):
    return [json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()]


@pytest.fixture
def copy(runs, tmp_path):
    subprocess.run(["cp", "-r", runs[0] / "slow", tmp_path / "slow"], check=True)
    return tmp_path / "slow"


def test_figures_are_those_that_the_runs_said(frugal, tiny, runs):
    folder, said = runs
    found = frugal("runs", folder, "--json")
    assert found.code == 0, found.err
    assert [run["name"] for run in found.json] == ["fast", "slow"]
    for run in found.json:
        end = said[run["name"]]
        assert run["state"] == "finished" and run["steps"] == run["total_steps"] == STEPS and run["skipped_steps"] == 0
        assert (run["loss_first"], run["loss_last"], run["eval_loss"]) == (end["train_loss_first"], end["train_loss_last"], end["eval_loss"])
        assert run["tokens"] == end["tokens"] and run["peak_rss_bytes"] == pytest.approx(end["peak_rss_bytes"], rel=0.02)
        assert run["method"] == "lora:r=4" and run["model"] == str(tiny / "model") and run["optimizer"] == "adamw"
        rows = log_of(folder / run["name"])
        assert [row["loss"] for row in run["rows"]] == [row["loss"] for row in rows]
        lowest = min(rows, key=lambda row: row["loss"])
        assert (run["loss_lowest"], run["loss_lowest_step"]) == (lowest["loss"], lowest["current_steps"])
        assert 0 < run["mfu"] < 1 and all(0 < row["mfu"] < 1.2 for row in rows)


def test_model_flop_utilisation_is_in_tensorboard_and_not_in_the_fingerprint(runs):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = runs[0] / "fast"
    events = EventAccumulator(str(folder / "runs"))
    events.Reload()
    assert [event.value for event in events.Scalars("train/mfu")] == [pytest.approx(row["mfu"], rel=1e-6) for row in log_of(folder)]
    state = json.loads((folder / f"checkpoint-{STEPS}/trainer_state.json").read_text())
    assert "flop" not in json.dumps(state["fingerprint"]) and "mfu" not in json.dumps(state["fingerprint"])


def test_table_and_curves_fit_a_terminal(frugal, runs):
    run = frugal("runs", runs[0] / "slow", runs[0] / "fast")
    assert run.code == 0, run.err
    table, *charts = run.out.split("\n\n")
    assert len(table.splitlines()) == 4 and f"{STEPS}/{STEPS}" in table
    assert [chart.split(" by step")[0] for chart in charts] == ["loss", "learning rate", "gradient norm", "tokens a second", "model FLOP utilisation, %", "peak memory"]
    assert "a: slow  b: fast" in charts[0] and re.search("│.*[AB]", charts[0])
    assert max(len(line) for chart in charts for line in chart.splitlines()) <= 80
    alone = frugal("runs", runs[0] / "slow")
    assert "╮" in alone.out and "o: held out" in alone.out


def test_a_cut_last_line_is_no_error_and_a_damaged_one_is_named(frugal, copy):
    log = copy / "trainer_log.jsonl"
    whole = log.read_text()
    log.write_text(whole[:-20])
    run = frugal("runs", copy, "--json")
    assert run.code == 0 and len(run.json[0]["rows"]) == STEPS - 1, run.err
    lines = whole.splitlines(keepends=True)
    for damage in ("\n", '{"current_steps": 7\n', lines[6].replace('"loss":', '"loss":"x","l":'), lines[6] + lines[6], "\0" * 40 + "\n"):
        log.write_text("".join(lines[:6]) + damage + "".join(lines[7:]))
        run = frugal("runs", copy)
        assert run.code == 1 and re.search(r"trainer_log\.jsonl:[78]\b", run.err), (damage, run.err)
        assert run.out == ""


def test_losses_that_are_not_finite_leave_a_gap(frugal, copy, tmp_path):
    log = copy / "trainer_log.jsonl"
    rows = log_of(copy)
    for row in rows[15:25]:
        row.update(loss=None, grad_norm=None, skipped=True)
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = frugal("runs", copy, "--json", "--html", tmp_path / "page.html")
    assert run.code == 0 and run.json[0]["skipped_steps"] == 10 and run.json[0]["rows"][15]["loss"] is None, run.err
    path = re.search(r'class="curve c0" d="([^"]*)"', (tmp_path / "page.html").read_text())[1]
    assert path.count("M") == 2 and path.count("L") == STEPS - 10 - 2
    assert "skipped" in frugal("runs", copy).out


def test_where_no_run_is_it_is_said_what_was_looked_for(frugal, tmp_path):
    run = frugal("runs", tmp_path)
    assert run.code == 2 and "holds no run" in run.err and "trainer_log.jsonl" in run.err
    run = frugal("runs", tmp_path / "nowhere")
    assert run.code == 1 and "does not exist" in run.err
    assert frugal("runs").code == 2
    (tmp_path / "run").mkdir()
    (tmp_path / "run/trainer_log.jsonl").write_text("")
    run = frugal("runs", tmp_path, "--json")
    assert run.code == 0 and run.json[0]["state"] == "stopped" and run.json[0]["rows"] == [] and run.json[0]["loss_first"] is None
    assert frugal("runs", tmp_path).code == 0
    run = frugal("runs", tmp_path, "--html", tmp_path / "page.txt")
    assert run.code == 2 and ".html" in run.err and not (tmp_path / "page.txt").exists()


def test_a_run_is_shown_while_it_goes_on_and_after_it_was_killed(frugal, tiny, runs, tmp_path):
    output = tmp_path / "out"
    process = subprocess.Popen(list(map(str, [FRUGAL, "tune", tiny / "model", "--data", tiny / "rows.jsonl", "--max-steps", 100000, "--save-steps", 20, "-t", 1, "-o", output])),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        states = set()
        deadline = time.monotonic() + 60
        while True:
            assert process.poll() is None and time.monotonic() < deadline
            if output.is_dir() and (output / ".lock").exists():
                run = frugal("runs", output, "--json")
                assert run.code == 0, run.err
                states.add(run.json[0]["state"])
                if run.json[0]["steps"] > 60:
                    break
        assert "running" in states and run.json[0]["state"] == "running" and run.json[0]["total_steps"] == 100000
        assert run.json[0]["method"] == "lora"
    finally:
        process.kill()
        process.wait()
    run = frugal("runs", output, "--json")
    assert run.code == 0 and run.json[0]["state"] == "stopped", run.err
    # Asking kept nobody out: it goes on.
    process = subprocess.Popen(list(map(str, [FRUGAL, "tune", tiny / "model", "--data", tiny / "rows.jsonl", "--max-steps", 100000, "--save-steps", 20, "-t", 1, "-o", output, "--resume"])),
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while frugal("runs", output, "--json").json[0]["state"] != "running":
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0, process.stderr.read()
    assert frugal("runs", output, "--json").json[0]["state"] == "stopped"


def test_the_page_works_in_a_browser(frugal, runs, tmp_path):
    run = frugal("runs", runs[0], "--html", tmp_path / "page.html")
    assert run.code == 0, run.err
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        clicks("runs.mjs", f"http://127.0.0.1:{server.server_port}/page.html", 2)
        server.shutdown()
