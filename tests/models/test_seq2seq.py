"""The encoder-decoder: gradients, padding, losses, decoding, saving and loading."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from reformer import ReformerConfig, ReformerForSeq2SeqLM, ReformerSeq2SeqConfig
from tests.models import small_models
from tests.models.small_models import VOCAB_SIZE, assert_identical, gradients, tokens

DROPOUT = {"hidden_dropout_prob": 0.1, "lsh_attention_probs_dropout_prob": 0.1}


def build(
    *,
    encoder: dict[str, Any] | None = None,
    decoder: dict[str, Any] | None = None,
    seed: int = 0,
    **changes: Any,
) -> ReformerForSeq2SeqLM:
    """A model in evaluation mode, of three layers in each half."""
    torch.manual_seed(seed)
    config = ReformerSeq2SeqConfig(
        encoder=small_models.config(is_decoder=False, **(encoder or {})),
        decoder=small_models.config(**(decoder or {})),
        **changes,
    )
    return ReformerForSeq2SeqLM(config).eval()


def _padded(rows: list[Tensor], value: int, *, left: bool) -> tuple[Tensor, Tensor]:
    """Rows of different lengths `[T]` together, and where they are."""
    T = max(len(row) for row in rows) + 3
    whole = torch.full((len(rows), T), value)
    for row, into in zip(rows, whole, strict=True):
        into[T - len(row) if left else 0 :][: len(row)] = row
    return whole, whole != value


# Gradients.


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
def test_reversible_and_stored_gradients_are_identical(training: bool, autocast: bool) -> None:
    source, labels = tokens(2, 70), tokens(2, 40, seed=2)
    mask = torch.ones_like(source)
    mask[1, :25] = 0
    labels[0, 30:] = -100
    found = []
    for reversible in (True, False):
        half = {"reversible": reversible, "chunk_size_feed_forward": 33, **DROPOUT}
        model = build(encoder=half, decoder=half, label_smoothing=0.1).train(training)
        model.encoder.encoder.layers[1].requires_grad_(False)
        model.decoder.encoder.layers[2].cross_attention.key.requires_grad_(False)
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = model(source, mask, labels=labels).loss
        loss.backward()
        found.append(gradients(model))
    assert_identical(*found)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == found[0].keys()
    assert all(gradient.any() for gradient in found[0].values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_gradients_in_other_dtypes(dtype: torch.dtype) -> None:
    found = []
    for reversible in (True, False):
        half = {"reversible": reversible}
        model = build(encoder=half, decoder=half).to(dtype)
        model(tokens(2, 50), labels=tokens(2, 30, seed=2)).loss.backward()
        found.append(gradients(model))
    assert_identical(*found)
    assert all(gradient.isfinite().all() for gradient in found[0].values())


def test_hidden_states_and_attentions() -> None:
    model = build()
    source, target = tokens(2, 50), tokens(2, 30, seed=2)
    mask = torch.ones_like(target)
    mask[0, :4] = 0
    plain = model(source, decoder_input_ids=target, decoder_attention_mask=mask)
    output = model(
        source,
        decoder_input_ids=target,
        decoder_attention_mask=mask,
        output_hidden_states=True,
        output_attentions=True,
    )
    assert torch.equal(plain.logits, output.logits)
    assert [tuple(x.shape) for x in output.encoder_hidden_states] == [(2, 50, 32)] * 4
    assert [tuple(x.shape) for x in output.decoder_hidden_states] == [(2, 30, 32)] * 4
    assert [tuple(x.shape) for x in output.encoder_attentions] == [(2, 2, 50, 50)] * 3
    assert [tuple(x.shape) for x in output.decoder_attentions] == [(2, 2, 30, 30)] * 3
    assert [tuple(x.shape) for x in output.cross_attentions] == [(2, 2, 30, 50)] * 3
    for weights in output.cross_attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 30))
    assert output.encoder_last_hidden_state.shape == (2, 50, 64)


# What a position sees.


def test_decoder_is_causal_and_sees_the_whole_source() -> None:
    model = build()
    source, target = tokens(1, 50), tokens(1, 30, seed=2)
    logits = model(source, decoder_input_ids=target).logits
    later = target.clone()
    later[0, 20] = (later[0, 20] + 1) % VOCAB_SIZE
    changed = model(source, decoder_input_ids=later).logits
    torch.testing.assert_close(changed[:, :20], logits[:, :20], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(changed[:, 20:], logits[:, 20:], atol=1e-2)
    for place in (0, 49):
        other = source.clone()
        other[0, place] = (other[0, place] + 1) % VOCAB_SIZE
        assert not torch.equal(model(other, decoder_input_ids=target).logits[:, 0], logits[:, 0])


@pytest.mark.parametrize(("left_source", "left_target"), list(itertools.product([True, False], repeat=2)))
@pytest.mark.parametrize("positions", ["rotary", "axial", "learned"])
def test_padding_changes_nothing(positions: str, left_source: bool, left_target: bool) -> None:
    half = {"position_embedding_type": positions}
    model = build(encoder=half, decoder=half).double()
    sources, targets = [tokens(n, seed=n) for n in (50, 23)], [tokens(n, seed=n) for n in (30, 17)]
    source, source_mask = _padded(sources, 0, left=left_source)
    labels, target_mask = _padded(targets, -100, left=left_target)
    output = model(source, source_mask, labels=labels)
    total = 0.0
    for b, (one, target) in enumerate(zip(sources, targets, strict=True)):
        alone = model(one[None], labels=target[None])
        torch.testing.assert_close(output.logits[b, target_mask[b]], alone.logits[0], rtol=1e-6, atol=1e-6)
        total += alone.loss.item() * len(target)
    assert output.loss.item() == pytest.approx(total / 47, rel=1e-6)


# Losses.


def _reference_loss(model: ReformerForSeq2SeqLM, source: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    logits = model.eval()(
        source, decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels)
    ).logits
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_is_that_of_torch(smoothing: float) -> None:
    """In chunks in training; not at all in evaluation."""
    no_dropout = {"hidden_dropout_prob": 0.0, "local_attention_probs_dropout_prob": 0.0}
    half = {"attn_layers": ["local", "full"], "chunk_size_lm_head": 7, **no_dropout}
    model = build(encoder=half, decoder=half, label_smoothing=smoothing).double()
    source, labels = tokens(2, 50), tokens(2, 30, seed=2)
    labels[1, 25:] = -100
    found = []
    for loss in (
        model.train()(source, labels=labels).loss,
        _reference_loss(model, source, labels, smoothing),
    ):
        model.zero_grad()
        loss.backward()
        found.append({"loss": loss.detach()} | gradients(model))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-5, atol=1e-6, msg=name)
    plain = _reference_loss(model, source, labels, 0.0)
    torch.testing.assert_close(model.eval()(source, labels=labels).loss, plain)
    assert (found[0]["loss"] == pytest.approx(plain.item(), rel=1e-5)) == (smoothing == 0.0)


def test_logits_are_not_given_in_training_with_labels() -> None:
    model = build().train()
    output = model(tokens(1, 20), labels=tokens(1, 10))
    assert output.logits is None
    assert model(tokens(1, 20), decoder_input_ids=tokens(1, 10)).logits.shape == (1, 10, VOCAB_SIZE)


def test_decoder_input_ids_are_the_labels_one_later() -> None:
    model = build(pad_token_id=1, decoder_start_token_id=2)
    labels = torch.tensor([[5, 6, 7, -100], [-100, 8, 9, 10], [5, -100, 6, 7], [-100] * 4])
    wanted = [[2, 5, 6, 7], [1, 2, 8, 9], [2, 5, 1, 6], [2, 1, 1, 1]]
    found = model.prepare_decoder_input_ids_from_labels(labels)
    assert found.tolist()[:3] == wanted[:3]
    assert found[3, 0] == 2


# Decoding.

MODES = {
    "greedy": {"do_sample": False},
    "sample": {"do_sample": True, "top_k": 0},
    "beam": {"num_beams": 3, "do_sample": False},
    "beam_sample": {"num_beams": 2, "do_sample": True},
    "several": {"do_sample": True, "num_return_sequences": 3},
}


def _generate(model: ReformerForSeq2SeqLM, source: Tensor, **options: Any) -> Tensor:
    torch.manual_seed(5)
    return model.generate(source, max_new_tokens=24, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kinds", [["local", "lsh", "full"], ["lsh"]], ids=str)
def test_generate_with_and_without_cache_is_the_same(kinds: list[str], mode: str) -> None:
    model = build(decoder={"attn_layers": kinds, "position_embedding_type": "axial"}, eos_token_id=9).double()
    source, mask = _padded([tokens(n, seed=n) for n in (40, 23)], 0, left=True)
    cached, plain = (
        _generate(model, source, attention_mask=mask, use_cache=use_cache, **MODES[mode])
        for use_cache in (True, False)
    )
    assert cached.shape[1] > 5
    assert len(cached.unique()) > 3
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("mode", ["greedy", "beam", "sample"])
@pytest.mark.parametrize("left", [True, False])
def test_batch_equals_singles(mode: str, left: bool) -> None:
    model = build(eos_token_id=None).double()
    sources = [tokens(n, seed=n) for n in (40, 23, 9)]
    source, mask = _padded(sources, 0, left=left)
    together = _generate(model, source, attention_mask=mask, **MODES[mode])
    for one, row in zip(sources, together, strict=True):
        alone = _generate(model, one[None], **MODES[mode])[0]
        assert row.tolist() == alone.tolist() + [0] * (len(row) - len(alone))


@pytest.mark.parametrize("use_cache", [True, False])
def test_prompts_of_different_lengths(use_cache: bool) -> None:
    """Targets that have begun, with padding on the left."""
    model = build(eos_token_id=None).double()
    source = tokens(2, 40)
    prompts = [F.pad(tokens(n, seed=n), (1, 0), value=0) for n in (12, 5)]
    together = torch.zeros(2, 13, dtype=torch.int64)
    mask = torch.zeros_like(together)
    for prompt, row, real in zip(prompts, together, mask, strict=True):
        row[-len(prompt) :] = prompt
        real[-len(prompt) :] = 1
    found = _generate(
        model, source, decoder_input_ids=together, decoder_attention_mask=mask, use_cache=use_cache
    )
    for b, prompt in enumerate(prompts):
        alone = _generate(model, source[b : b + 1], decoder_input_ids=prompt[None])
        assert torch.equal(found[b, 13:], alone[0, len(prompt) :])


def test_cached_logits_are_those_of_the_parallel_forward() -> None:
    model = build().double()
    source, target = tokens(2, 40), tokens(2, 70, seed=2)
    wanted = model(source, decoder_input_ids=target).logits
    encoded, cache, found = model.get_encoder()(source), None, []
    for part in target.split([20, 1, 1, 30, 18], dim=1):
        output = model(decoder_input_ids=part, encoder_outputs=encoded, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        found.append(output.logits)
    # The streams are rounded to 2^-20.
    torch.testing.assert_close(torch.cat(found, 1), wanted, rtol=1e-4, atol=1e-4)


def test_what_a_step_costs_does_not_grow_with_the_target() -> None:
    """The decoder keeps windows and rings, as a causal model does, beside the source's keys and values."""
    half = {"attn_layers": ["local", "lsh"], "max_num_buckets": 2, "lsh_attn_chunk_length": 4}
    model = build(decoder=half | {"position_embedding_type": "rotary"})
    encoded, sizes = model.get_encoder()(tokens(1, 40)), []
    cache = None
    with torch.no_grad():
        for part in tokens(1, 1500).split([500, *[1] * 1000], dim=1):
            output = model(
                decoder_input_ids=part, encoder_outputs=encoded, past_key_values=cache, use_cache=True
            )
            cache = output.past_key_values
            sizes.append(cache.num_bytes)
    assert sizes[0] == sizes[-1]
    rows_of_memory = [pair[0].shape for pair in cache.memory.values()]
    assert rows_of_memory == [(1, 40, 16)] * 2


