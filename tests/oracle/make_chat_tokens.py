"""Conversations as token ids with the mask of what the assistant says, as transformers' apply_chat_template makes them.

usage: make_chat_tokens.py random OUT_DIR COUNT SEED     tokenizers trained here: OUT_DIR/*.json; cases: OUT_DIR/cases.jsonl
       make_chat_tokens.py file GGUF JSONL COUNT         question and answer of the first rows, with the GGUF's tokenizer and template
A case is {name, tokenizer, plain: template, tagged: the same text with {% generation %} or null, messages, tools, arguments, ids, mask or null}.
The template `tagged` makes the mask; `plain` must make the same ids.
"""
import json
import os
import random
import sys

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import make_tokenizer_ids
import template_families as families

SPECIAL = ["<s>", "</s>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>", "<end_of_turn>",
           "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "[INST]", "[/INST]", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]

SMOLLM2 = """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""


def replaced(text, *pairs):
    for old, new in pairs:
        assert text.count(old) == 1, (text.count(old), old)
        text = text.replace(old, new)
    return text


# name: (plain, tagged): both write the same text; None where no mask is asked of transformers.
TEMPLATES = {
    "chatml": (families.CHATML, replaced(
        families.CHATML, ("{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' -}}",
                          "{{- '<|im_start|>' + message.role + '\\n' -}}{%- if message.role == 'assistant' -%}{%- generation -%}{{- message.content + '<|im_end|>' -}}"
                          "{%- endgeneration -%}{%- else -%}{{- message.content + '<|im_end|>' -}}{%- endif -%}{{- '\\n' -}}"))),
    "smollm2": (SMOLLM2, replaced(
        SMOLLM2, ("{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}",
                  "{{'<|im_start|>' + message['role'] + '\n'}}{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
                  "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}"))),
    "llama3": (families.LLAMA3, replaced(
        families.LLAMA3,
        ("{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}",
         "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}{%- if message.role == 'assistant' %}{%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}"
         "{%- endgeneration %}{%- else %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endif %}"),
        ("{{- '{\"name\": \"' + call.name + '\", ' }}", "{%- generation %}{{- '{\"name\": \"' + call.name + '\", ' }}"),
        ("{{- \"}\" }}\n        {{- \"<|eot_id|>\" }}", "{{- \"}\" }}\n        {{- \"<|eot_id|>\" }}{%- endgeneration %}"))),
    "gemma": (families.GEMMA, replaced(
        families.GEMMA,
        ("{%- if message['content'] is string -%}\n        {{ message['content'] | trim }}",
         "{%- if role == 'model' -%}{%- generation -%}{{ message['content'] | trim + '<end_of_turn>' }}{%- endgeneration -%}{%- elif message['content'] is string -%}\n        {{ message['content'] | trim }}"),
        ("{{ '<end_of_turn>\\n' }}", "{%- if role != 'model' -%}{{ '<end_of_turn>' }}{%- endif -%}{{ '\\n' }}"))),
    "qwen": (families.QWEN, replaced(
        families.QWEN,
        ("        {%- if loop.index0 > ns.last %}\n", "        {{- '<|im_start|>' + message.role + '\\n' }}{%- generation %}\n        {%- if loop.index0 > ns.last %}\n"),
        ("{{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought", "{{- '<think>\\n' + thought"),
        ("            {%- else %}\n                {{- '<|im_start|>' + message.role + '\\n' + content }}", "            {%- else %}\n                {{- content }}"),
        ("        {%- else %}\n            {{- '<|im_start|>' + message.role + '\\n' + content }}", "        {%- else %}\n            {{- content }}"),
        ("        {{- '<|im_end|>\\n' }}\n    {%- elif message.role == \"tool\" %}", "        {{- '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}\n    {%- elif message.role == \"tool\" %}"))),
    "mistral": (families.MISTRAL, replaced(
        families.MISTRAL,
        ('{{- " " + message["content"]|trim + eos_token}}', '{%- generation -%}{{- " " + message["content"]|trim + eos_token}}{%- endgeneration -%}'))),
    "phi": (families.PHI, replaced(
        families.PHI, ("{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}",
                       "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' }}{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}"
                       "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"))),
    "training": (None, families.TRAINING),
    "deepseek": (families.DEEPSEEK, replaced(
        families.DEEPSEEK,
        ("{{'<\uff5cAssistant\uff5c>' + content + eos_token}}", "{{'<\uff5cAssistant\uff5c>'}}{% generation %}{{ content + eos_token}}{% endgeneration %}"))),
}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "of a city", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]


def train(out, seed):
    lines = make_tokenizer_ids.corpus(seed)
    special = [AddedToken(s, special=True, normalized=False) for s in SPECIAL]
    level = pre_tokenizers.ByteLevel
    patterns = {"llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
                "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", "gpt2": None}
    for name, pattern in patterns.items():
        t = Tokenizer(models.BPE())
        t.pre_tokenizer = level(add_prefix_space=False) if pattern is None else pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), "isolated"), level(add_prefix_space=False, use_regex=False)])
        t.normalizer = normalizers.NFC() if name == "qwen2" else None
        t.decoder = decoders.ByteLevel()
        t.train_from_iterator(lines + ["assistant\n\nHi\n\n\n", "user\n\n ok"] * 50, trainers.BpeTrainer(
            vocab_size=700, initial_alphabet=level.alphabet(), special_tokens=special, show_progress=False))
        t.save(os.path.join(out, f"{name}.json"))
    # As Llama 2: a space before every text, bytes for what is not in the vocabulary, no pre-tokenizer.
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    t.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=1000, special_tokens=["<unk>", *special, *BYTES], limit_alphabet=60, show_progress=False))
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    saved = json.loads(t.to_str())
    saved["added_tokens"] = [a for a in saved["added_tokens"] if a["content"] not in BYTES]
    with open(os.path.join(out, "llama2.json"), "w") as f:
        json.dump(saved, f)
    saved["normalizer"], saved["pre_tokenizer"] = None, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}
    with open(os.path.join(out, "mistral.json"), "w") as f:
        json.dump(saved, f)


def text(rng):
    words = ["the", "quick", "fox", "3", "1234", "caf\u00e9", "cafe\u0301", "\u4e16\u754c", "don't", "x=1;", "\U0001F600", "\n", "\n\n", "  ", "\u041f\u0440\u0438\u0432\u0435\u0442", "lower", "%"]
    body = rng.choice(["", "", " "]).join(rng.choice(words) for _ in range(rng.randint(1, 8))) if rng.random() < 0.5 else " ".join(rng.choice(words) for _ in range(rng.randint(1, 12)))
    return rng.choice(["", "", "", "\n", "\n\n", " ", "  "]) + body + rng.choice(["", "", ".", "\n", " "])


def conversation(rng, name):
    messages = []
    if rng.random() < 0.4 and name != "mistral":
        messages.append({"role": "system", "content": text(rng)})
    for _ in range(rng.randint(1, 4)):
        messages.append({"role": "user", "content": text(rng)})
        answer = {"role": "assistant", "content": text(rng)}
        thinks = rng.random() < 0.4
        if name == "qwen" and thinks and rng.random() < 0.5:
            answer["reasoning_content"] = text(rng)
        elif name in ("qwen", "deepseek") and thinks:
            answer["content"] = "<think>\n" + text(rng) + "\n</think>\n\n" + answer["content"]
        messages.append(answer)
    if name in ("qwen", "llama3") and rng.random() < 0.3:
        call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "K\u00f6ln", "days": rng.randint(0, 5)}}}
        messages += [{"role": "user", "content": text(rng)}, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": text(rng)},
                     {"role": "assistant", "content": text(rng)}]
        return messages, TOOLS
    if rng.random() < 0.15:
        messages.pop()  # no last answer
    return messages, None


def fast(path):
    return transformers.PreTrainedTokenizerFast(tokenizer_file=path, bos_token="<s>", eos_token="</s>")


def case(tokenizer, name, messages, tools, arguments):
    plain, tagged = TEMPLATES[name]
    try:
        made = tokenizer.apply_chat_template(messages, tools=tools, chat_template=tagged, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, **arguments)
    except Exception as error:
        raise SystemExit(f"{name}: {error}: {messages}")
    if plain is not None:
        assert tokenizer.apply_chat_template(messages, tools=tools, chat_template=plain, tokenize=True, return_dict=False, **arguments) == made["input_ids"], name
    return {"name": name, "plain": plain, "tagged": tagged, "messages": messages, "tools": tools, "arguments": arguments, "ids": made["input_ids"], "mask": made["assistant_masks"]}


def random_cases(out, count, seed):
    train(out, seed)
    rng = random.Random(seed)
    tokenizers = {name: fast(os.path.join(out, name)) for name in sorted(os.listdir(out)) if name.endswith(".json")}
    with open(os.path.join(out, "cases.jsonl"), "w") as f:
        for i in range(count):
            file = rng.choice(list(tokenizers))
            name = list(TEMPLATES)[i % len(TEMPLATES)]
            messages, tools = conversation(rng, name)
            arguments = {"date_string": "1 Jan 2026"} if name == "llama3" else {}
            f.write(json.dumps({"tokenizer": file, **case(tokenizers[file], name, messages, tools, arguments)}) + "\n")


def of_file(gguf, path, count):
    tokenizer = transformers.AutoTokenizer.from_pretrained(os.path.dirname(gguf), gguf_file=os.path.basename(gguf))
    # As in the model's tokenizer.json; transformers does not read it from a GGUF.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    TEMPLATES["smollm2"] = (tokenizer.chat_template, TEMPLATES["smollm2"][1])
    with open(path) as f:
        for _, line in zip(range(count), f):
            row = json.loads(line)
            messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
            made = case(tokenizer, "smollm2", messages, None, {})
            print(json.dumps({"ids": made["ids"], "mask": made["mask"]}))


if __name__ == "__main__":
    if sys.argv[1] == "random":
        random_cases(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        of_file(sys.argv[2], sys.argv[3], int(sys.argv[4]))
