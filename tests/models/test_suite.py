"""What transformers' suite asks of every model, and our other tests do not: docs/transformers-suite.md."""

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from reformer import (
    ReformerConfig,
    ReformerForCausalLM,
    ReformerForMaskedLM,
    ReformerForQuestionAnswering,
    ReformerForSequenceClassification,
    ReformerForTokenClassification,
    ReformerModel,
)
from tests.models.small_models import HEADS, assert_identical, build, config, gradients, tokens

ALL = [ReformerModel, *HEADS]


def _labels(cls: Any, x: Tensor) -> dict[str, Tensor]:
    """Labels that fit an input, all zero."""
    zeros = torch.zeros_like(x)
    return {
        ReformerModel: {},
        ReformerForCausalLM: {"labels": x},
        ReformerForMaskedLM: {"labels": x},
        ReformerForQuestionAnswering: {"start_positions": zeros[:, 0], "end_positions": zeros[:, 0]},
        ReformerForSequenceClassification: {"labels": zeros[:, 0]},
        ReformerForTokenClassification: {"labels": zeros},
    }[cls]


def test_hidden_states_keep_their_gradients() -> None:
    model = build(ReformerForCausalLM)
    output = model(tokens(2, 20), output_hidden_states=True)
    for state in output.hidden_states:
        state.retain_grad()
    output.logits.sum().backward()
    for state in output.hidden_states:
        assert state.grad is not None
        assert state.grad.any()


@pytest.mark.parametrize("cls", HEADS)
def test_every_parameter_is_trained(cls: Any) -> None:
    """Two steps of training change every parameter, and lower the loss."""
    model, x = build(cls, num_labels=2, hidden_dropout_prob=0.0), tokens(4, 24)
    model.train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(8):
        loss = model(x, **_labels(cls, x)).loss
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    unchanged = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert not unchanged


@pytest.mark.parametrize("cls", ALL)
@torch.no_grad()
def test_a_batch_equals_its_rows(cls: Any) -> None:
    model, x = build(cls, num_buckets=4), tokens(3, 30)
    together = model(x).to_tuple()
    for row in range(3):
        for a, b in zip(model(x[row : row + 1]).to_tuple(), together, strict=True):
            torch.testing.assert_close(a, b[row : row + 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("cls", ALL)
@torch.no_grad()
def test_embeddings_can_be_resized(cls: Any) -> None:
    model, x = build(cls), tokens(2, 20)
    before = model(x)[0]
    model.resize_token_embeddings(50, mean_resizing=False)
    assert model.config.vocab_size == model.get_input_embeddings().num_embeddings == 50
    model(x + 10)
    after = model(x)[0]
    same = after[..., :40] if cls in (ReformerForCausalLM, ReformerForMaskedLM) else after
    assert torch.equal(same, before)
    head = model.get_output_embeddings()
    if head is not None:
        assert (head.out_features, len(model.lm_head.bias)) == (50, 50)
        model.resize_token_embeddings(pad_to_multiple_of=16, mean_resizing=False)
        assert (head.out_features, model.get_output_embeddings().out_features) == (50, 64)
        assert len(model.lm_head.bias) == 64
    model.resize_token_embeddings(40)
    assert torch.equal(model(x)[0], before)


@pytest.mark.parametrize("cls", ALL)
def test_embeddings_can_be_replaced(cls: Any) -> None:
    model = build(cls)
    new = nn.Embedding(44, 32)
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new
    model(torch.full((1, 5), 43))


@pytest.mark.parametrize("cls", [ReformerForCausalLM, ReformerForMaskedLM])
def test_head_and_embeddings_are_never_tied(cls: Any) -> None:
    """They have different shapes: the head works on both streams."""
    model = build(cls)
    model.tie_weights()
    assert model.get_output_embeddings().weight.shape == (40, 64)
    assert model.get_input_embeddings().weight.shape == (40, 32)
    with pytest.raises(ValueError, match="tie_word_embeddings cannot be"):
        config(tie_word_embeddings=True)


@pytest.mark.parametrize("reversible", [True, False])
def test_gradient_checkpointing(reversible: bool) -> None:
    """It makes layers that store their activations rebuild them, and changes no gradient."""
    model, x = build(ReformerForCausalLM, reversible=reversible).train(), tokens(2, 24)

    def run() -> dict[str, Tensor]:
        torch.manual_seed(0)
        model.zero_grad()
        model(x, labels=x).loss.backward()
        return gradients(model)

    before = run()
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    assert model.reformer.encoder.gradient_checkpointing
    loss = model(x, labels=x).loss
    assert "_Reversible" in _functions(loss)
    assert_identical(run(), before)
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing
    assert ("_Reversible" in _functions(model(x, labels=x).loss)) is reversible


def _functions(loss: Tensor) -> str:
    """Names of the functions of a graph."""
    names, nodes, seen = [], [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.append(node.name())
            nodes += [following for following, _ in node.next_functions]
    return " ".join(names)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("positions", ["axial", "learned", "rotary"])
@pytest.mark.parametrize("cls", ALL)
def test_low_precision(cls: Any, positions: str, dtype: torch.dtype) -> None:
    model, x = build(cls, position_embedding_type=positions), tokens(2, 20)
    low = copy.deepcopy(model).to(dtype)
    output = low(x)[0]
    assert output.dtype == dtype
    assert output.isfinite().all()
    assert (output.float() - model(x)[0]).abs().median() < 0.1
    loss = low(x, **_labels(cls, x))[0].float().sum()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in low.parameters() if p.grad is not None)


@pytest.mark.parametrize("cls", ALL)
@torch.no_grad()
def test_ways_of_loading(cls: Any, tmp_path: Path) -> None:
    model, x = build(cls), tokens(2, 20)
    model.save_pretrained(tmp_path)
    for options in ({"device_map": "cpu"}, {"device_map": "auto"}, {"dtype": torch.float32}):
        loaded = cls.from_pretrained(tmp_path, **options)
        assert torch.equal(loaded(x)[0], model(x)[0])
    assert cls.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert cls.from_pretrained(tmp_path, dtype="float16").dtype == torch.float16


def test_missing_and_unexpected_keys_are_told(tmp_path: Path) -> None:
    build(ReformerForCausalLM).save_pretrained(tmp_path)
    _, loading = ReformerForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert loading["missing_keys"] == {
        f"classifier.{layer}.{kind}" for layer in ("dense", "out_proj") for kind in ("weight", "bias")
    }
    assert loading["unexpected_keys"] == {"lm_head.bias", "lm_head.decoder.weight"}
    with pytest.raises(RuntimeError, match=r"size mismatch|mismatched"):
        ReformerForCausalLM.from_pretrained(tmp_path, vocab_size=44)
    _, loading = ReformerForCausalLM.from_pretrained(
        tmp_path, vocab_size=44, ignore_mismatched_sizes=True, output_loading_info=True
    )
    assert {name for name, *_ in loading["mismatched_keys"]} == {
        *("lm_head.bias", "lm_head.decoder.weight", "reformer.embeddings.word_embeddings.weight"),
    }


def test_weights_in_several_files(tmp_path: Path) -> None:
    model = build(ReformerForCausalLM)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_identical(ReformerForCausalLM.from_pretrained(tmp_path).state_dict(), model.state_dict())


@pytest.mark.parametrize("cls", ALL)
@torch.no_grad()
def test_copies_compute_the_same(cls: Any) -> None:
    model, x = build(cls), tokens(2, 20)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x)[0], model(x)[0])


