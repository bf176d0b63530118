from pathlib import Path
from typing import Any

import pytest
import yaml

from reformer.errors import UserError
from reformer.training.recipe import check_resumable, load_recipe, recipe_text
from tests.training.conftest import MakeRecipe


def test_resolved_recipe_gives_itself(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe("training.learning_rate=3e-4", "data.eval.more=[other.fa]")
    again = tmp_path / "resolved.yaml"
    again.write_text(recipe_text(recipe))
    resolved = load_recipe(again)
    assert resolved.model_dump() == recipe.model_dump()
    assert recipe_text(resolved) == recipe_text(recipe)
    assert resolved.training.learning_rate == 3e-4
    assert resolved.data.eval["more"] == [str(Path.cwd() / "other.fa")]
    assert resolved.model["num_hashes"] >= 1  # a default, written out
    assert not {"vocab_size", "pad_token_id", "is_decoder"} & set(resolved.model)
    check_resumable(resolved, recipe)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.learning_rat=1",
            "unknown key training.learning_rat; did you mean training.learning_rate?",
        ),
        ("learning_rate=1", "unknown key learning_rate; did you mean training.learning_rate?"),
        ("trainig.seed=1", "unknown key trainig; did you mean training?"),
        (
            "data.zzz=1",
            "unknown key data.zzz; expected one of train, eval, format, lower_case, reverse_complement, "
            "mutated_copies, held_out_regions, held_out_records, cache_dir",
        ),
        (
            "training.lengths.1.stps=1",
            "unknown key training.lengths.1.stps; did you mean training.lengths.steps?",
        ),
        ("model.hiden_size=8", "unknown key model.hiden_size; did you mean model.hidden_size?"),
        ("model.vocab_size=8", "unknown key model.vocab_size"),
        ("model.hidden_size=big", "model.hidden_size: expected an integer, got 'big'"),
        ("model.attn_layers=[local, lhs]", "lhs"),
        ("training.learning_rate=fast", "training.learning_rate: expected a number, got 'fast'"),
        ("training.learning_rate=.nan", "training.learning_rate: expected a finite number, got nan"),
        ("training.learning_rate=0", "training.learning_rate: expected a number above 0, got 0"),
        ("training.learning_rate='3e-4'", "training.learning_rate: expected a number, got '3e-4'"),
        ("training.bf16=1", "training.bf16: expected true or false, got 1"),
        ("training.seed=-1", "training.seed: expected a number of at least 0, got -1"),
        ("training.seed=1.5", "training.seed: expected an integer, got 1.5"),
        ("training.lengths=[]", "training.lengths: expected at least 1 item(s), got []"),
        ("training.lengths=5", "training.lengths: expected a list, got 5"),
        ("training.lengths.0.steps=0", "training.lengths.0.steps: expected a number of at least 1, got 0"),
        (
            "training.lengths.0.length=ful",
            "training.lengths.0.length: expected an integer or 'full', got 'ful'",
        ),
        ("training.lengths.0.length=-5", "training.lengths.0.length: expected a number of at least 2"),
        ("training.lengths.0={length: 8}", "missing key training.lengths.0.steps"),
        (
            "training.lengths.0={length: full, steps: 1, batch_size: 2}",
            "expected batch_size 1 where length is full",
        ),
        (
            "training.schedule=cosin",
            "training.schedule: expected 'constant', 'linear' or 'cosine', got 'cosin'",
        ),
        ("training.device=tpu", "training.device: expected 'auto', 'cpu' or 'cuda', got 'tpu'"),
        ("data.train=chr.fa", "data.train: expected a list, got 'chr.fa'"),
        ("data.train=[]", "data.train: expected at least 1 item(s), got []"),
        ("data.mutated_copies=-0.1", "data.mutated_copies: expected a number of at least 0, got -0.1"),
        ("data.mutated_copies=1.5", "data.mutated_copies: expected a number of at most 1, got 1.5"),
        ("data.mutated_copies=.nan", "data.mutated_copies: expected a number of at most 1, got nan"),
        ("data.eval=[x.fa]", "data.eval: expected a mapping, got ['x.fa']"),
        ("data.eval={a/b: [x.fa]}", "expected a printable name without /, got 'a/b'"),
        ("data=3", "data: expected a mapping, got 3"),
        ("output_dir=3", "output_dir: expected text, got 3"),
    ],
)
def test_errors_name_place_and_expectation(make_recipe: MakeRecipe, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_recipe(override)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"override {override!r}")
    assert "\n" not in str(caught.value)


def test_error_names_the_line(tmp_path: Path, recipe_values: dict[str, Any]) -> None:
    recipe_values["training"]["lengths"][1]["steps"] = "many"
    path = tmp_path / "recipe.yaml"
    path.write_text("# a comment\n" + yaml.safe_dump(recipe_values, sort_keys=False))
    line = next(i for i, text in enumerate(path.read_text().splitlines(), 1) if "many" in text)
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert (
        str(caught.value) == f"{path}, line {line}: training.lengths.1.steps: expected an integer, got 'many'"
    )


def test_missing_section(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("data: {train: [a.fa]}\n")
    with pytest.raises(UserError, match=r"line 1: missing key training$"):
        load_recipe(path)


@pytest.mark.parametrize("change", ["training.eval_every=7", "training.keep_checkpoints=5", "data.eval={}"])
def test_what_changes_no_step_may_change_on_resume(make_recipe: MakeRecipe, change: str) -> None:
    check_resumable(make_recipe(change), make_recipe())


@pytest.mark.parametrize(
    "change",
    [
        "training.seed=7",
        "model.hidden_size=32",
        "data.train=[x.fa]",
        "training.lengths.0.steps=9",
        "training.bf16=true",
        "data.mutated_copies=0.5",
    ],
)
def test_what_changes_a_step_may_not(make_recipe: MakeRecipe, change: str) -> None:
    key = change.partition("=")[0].replace(".0.steps", "")
    with pytest.raises(UserError, match=f"{key}: .*, but the run to resume began with"):
        check_resumable(make_recipe(change), make_recipe())
