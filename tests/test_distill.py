"""frugal distill as its users run it: white box and black box, resumed, refused."""
import json

import pytest
import torch

QUESTIONS = ["What is a river?", "Name a lamp.", "Why is the stone cold?", "Who has a horse?", "Where is the garden?"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "chat.jsonl"
    lines = [{"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": f"It is number {i}."}]} for i, question in enumerate(QUESTIONS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("The river runs under the bridge and the horse looks at the water. " * 60)
    return path


@pytest.fixture(scope="module")
def student(frugal, tiny, text, tmp_path_factory):
    output = tmp_path_factory.mktemp("student") / "model"
    run = frugal("train", "--tokenizer", tiny / "model", "--layers", 1, "--width", 32, "--intermediate-size", 64, "--heads", 2, "--kv-heads", 1, "--data", text,
                 "--sequence-len", 32, "--max-steps", 1, "-o", output, "-t", 1)
    assert run.code == 0, run.err
    return output


def distill(frugal, tiny, student, data, output, *more):
    return frugal("distill", "--student", student, "--teacher", tiny / "model", "--data", data, "-o", output, "--micro-batch-size", 2, "--learning-rate", "3e-3",
                  "-t", 1, "--json", *more)


def log_of(output):
    return list(map(json.loads, (output / "trainer_log.jsonl").read_text().splitlines()))


def test_a_student_comes_nearer_to_its_teacher_on_texts(frugal, tiny, student, text, tmp_path):
    run = distill(frugal, tiny, student, text, tmp_path / "out", "--pretraining", "--sequence-len", 32, "--num-epochs", 20, "--max-steps", 80, "--method", "kd-forward:alpha=1,temperature=1")
    assert run.code == 0, run.err
    log = log_of(tmp_path / "out")
    assert log[-1]["distillation/divergence"] < 0.8 * log[0]["distillation/divergence"] and "distillation/cross_entropy" not in log[0]
    assert run.json["train_loss_last"] == pytest.approx(log[-1]["loss"]) and run.json["steps"] == 80
    # The divergence by transformers, over all text, before and after.
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(tiny / "model")(text.read_text(), return_tensors="pt").input_ids[:, :32]  # as long as the student has read
    def logs(path):
        with torch.no_grad():
            return AutoModelForCausalLM.from_pretrained(path)(ids).logits.log_softmax(-1)
    teacher = logs(tiny / "model")
    distance = [(teacher.exp() * (teacher - logs(path))).sum(-1).mean().item() for path in (student, tmp_path / "out")]
    assert distance[1] < 0.8 * distance[0], distance


ADAPTIVE = "distillm:init_threshold=0.7,loss_eps=0,capacity=2,max_new_tokens=5"


@pytest.mark.parametrize("method", ["kd-forward", "gkd:lmbda=0.5,max_new_tokens=5", "minillm:max_new_tokens=5", ADAPTIVE])
def test_a_distillation_that_is_resumed_is_the_one_that_was_not(frugal, tiny, student, rows, tmp_path, method):
    common = ["--method", method, "--adapter", "lora:r=2,dropout=0.1", "--save-steps", 2]
    if method == ADAPTIVE:
        common += ["--val-set-size", 1, "--eval-steps", 1, "--learning-rate", "0.1"]  # so high that the held-out loss rises
    whole = distill(frugal, tiny, student, rows, tmp_path / "whole", *common, "--max-steps", 5)
    assert whole.code == 0, whole.err
    assert distill(frugal, tiny, student, rows, tmp_path / "part", *common, "--max-steps", 5).code == 0
    for step in (4, 5):  # as if it had been killed in the fourth
        checkpoint = tmp_path / f"part/checkpoint-{step}"
        if checkpoint.exists():
            for path in checkpoint.iterdir():
                path.unlink()
            checkpoint.rmdir()
    again = distill(frugal, tiny, student, rows, tmp_path / "part", *common, "--max-steps", 5, "--resume")
    assert again.code == 0, again.err
    for name in ("adapter_model.safetensors", "trainer_log.jsonl"):
        ours, theirs = ((tmp_path / which / name).read_bytes() for which in ("part", "whole"))
        if name.endswith("jsonl"):
            ours, theirs = ([(row["current_steps"], row["loss"], row["distillation/divergence"]) for row in map(json.loads, text.splitlines())] for text in (ours, theirs))
        assert ours == theirs, name
    if method == ADAPTIVE:
        log = log_of(tmp_path / "part")
        assert log[0]["distillation/threshold"] == 0.7 < log[-1]["distillation/threshold"], "its state goes on"
        assert 0 < log[-1]["distillation/buffer"] <= 2


def test_the_teachers_answers_are_those_of_transformers_and_the_student_learns_them(frugal, tiny, student, rows, tmp_path):
    run = distill(frugal, tiny, student, rows, tmp_path / "out", "--method", "seq-kd:max_new_tokens=7", "--num-epochs", 12)
    assert run.code == 0, run.err
    assert "5 answers of" in run.err
    assert run.json["train_loss_last"] < run.json["train_loss_first"]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(tiny / "model"), AutoModelForCausalLM.from_pretrained(tiny / "model")
    written = list(map(json.loads, (tmp_path / "out/teacher.jsonl").read_text().splitlines()))
    assert [row["messages"][0]["content"] for row in written] == QUESTIONS
    for row in written:
        prompt = tokenizer.apply_chat_template(row["messages"][:1], add_generation_prompt=True, return_tensors="pt", return_dict=True)
        ids = model.generate(**prompt, max_new_tokens=7, do_sample=False)[0, prompt["input_ids"].shape[1]:]
        assert row["messages"][1:] == [{"role": "assistant", "content": tokenizer.decode(ids, skip_special_tokens=True)}]
    before = (tmp_path / "out/teacher.jsonl").read_bytes()
    again = distill(frugal, tiny, student, rows, tmp_path / "out", "--method", "seq-kd:max_new_tokens=7", "--num-epochs", 12, "--resume")
    assert again.code == 0 and "answers of" not in again.err and (tmp_path / "out/teacher.jsonl").read_bytes() == before


def test_what_cannot_be_distilled_is_said_before_anything_is_written(frugal, tiny, student, rows, text, tmp_path):
    other = tmp_path / "tokenizer"
    assert frugal("tokenizer", "train", text, "--vocab-size", 270, "-o", other).code == 0
    strange = tmp_path / "strange"
    run = frugal("train", "--tokenizer", other, "--layers", 1, "--width", 32, "--intermediate-size", 64, "--heads", 2, "--data", text, "--sequence-len", 32, "--max-steps", 1,
                 "-o", strange, "-t", 1)
    assert run.code == 0, run.err
    teacher = ["--teacher", tiny / "model"]
    for arguments, reason in [
        (["--student", strange, *teacher, "--data", rows], "their distributions cannot be compared; seq-kd needs the text only"),
        (["--student", student, *teacher, *teacher, "--data", rows], "kd-forward learns from one teacher: --teacher was given 2 times"),
        (["--student", student, *teacher, "--data", rows, "--method", "babyllama"], "babyllama learns from several teachers: --teacher was given 1 times"),
        (["--student", student, "--data", rows], "--teacher names the model to learn from"),
        ([*teacher, "--data", rows], "no student"),
        (["--student", student, *teacher, "--data", rows, "--method", "kd-foward"], "kd-forward"),
        (["--student", student, *teacher, "--data", rows, "--method", "gkd:lmbda=2"], "lmbda"),
        (["--student", student, *teacher, "--data", rows, "--method", "distillm"], "give eval_steps, and eval_data or val_set_size"),
        (["--student", student, *teacher, "--data", rows, "--method", "distillm:capacity=2", "--val-set-size", 1, "--eval-steps", 1], "capacity"),
        (["--student", student, *teacher, "--data", rows, "--optimizer", "sophia"], "no labels that sophia could draw"),
        (["--student", student, *teacher, "--data", rows, "--rl", "dpo"], "frugal tune learns from preferences"),
        (["--student", student, *teacher, "--data", text, "--method", "seq-kd", "--pretraining"], "answers rows of conversations, not texts"),
        (["--student", student, *teacher, "--data", text, "--method", "seq-kd"], "is a text"),
    ]:
        run = frugal("distill", *arguments, "-o", tmp_path / "out")
        assert run.code != 0 and reason in run.err, (arguments, run.err)
        assert not (tmp_path / "out").exists() or not any(path.suffix in (".jsonl", ".safetensors") for path in (tmp_path / "out").iterdir()), arguments
    # Another tokenizer is no hindrance to the black box.
    run = distill(frugal, tiny, strange, rows, tmp_path / "black", "--method", "seq-kd:max_new_tokens=4", "--max-steps", 1)
    assert run.code != 0 and "chat template" in run.err, run.err  # the new tokenizer has none
