"""After `import reformer.auto`, transformers' pipelines work on a saved folder, no class being named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, pipeline

import reformer.auto
from reformer import (
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
    ReformerModel,
)
from reformer.data import ByteTokenizer, Enwik8Tokenizer, NucleotideTokenizer
from tests.models.small_models import build
from tests.models.test_seq2seq import build as build_seq2seq

TEXTS = ["hello", "hi there, you", "a"]


def _saved(cls: Any, tokenizer: Any, folder: Path, **changes: Any) -> Any:
    model = build(cls, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **changes)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), Enwik8Tokenizer()], ids=["bytes", "enwik8"])
def test_text_generation(tokenizer: Any, tmp_path: Path) -> None:
    model = _saved(ReformerForCausalLM, tokenizer, tmp_path)
    generate = pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert type(generate.model) is ReformerForCausalLM
    assert type(generate.tokenizer) is type(tokenizer)
    options = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    alone = [generate(text, **options)[0]["generated_text"] for text in TEXTS]
    for text, continuation in zip(TEXTS, alone, strict=True):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            for _ in range(6):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
        assert tokenizer.decode(ids[0, -6:], skip_special_tokens=True) == continuation
    together = generate(TEXTS, batch_size=3, **options)
    assert [row[0]["generated_text"] for row in together] == alone


CHAT = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}so: "


def test_a_chat_with_text_generation_which_took_the_place_of_summarization(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer(chat_template=CHAT)
    model = _saved(ReformerForCausalLM, tokenizer, tmp_path)
    generate = pipeline("text-generation", model=str(tmp_path), device="cpu")
    chats = [[{"role": "user", "content": f"Sum up: {text}"}] for text in TEXTS]
    options = {"max_new_tokens": 6, "do_sample": False}
    found = generate(chats, batch_size=3, **options)
    for text, chat, row in zip(TEXTS, chats, found, strict=True):
        assert row[0]["generated_text"][:-1] == chat
        ids = tokenizer(f"user: Sum up: {text}\nso: ", return_tensors="pt")["input_ids"]
        wanted = tokenizer.decode(model.generate(ids, **options)[0, ids.shape[1] :], skip_special_tokens=True)
        assert row[0]["generated_text"][-1] == {"role": "assistant", "content": wanted}


def test_texts_to_texts_with_the_auto_classes(tmp_path: Path) -> None:
    tokenizer, size = ByteTokenizer(), len(ByteTokenizer())
    model = build_seq2seq(encoder={"vocab_size": size}, decoder={"vocab_size": size}, pad_token_id=256)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tokenizer, loaded = (auto.from_pretrained(tmp_path) for auto in (AutoTokenizer, AutoModelForSeq2SeqLM))
    assert type(tokenizer) is ByteTokenizer
    options = {"max_new_tokens": 12, "num_beams": 2, "eos_token_id": None}
    together = loaded.generate(**tokenizer(TEXTS, padding=True, return_tensors="pt"), **options)
    for text, row in zip(TEXTS, together, strict=True):
        alone = model.generate(tokenizer(text, return_tensors="pt")["input_ids"], **options)
        assert tokenizer.decode(row) == tokenizer.decode(alone[0])


def test_fill_mask(tmp_path: Path) -> None:
    tokenizer = NucleotideTokenizer()
    model = _saved(ReformerForMaskedLM, tokenizer, tmp_path)
    fill = pipeline("fill-mask", model=str(tmp_path), device="cpu")
    found = fill("ACG[MASK]TTA", top_k=3)
    with torch.no_grad():
        logits = model(tokenizer("ACG[MASK]TTA", return_tensors="pt")["input_ids"]).logits[0, 3]
    wanted = logits.softmax(-1).topk(3)
    assert [guess["token"] for guess in found] == wanted.indices.tolist()
    assert [guess["score"] for guess in found] == pytest.approx(wanted.values.tolist(), rel=1e-5)
    token = tokenizer.convert_ids_to_tokens(found[0]["token"])
    assert found[0]["sequence"] in (f"ACG{token}TTA", "ACGTTA")  # special tokens are left out


@pytest.mark.parametrize("causal", [False, True])
def test_text_classification(causal: bool, tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    labels = {0: "book", 1: "letter", 2: "law"}
    changes = {"num_labels": 3, "id2label": labels, "label2id": {v: k for k, v in labels.items()}}
    model = _saved(ReformerForSequenceClassification, tokenizer, tmp_path, is_decoder=causal, **changes)
    classify = pipeline("text-classification", model=str(tmp_path), device="cpu")
    for text, found in zip(TEXTS, classify(TEXTS, batch_size=3), strict=True):
        with torch.no_grad():
            probabilities = model(tokenizer(text, return_tensors="pt")["input_ids"]).logits[0].softmax(-1)
        assert found["label"] == labels[int(probabilities.argmax())]
        assert found["score"] == pytest.approx(float(probabilities.max()), abs=1e-4)


def test_token_classification(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    model = _saved(ReformerForTokenClassification, tokenizer, tmp_path, num_labels=3)
    classify = pipeline("token-classification", model=str(tmp_path), device="cpu", ignore_labels=[])
    for text, found in zip(TEXTS, classify(TEXTS, batch_size=3), strict=True):
        with torch.no_grad():
            logits = model(tokenizer(text, return_tensors="pt")["input_ids"]).logits[0]
        assert [entity["word"] for entity in found] == list(text)
        assert [entity["entity"] for entity in found] == [f"LABEL_{i}" for i in logits.argmax(-1).tolist()]


def test_feature_extraction(tmp_path: Path) -> None:
    tokenizer = ByteTokenizer()
    model = _saved(ReformerModel, tokenizer, tmp_path)
    features = pipeline("feature-extraction", model=str(tmp_path), device="cpu")("hello", return_tensors=True)
    with torch.no_grad():
        wanted = model(tokenizer("hello", return_tensors="pt")["input_ids"]).last_hidden_state
    torch.testing.assert_close(features, wanted)


def test_names_are_there() -> None:
    assert reformer.auto.ReformerForCausalLM is ReformerForCausalLM
    with pytest.raises(AttributeError, match=r"reformer\.auto.* has no attribute 'Nothing'"):
        reformer.auto.Nothing  # noqa: B018


def test_any_name_of_the_package_registers_the_tokenizers(tmp_path: Path) -> None:
    _saved(ReformerForCausalLM, NucleotideTokenizer("keep"), tmp_path)
    assert type(AutoTokenizer.from_pretrained(tmp_path)) is NucleotideTokenizer
