"""The tokenizers of the two public checkpoints of transformers' Reformer."""

import io
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, ReformerTokenizer

import reformer.auto
from reformer.data import Enwik8Tokenizer

WORDS = "On an exceptionally hot evening early in July a young man came out of the garret in which he lodged"


@given(st.text())
def test_the_id_of_a_byte_is_byte_plus_two(text: str) -> None:
    tokenizer = Enwik8Tokenizer()
    ids = tokenizer(text)["input_ids"]
    assert ids == [byte + 2 for byte in text.encode()]
    assert tokenizer.decode(ids) == text


def test_padding_is_zero_and_decodes_to_nothing() -> None:
    tokenizer = Enwik8Tokenizer()
    assert (len(tokenizer), tokenizer.vocab_size) == (258, 258)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert (tokenizer.bos_token, tokenizer.mask_token) == (None, None)
    batch = tokenizer(["<page>", "é"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[62, 114, 99, 105, 103, 64], [197, 171, 0, 0, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [6, 2]
    assert tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["<page>", "é"]


def test_it_is_found_in_a_folder(tmp_path: Path) -> None:
    reformer.auto.ReformerConfig(vocab_size=258, position_embedding_type="rotary").save_pretrained(tmp_path)
    Enwik8Tokenizer().save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is Enwik8Tokenizer
    assert again("ab")["input_ids"] == [99, 100]


@pytest.fixture(scope="module")
def spiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SentencePiece model, made here, of the kind that crime-and-punishment has."""
    folder = tmp_path_factory.mktemp("spiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS, WORDS.lower()] * 20),
        model_writer=model,
        model_type="bpe",
        vocab_size=60,
        pad_id=0,
        unk_id=3,
        bos_id=-1,
        eos_id=2,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    return folder


def test_sentencepiece_models_are_read_by_transformers(spiece_folder: Path) -> None:
    tokenizer = ReformerTokenizer.from_pretrained(spiece_folder)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(spiece_folder / "spiece.model"))
    for text in (WORDS, "a garret in July", "hot  evening"):
        assert tokenizer(text)["input_ids"] == processor.encode(text)
        assert tokenizer.decode(processor.encode(text)) == processor.decode(processor.encode(text))


def test_sentencepiece_next_to_a_model_of_ours(spiece_folder: Path, tmp_path: Path) -> None:
    tokenizer = ReformerTokenizer.from_pretrained(spiece_folder)
    tokenizer.save_pretrained(tmp_path)
    reformer.auto.ReformerConfig(position_embedding_type="rotary").save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(WORDS)["input_ids"] == tokenizer(WORDS)["input_ids"]