def test_source_is_projected_once_for_all_beams_and_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(eos_token_id=None)
    rows = []
    for layer in model.decoder.encoder.layers:
        project = layer.cross_attention.project_memory
        monkeypatch.setattr(
            layer.cross_attention,
            "project_memory",
            lambda memory, seed, f=project: (rows.append(len(memory)), f(memory, seed))[1],
        )
    _generate(model, tokens(2, 40), num_beams=4)
    assert rows == [2, 2, 2]


def test_sampling_follows_the_seed() -> None:
    model = build(eos_token_id=None)
    first, second = (_generate(model, tokens(1, 40), do_sample=True) for _ in range(2))
    assert torch.equal(first, second)


def test_a_cache_is_refused_in_training_and_with_labels() -> None:
    model = build()
    with pytest.raises(ValueError, match="labels, hidden states and attentions need use_cache=False"):
        model(tokens(1, 20), labels=tokens(1, 10), use_cache=True)
    with pytest.raises(ValueError, match="needs the model in evaluation mode"):
        model.train()(tokens(1, 20), decoder_input_ids=tokens(1, 10), use_cache=True)


# Saving, loading, configuration.


@pytest.mark.parametrize("tied", [True, False])
def test_saved_model_loads_bit_identically(tied: bool, tmp_path: Path) -> None:
    model = build(tie_word_embeddings=tied, label_smoothing=0.1)
    tables = [half.get_input_embeddings().weight for half in (model.encoder, model.decoder)]
    assert (tables[0] is tables[1]) == tied
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = [name for name in file.keys() if "word_embeddings" in name]  # noqa: SIM118
    assert len(names) == (1 if tied else 2)

    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(loaded) is ReformerForSeq2SeqLM
    assert_identical(dict(model.state_dict()), dict(loaded.state_dict()))
    tables = [half.get_input_embeddings().weight for half in (loaded.encoder, loaded.decoder)]
    assert (tables[0] is tables[1]) == tied
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is ReformerSeq2SeqConfig
    assert config.to_dict() == loaded.config.to_dict()
    assert config.decoder.cross_attention_hidden_size == 64
    source, target = tokens(1, 20), tokens(1, 10)
    assert torch.equal(
        loaded(source, decoder_input_ids=target).logits, model(source, decoder_input_ids=target).logits
    )


