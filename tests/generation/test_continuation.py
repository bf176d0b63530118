import math
from pathlib import Path
from typing import Any

import pytest
import torch

from reformer.data.tokenizers import ByteTokenizer, NucleotideTokenizer
from reformer.errors import UserError
from reformer.generation.continuation import Sampling, continue_text, read_prompt
from reformer.models.auto import ReformerConfig, ReformerForCausalLM

TINY = {
    "hidden_size": 16,
    "attention_head_size": 8,
    "num_attention_heads": 2,
    "feed_forward_size": 16,
    "attn_layers": ["local", "lsh"],
    "local_attn_chunk_length": 16,
    "lsh_attn_chunk_length": 16,
    "position_embedding_type": "rotary",
    "is_decoder": True,
}


def model_for(tokenizer: Any) -> ReformerForCausalLM:
    torch.manual_seed(0)
    config = ReformerConfig(
        **TINY,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = ReformerForCausalLM(config).eval()
    torch.nn.init.normal_(model.lm_head.decoder.weight, std=0.5)
    return model


def test_greedy_choice_is_the_likeliest_token_of_the_prefix() -> None:
    tokenizer = NucleotideTokenizer()
    model = model_for(tokenizer)
    text = "ACGTNACGGT"
    continuation = continue_text(model, tokenizer, text, Sampling(20, top_k=1))
    for _ in range(20):
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1]
        logits[tokenizer.all_special_ids] = -math.inf
        text += tokenizer.decode([int(logits.argmax())])
    assert text.endswith(continuation)
    assert len(continuation) == 20


def test_draws_follow_the_model() -> None:
    tokenizer = NucleotideTokenizer()
    model = model_for(tokenizer)
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer("ACGT")["input_ids"]])).logits[0, -1]
    logits[tokenizer.all_special_ids] = -math.inf
    expected = torch.softmax(logits / 0.7, 0)
    drawn = [continue_text(model, tokenizer, "ACGT", Sampling(1, 0.7, seed=seed)) for seed in range(100)]
    for letter in "ACGTN":
        probability = float(expected[tokenizer.convert_tokens_to_ids(letter)])
        deviation = math.sqrt(probability * (1 - probability) / 100)
        assert abs(drawn.count(letter) / 100 - probability) < 4 * deviation


def test_special_tokens_are_never_drawn_and_all_tokens_come() -> None:
    tokenizer = ByteTokenizer()
    model = model_for(tokenizer)
    weight = model.lm_head.decoder.weight
    with torch.no_grad():  # one of these has by far the largest logit, whatever the hidden state
        weight[tokenizer.pad_token_id] = 100 * torch.randn(weight.shape[1])
        weight[tokenizer.eos_token_id] = -weight[tokenizer.pad_token_id]
        drawn = model(torch.tensor([[120]])).logits[0, -1].argmax()
    assert int(drawn) in tokenizer.all_special_ids
    tokens: list[int] = []
    text = continue_text(model, tokenizer, "x", Sampling(40), on_token=lambda: tokens.append(1))
    assert not any(token in text for token in tokenizer.all_special_tokens)
    assert len(tokens) == 40


def test_global_random_state_is_left_alone() -> None:
    tokenizer = NucleotideTokenizer()
    model = model_for(tokenizer)
    state = torch.get_rng_state()
    continue_text(model, tokenizer, "ACGT", Sampling(3))
    assert torch.equal(torch.get_rng_state(), state)


def test_prompts_of_nucleotides() -> None:
    tokenizer = NucleotideTokenizer()
    model = model_for(tokenizer)
    texts = ("ACGTACGT", " ACGT\nacgt \n", ">name of it\nACGTAC\nGT\n")
    assert len({continue_text(model, tokenizer, text, Sampling(8)) for text in texts}) == 1


def test_prompt_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("é\n", encoding="utf-8")
    assert read_prompt(None, tmp_path / "x.txt") == "é\n"
    assert read_prompt("given", None) == "given"
    with pytest.raises(UserError, match="expected one of --prompt and --prompt-file"):
        read_prompt(None, None)


@pytest.mark.parametrize(
    "values",
    [
        (0,),
        (1, 0.0),
        (1, math.inf),
        (1, math.nan),
        (1, 1.0, 0),
        (1, 1.0, None, 0.0),
        (1, 1.0, None, 1.1),
        (1, 1.0, 1, 1.0, -1),
    ],
)
def test_values_out_of_range(values: tuple[Any, ...]) -> None:
    with pytest.raises(UserError, match="expected"):
        Sampling(*values)
