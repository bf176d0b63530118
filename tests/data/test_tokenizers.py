from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoTokenizer, DataCollatorForLanguageModeling, PreTrainedConfig

from reformer.data import (
    ByteTokenizer,
    NucleotideTokenizer,
    ProteinTokenizer,
    build_token_array,
    register_auto_tokenizers,
    tokenizer_for,
)
from reformer.errors import UserError
from tests.data.conftest import expected_ids

Make = Callable[..., NucleotideTokenizer | ProteinTokenizer | ByteTokenizer]
TOKENIZERS = [NucleotideTokenizer, partial(NucleotideTokenizer, "keep"), ProteinTokenizer, ByteTokenizer]


@given(st.text(st.sampled_from("ACGTURYSWKMBDHVNacgturyswkmbdhvn")))
def test_nucleotides_follow_the_rule_and_decode_to_the_letters_kept(sequence: str) -> None:
    for lower_case in ("fold", "keep"):
        tokenizer = NucleotideTokenizer(lower_case)  # type: ignore[arg-type]
        ids = tokenizer(sequence)["input_ids"]
        assert ids == expected_ids(sequence, lower_case).tolist()
        kept = sequence.translate(str.maketrans("UuRYSWKMBDHVryswkmbdhv", "TtNNNNNNNNNNnnnnnnnnnn"))
        assert tokenizer.decode(ids) == (kept.upper() if lower_case == "fold" else kept)


def test_amino_acids_follow_the_rule() -> None:
    tokenizer = ProteinTokenizer()
    assert tokenizer.get_vocab() == {
        token: number
        for number, token in enumerate(["[PAD]", "[BOS]", "[EOS]", "[MASK]", *"ACDEFGHIKLMNPQRSTVWYX"])
    }
    ids = tokenizer("ACDEFGHIKLMNPQRSTVWYacdefghiklmnpqrstvwyBJOUXZbjouxz")["input_ids"]
    assert ids == [*range(4, 24), *range(4, 24), *[24] * 12]
    for text, place in (("MK-V", 2), ("*", 0), ("MK V", 2)):
        with pytest.raises(UserError, match=f"position {place}: .* is not the letter of an amino acid"):
            tokenizer(text)


