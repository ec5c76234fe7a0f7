"""Tiny random BERTs made by transformers, with what transformers computes on them.

make_tiny_encoders.py OUT SEED
    OUT/<name>/                      the checkpoint, as sentence-transformers lays it out
    OUT/<name>.expected.safetensors  for each text i: tokens.i [T] i32, hidden.i [T, hidden] f32, vector.i [hidden] f32, pooled as the
                                     checkpoint says; of the cross-encoder also second.i [1] i32 and score.i [1] f32
    OUT/bert.gguf                    the weights of OUT/mean in GGUF, written by the package gguf
    prints the names of the directories, one a line
"""
import json
import random
import sys
from pathlib import Path

import gguf
import torch
from safetensors.torch import save_file
from tokenizers import BertWordPieceTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, BertModel, PreTrainedTokenizerFast

TEXT = ["Frugal makes a large language model cheaper and proves what that cost.", "The quick brown fox jumps over the lazy dog; 12345 times!",
        "Grouped integers, sparse masks, low-rank factors: every chain is measured.", "Ein Häuschen, naïve café, 東京."]
LENGTHS = [1, 2, 3, 7, 16, 17, 40, 64]


def make_tokenizer():
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator(TEXT, vocab_size=200, show_progress=False)
    special = [(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, unk_token="[UNK]", sep_token="[SEP]", cls_token="[CLS]", pad_token="[PAD]",
                                   mask_token="[MASK]", model_max_length=64)


def write_modules(folder, pooling, normalize):
    types = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    paths = ["", "1_Pooling", "2_Normalize"]
    modules = [{"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(types)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    flags = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "last": "pooling_mode_lasttoken"}
    (folder / "1_Pooling/config.json").write_text(json.dumps({name: kind == pooling for kind, name in flags.items()}))


def expected(model, body, config, rng, pooling, normalize):
    values = {}
    for i, length in enumerate(LENGTHS):
        ids = torch.tensor([[rng.randrange(config.vocab_size) for _ in range(length)]])
        second = rng.randrange(1, length + 1) if model is not body else -1
        types = (torch.arange(length) >= second).long()[None] if second >= 0 else torch.zeros_like(ids)
        hidden = body(input_ids=ids, token_type_ids=types).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        if normalize:
            vector = torch.nn.functional.normalize(vector, dim=-1)
        values |= {f"tokens.{i}": ids[0].int(), f"hidden.{i}": hidden, f"vector.{i}": vector}
        if second >= 0:
            values |= {f"second.{i}": torch.tensor([second], dtype=torch.int32), f"score.{i}": model(input_ids=ids, token_type_ids=types).logits[0]}
    return {name: value.detach().clone().contiguous() for name, value in values.items()}


def write_gguf(path, model, config, tokenizer):
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_layer_norm_eps(config.layer_norm_eps)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    special = set(tokenizer.all_special_tokens)
    # As llama.cpp's converter writes them: word starts are marked, continuations are not.
    writer.add_token_list([text if text in special else text[2:] if text.startswith("##") else "\u2581" + text for text, _ in vocabulary])
    writer.add_token_types([gguf.TokenType.CONTROL if text in special else gguf.TokenType.NORMAL for text, _ in vocabulary])
    writer.add_uint32("tokenizer.ggml.cls_token_id", tokenizer.cls_token_id)
    writer.add_sep_token_id(tokenizer.sep_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if "pooler" in name or "position_ids" in name:
            continue
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    out, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    torch.manual_seed(int(sys.argv[2]))
    tokenizer = make_tokenizer()
    for name, activation, pooling, normalize in (("mean", "gelu", "mean", True), ("cls", "gelu_new", "cls", False), ("last", "relu", "last", True),
                                                 ("cross", "gelu", "mean", True)):
        heads = rng.choice([1, 2, 3, 4])
        config = BertConfig(vocab_size=len(tokenizer), hidden_size=heads * rng.choice([8, 12, 16]), num_hidden_layers=3, num_attention_heads=heads,
                            intermediate_size=rng.randrange(20, 80), hidden_act=activation, max_position_embeddings=64, initializer_range=0.3,
                            layer_norm_eps=1e-12, num_labels=1)
        config._attn_implementation = "eager"
        model = BertForSequenceClassification(config).eval() if name == "cross" else BertModel(config).eval()
        for parameter in model.parameters():  # biases and norms are zeros and ones otherwise
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
        folder = out / name
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if name != "cross":
            write_modules(folder, pooling, normalize)
        body = model.bert if name == "cross" else model
        with torch.no_grad():
            save_file(expected(model, body, config, rng, pooling, normalize), str(folder) + ".expected.safetensors")
        if name == "mean":
            write_gguf(out / "bert.gguf", model, config, tokenizer)
        print(name)


if __name__ == "__main__":
    main()