@pytest.mark.parametrize(
    ("problem", "num_labels", "dtype"),
    [
        ("regression", 1, torch.float32),
        ("single_label_classification", 3, torch.int64),
        ("multi_label_classification", 3, torch.float32),
    ],
)
def test_problem_types(problem: str, num_labels: int, dtype: torch.dtype) -> None:
    x = tokens(4, 20)
    shape = (4, 3) if problem.startswith("multi") else (4,)
    labels = torch.ones(shape, dtype=dtype)
    losses = []
    for given in (problem, None):
        model = build(ReformerForSequenceClassification, num_labels=num_labels, problem_type=given)
        output = model(x, labels=labels)
        output.loss.backward()
        losses.append(output.loss)
    assert torch.equal(*losses)
    functions = {
        "regression": nn.MSELoss(),
        "single_label_classification": nn.CrossEntropyLoss(),
        "multi_label_classification": nn.BCEWithLogitsLoss(),
    }
    logits = output.logits.squeeze(-1) if num_labels == 1 else output.logits
    torch.testing.assert_close(output.loss, functions[problem](logits, labels))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@torch.no_grad()
def test_a_compiled_model_computes_the_same() -> None:
    model, x = build(ReformerForCausalLM, attn_layers=["local", "lsh"]), tokens(2, 20)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(x).logits, model(x).logits, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("cls", ALL)
@torch.no_grad()
def test_compiled_models_of_all_heads_at_several_lengths(cls: Any) -> None:
    model = build(cls)
    compiled = torch.compile(model, backend="aot_eager")
    for x in (tokens(2, 20), tokens(2, 11), tokens(1, 50)):
        torch.testing.assert_close(compiled(x)[0], model(x)[0], rtol=0, atol=1e-5)


def test_what_others_ask_of_a_model() -> None:
    model = build(ReformerForCausalLM)
    assert model.main_input_name == "input_ids"
    assert model.base_model is model.reformer
    assert model.can_generate()
    assert not build(ReformerForMaskedLM).can_generate()
    model(**model.dummy_inputs)
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    assert model.device == torch.device("cpu")
    assert set(model._no_split_modules) == {"ReversibleLayer"}


def test_what_others_ask_of_a_configuration(tmp_path: Path) -> None:
    values = config(num_labels=3, hash_seed=1)
    assert values.num_hidden_layers == 3
    assert ReformerConfig.from_dict(values.to_dict()).to_dict() == values.to_dict()
    file = tmp_path / "values.json"
    values.to_json_file(file)
    assert ReformerConfig.from_json_file(file).to_dict() == values.to_dict()
    assert (len(values.id2label), values.id2label[2], values.label2id["LABEL_2"]) == (3, "LABEL_2", 2)
    values.num_labels = 5
    assert len(values.id2label) == len(values.label2id) == 5
    values.update({"hash_seed": 9})
    assert values.hash_seed == 9
    values.save_pretrained(tmp_path / "sub" / "folder")
    again = transformers.AutoConfig.from_pretrained(tmp_path, subfolder="sub/folder")
    assert again.to_dict() | {"_name_or_path": ""} == values.to_dict() | {"_name_or_path": ""}
    assert copy.deepcopy(values).to_dict() == values.to_dict()
    unknown = ReformerConfig(somebody_elses_field=7, position_embedding_type="rotary")
    assert unknown.to_dict()["somebody_elses_field"] == 7