@pytest.mark.parametrize("tied", [True, False])
def test_vocabularies_are_resized_together(tied: bool, tmp_path: Path) -> None:
    model = build(tie_word_embeddings=tied)
    model.resize_token_embeddings(VOCAB_SIZE + 5)
    output = model(tokens(1, 20) + 5, labels=tokens(1, 10) + 5)
    assert output.logits.shape == (1, 10, VOCAB_SIZE + 5)
    model.save_pretrained(tmp_path)
    loaded = ReformerForSeq2SeqLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(tokens(1, 20) + 5, labels=tokens(1, 10) + 5).logits, output.logits)


def test_default_configuration() -> None:
    config = ReformerSeq2SeqConfig()
    encoder, decoder = config.halves
    assert [len(half.attn_layers) for half in (encoder, decoder)] == [6, 6]
    assert (encoder.local_num_chunks_after, encoder.lsh_num_chunks_after) == (1, 1)
    assert (decoder.local_num_chunks_after, decoder.lsh_num_chunks_after) == (0, 0)
    assert config.is_encoder_decoder
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 2, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoder": ReformerConfig(is_decoder=True)}, "the encoder needs is_decoder=False"),
        ({"decoder": {"is_decoder": False}}, "the encoder needs is_decoder=False"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), got 1.0"),
        ({"vocab_size": 7}, "vocab_size is the decoder's, 320"),
        ({"encoder": {"vocab_size": 50}, "tie_word_embeddings": True}, "needs equal vocab_size"),
    ],
)
def test_a_configuration_that_does_not_fit_is_an_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReformerSeq2SeqConfig(**fields)