@given(st.text())
def test_bytes_are_those_of_the_text_and_decode_to_it(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer(text)["input_ids"]
    assert ids == list(text.encode())
    assert tokenizer.decode(ids) == text
    assert tokenizer.batch_decode([ids, ids]) == [text, text]


@given(st.lists(st.integers(0, 255)))
def test_bytes_that_are_not_text_decode_with_replacement(ids: list[int]) -> None:
    assert ByteTokenizer().decode(ids) == bytes(ids).decode("utf-8", errors="replace")


def test_ids_equal_those_of_the_array_on_disk(yeast_folder: Path, tmp_path: Path) -> None:
    (path,) = yeast_folder.glob("SkudIFO1802_1_GCF*_genomic.fna.gz")
    array = build_token_array(path, tmp_path, lower_case="keep")
    tokenizer = tokenizer_for(array)
    text = tokenizer.decode(array.tokens)
    assert len(text) == len(array) == 216_969
    assert tokenizer(text, return_tensors="np")["input_ids"][0].tolist() == array.tokens.tolist()
    assert tokenizer.get_vocab() == array.vocabulary

    text_path = tmp_path / "a.txt"
    text_path.write_text("[PAD] naïve <text>\n", encoding="utf-8")
    array = build_token_array(text_path, tmp_path)
    tokenizer = tokenizer_for(array)
    assert isinstance(tokenizer, ByteTokenizer)
    assert tokenizer("[PAD] naïve <text>\n")["input_ids"] == array.tokens.tolist()


@pytest.mark.parametrize("lower_case", ["fold", "keep"])
def test_tokenizer_for(lower_case: str, tmp_path: Path) -> None:
    (tmp_path / "g.fa").write_bytes(b">a\nACGT\n")
    array = build_token_array(tmp_path / "g.fa", tmp_path, lower_case=lower_case)  # type: ignore[arg-type]
    for tokenizer in (tokenizer_for(array), tokenizer_for("nucleotide", lower_case=lower_case)):  # type: ignore[arg-type]
        assert isinstance(tokenizer, NucleotideTokenizer)
        assert tokenizer.lower_case == lower_case
        assert len(tokenizer) == tokenizer.vocab_size == (14 if lower_case == "keep" else 9)
    assert isinstance(tokenizer_for("byte"), ByteTokenizer)
    with pytest.raises(UserError, match='tokenizer is \'bpe\': expected "nucleotide", "byte" or "protein"'):
        tokenizer_for("bpe")


@pytest.mark.parametrize("make", TOKENIZERS)
def test_padding_and_truncation(make: Make) -> None:
    tokenizer = make()
    a, c, pad = (*tokenizer.convert_tokens_to_ids(["A", "C"]), tokenizer.pad_token_id)
    batch = tokenizer(["AAA", "C", ""], padding=True, return_tensors="pt")
    assert batch["input_ids"].dtype == torch.int64
    assert batch["input_ids"].tolist() == [[a, a, a], [c, pad, pad], [pad, pad, pad]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    batch = tokenizer(["AAA", "C"], padding=True, padding_side="left")
    assert batch["input_ids"] == [[a, a, a], [pad, pad, c]]
    assert batch["attention_mask"] == [[1, 1, 1], [0, 0, 1]]
    batch = tokenizer(["AAAC", "C"], padding="max_length", truncation=True, max_length=3, return_tensors="np")
    assert batch["input_ids"].tolist() == [[a, a, a], [c, pad, pad]]
    tokenizer.truncation_side = "left"
    assert tokenizer("AAAC", truncation=True, max_length=2)["input_ids"] == [a, c]
    assert tokenizer("AC", padding=True, pad_to_multiple_of=4)["attention_mask"] == [1, 1, 0, 0]
    assert tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True) == ["AAA", "C"]
    assert tokenizer.batch_decode(batch["input_ids"])[1] == "C[PAD][PAD]"


@pytest.mark.parametrize("make", TOKENIZERS)
@pytest.mark.parametrize("text", ["ACGT", "", ["ACGT", "AC"], ["ACGT", ""], [""]])
@pytest.mark.parametrize("return_tensors", ["pt", "np"])
def test_tensors_hold_what_lists_do(make: Make, text: str | list[str], return_tensors: str) -> None:
    tokenizer = make()
    options = {"padding": True, "return_special_tokens_mask": True, "return_length": True}
    lists = tokenizer(text, **options)
    tensors = tokenizer(text, return_tensors=return_tensors, **options)
    assert tensors.keys() == lists.keys()
    for key, value in lists.items():
        assert tensors[key].tolist() == ([value] if isinstance(text, str) else value)
        assert tensors[key].dtype in (torch.int64, np.int64)


def test_ragged_batches_do_not_become_tensors() -> None:
    with pytest.raises(ValueError, match="padding=True"):
        NucleotideTokenizer()(["ACGT", "AC"], return_tensors="pt")


@pytest.mark.parametrize("make", TOKENIZERS)
def test_saved_and_loaded_it_is_the_same(make: Make, tmp_path: Path) -> None:
    tokenizer = make(padding_side="left")
    tokenizer.add_tokens(["<gene>"])
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.padding_side == "left"
    assert again.special_tokens_map == tokenizer.special_tokens_map
    text = "ACGT<gene>nacgt"
    ids = again(text, split_special_tokens=False)["input_ids"]
    assert ids == tokenizer(text, split_special_tokens=False)["input_ids"]
    assert len(ids) == 10
    assert ids[4] == tokenizer.vocab_size == len(tokenizer) - 1
    decoded = text if tokenizer.decode(ids[-1:]) == "t" else "ACGT<gene>NACGT"
    assert again.decode(ids) == decoded
    assert again.convert_ids_to_tokens(torch.tensor(ids))[4] == "<gene>"


def test_auto_tokenizer_loads_both_beside_a_registered_configuration(tmp_path: Path) -> None:
    class TestConfig(PreTrainedConfig):
        model_type = "reformer-data-test"

    AutoConfig.register("reformer-data-test", TestConfig)
    register_auto_tokenizers(TestConfig)
    for tokenizer in (make() for make in TOKENIZERS):
        tokenizer.save_pretrained(tmp_path)
        TestConfig().save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        assert type(again) is type(tokenizer)
        assert again.get_vocab() == tokenizer.get_vocab()


def test_special_tokens_in_a_text() -> None:
    tokenizer = NucleotideTokenizer()
    assert tokenizer.all_special_ids == [1, 2, 0, 3]
    ids = tokenizer("[BOS]AC[MASK]G[EOS]")["input_ids"]
    assert ids == [1, 4, 5, 3, 6, 2]
    assert tokenizer.decode(ids) == "[BOS]AC[MASK]G[EOS]"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ACG"

    tokenizer = ByteTokenizer()
    assert tokenizer("[EOS]é")["input_ids"] == list("[EOS]é".encode())
    ids = tokenizer("[EOS]é", split_special_tokens=False)["input_ids"]
    assert ids == [258, 0xC3, 0xA9]
    assert tokenizer.decode(ids) == "[EOS]é"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "é"


@pytest.mark.parametrize(
    ("text", "position", "letter"),
    [
        ("ACX", 2, "'X'"),
        ("[BOS]AC-", 7, "'-'"),
        ("AC GT", 2, "' '"),
        ("ACGé", 3, "'é'"),
        ("A物", 1, "'物'"),
        ("?", 0, r"'\?'"),
        ("AC[FOO]", 2, r"'\['"),
        ("A\0", 1, r"'\\x00'"),
    ],
)
def test_a_letter_that_is_no_nucleotide_is_named_with_its_position(
    text: str, position: int, letter: str
) -> None:
    for lower_case in ("fold", "keep"):
        with pytest.raises(UserError, match=rf"^position {position}: {letter} is not a nucleotide") as error:
            NucleotideTokenizer(lower_case)(text)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)


def test_other_wrong_input_is_refused() -> None:
    with pytest.raises(UserError, match="lower_case is 'upper'"):
        NucleotideTokenizer("upper")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"position 1: .* cannot be written as UTF-8"):
        ByteTokenizer()("a\ud800")
    with pytest.raises(UserError, match="'X' is not a token of the NucleotideTokenizer"):
        NucleotideTokenizer().convert_tokens_to_ids("X")
    for ids in ([4, 9], 9, [-1]):
        with pytest.raises(UserError, match="is out of range: expected 0 to 8"):
            NucleotideTokenizer().decode(ids)


def test_collators_mask_and_pad() -> None:
    tokenizer = NucleotideTokenizer()
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=0)
    batch = collator([tokenizer("ACGT" * 20), tokenizer("ACGT")])
    assert batch["input_ids"].shape == (2, 80)
    assert (batch["input_ids"][0] == tokenizer.mask_token_id).any()
    assert batch["attention_mask"].sum() == 84


def test_reading_data_needs_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, reformer.data; reformer.data.build_token_array, reformer.data.WindowSampler\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
        "reformer.data.ByteTokenizer\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[0] == "[]"
    assert "transformers" in result.stdout.splitlines()[1]
