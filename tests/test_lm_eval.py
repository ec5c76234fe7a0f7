"""lm-eval against frugal serve: its remote tokenizer and /v1/completions, compared with its own transformers backend and with frugal eval."""
import contextlib

import pytest
import torch

from conftest import ROOT
from test_serve import KEY, Server


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """evaluate(backend, **its arguments): {task: {metric: value}} and {task: [responses of each document]}, without network."""
    with pytest.MonkeyPatch.context() as patch:  # read when these packages are imported
        for name, value in dict(HF_HOME=str(tmp_path_factory.mktemp("hub")), HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1").items():
            patch.setenv(name, value)
        import lm_eval
        import lm_eval.tasks
        from lm_eval.api.registry import get_model
    manager = lm_eval.tasks.TaskManager(include_defaults=False)  # not the thousands that come with it

    def run(backend, tasks=("questions", "texts"), **arguments):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            # Not simple_evaluate, which asks the machine for its versions each time.
            done = lm_eval.evaluate(get_model(backend)(**arguments), manager.load([f"tests/lm_eval/{task}.yaml" for task in tasks])["tasks"],
                                    bootstrap_iters=0, log_samples=True)
        metrics = {task: {name.removesuffix(",none"): value for name, value in row.items() if name.endswith(",none") and "stderr" not in name} for task, row in done["results"].items()}
        return metrics, {task: [sample["filtered_resps"] for sample in samples] for task, samples in done["samples"].items()}

    return run


@contextlib.contextmanager
def serving(model):
    server = Server(model, "--api-key", KEY)
    try:
        yield server
    finally:
        assert server.stop() == 0


def served(server, **more):
    name = server.request("/v1/models")[2]["data"][0]["id"]
    return dict(model=name, base_url=server.url + "/v1/completions", auth_token=KEY, header={"Authorization": f"Bearer {KEY}"}, max_retries=1, **more)


def test_log_likelihoods_are_those_of_transformers(evaluate, tiny):
    torch.set_num_threads(1)  # others compute at the same time
    theirs, their_samples = evaluate("hf", pretrained=str(tiny / "model"), max_length=255, dtype="float32", device="cpu")
    with serving(tiny / "model") as server:
        for batch in (1, 8):  # a context of 256, one token of it to answer; the tokenizer endpoints are found without being named
            ours, our_samples = evaluate("local-completions", **served(server, tokenizer_backend="auto", max_length=256, batch_size=batch,
                                                                       custom_prefix_token_id=0))  # it takes id 0 for none
            for ours_of, theirs_of in zip(our_samples["questions"], their_samples["questions"], strict=True):
                assert [float(value) for value, _ in ours_of] == pytest.approx([float(value) for value, _ in theirs_of], abs=0.02)
                assert [str(greedy) for _, greedy in ours_of] == [str(greedy) for _, greedy in theirs_of]
            assert ours["texts"] == pytest.approx(theirs["texts"], rel=1e-3)


def test_accuracies_are_those_of_frugal_eval(evaluate, frugal, smollm2):
    with serving(smollm2) as server:
        # Concurrent requests as token ids. The file holds questions whose two likeliest choices are 0.6 nats or more apart: no rounding decides.
        ours, _ = evaluate("local-completions", tasks=["questions"], **served(server, tokenizer_backend="remote", num_concurrent=8))
    questions = ROOT / "tests/lm_eval/questions.jsonl"
    theirs = frugal("eval", smollm2, "--text", ROOT / "README.md", "--chunks", 1, "--no-speed", "--tasks", questions, "--json").json["tasks"]["questions"]
    assert theirs["count"] == len(questions.read_text().splitlines())
    assert 0.5 < theirs["accuracy"] < 1 and ours["questions"]["acc"] == theirs["accuracy"] and ours["questions"]["acc_norm"] == theirs["accuracy_norm"]


def test_the_remote_tokenizer_knows_special_tokens(smollm2):
    from lm_eval.utils import RemoteTokenizer

    with serving(smollm2) as server:
        remote = RemoteTokenizer(server.url + "/v1/completions", auth_token=KEY)
        assert (remote.bos_token, remote.eos_token) == ("<|im_start|>", "<|im_end|>") and (remote.bos_token_id, remote.eos_token_id) == (1, 2)
        ids = remote.encode("The mill had not turned.")
        assert remote.decode(ids) == "The mill had not turned." and remote.encode("<|im_start|>user") == [1] + remote.encode("user")