def test_a_memory_has_features() -> None:
    with pytest.raises(ValueError, match="cross_attention_hidden_size must be at least 1, got 0"):
        ReformerConfig(cross_attention_hidden_size=0)


def test_inputs_that_do_not_fit_are_errors() -> None:
    model = build()
    with pytest.raises(ValueError, match="give either input_ids or inputs_embeds"):
        model(tokens(1, 20))
    with pytest.raises(ValueError, match="go together"):
        model.decoder(tokens(1, 20))
    with pytest.raises(ValueError, match=r"attention_mask must be \[1, 20\]"):
        model(tokens(1, 20), torch.ones(1, 19), labels=tokens(1, 10))


def test_seq2seq_trainer_trains_evaluates_and_generates(tmp_path: Path) -> None:
    model = build(label_smoothing=0.1, eos_token_id=2)
    rows = [
        {"input_ids": tokens(n, seed=n).tolist(), "labels": tokens(n // 2, seed=n).tolist()}
        for n in range(20, 36)
    ]

    class Tokenizer:
        """As much of one as the collator needs."""

        padding_side = "left"

        def pad(self, features: Any, **_: Any) -> dict[str, Tensor]:
            ids, mask = _padded([torch.tensor(f["input_ids"]) for f in features], 0, left=True)
            return {"input_ids": ids, "attention_mask": mask.long()}

    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        predict_with_generate=True,
        generation_max_length=12,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Seq2SeqTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,  # type: ignore[arg-type]
        eval_dataset=rows[:4],  # type: ignore[arg-type]
        data_collator=DataCollatorForSeq2Seq(Tokenizer(), model=model),  # type: ignore[arg-type]
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    predictions = trainer.predict(rows[:4]).predictions
    assert len(predictions) == 4
    assert not predictions[:, 12:].any()
