from pathlib import Path

import pytest

from reformer.errors import UserError
from reformer.training.recipe_file import read_recipe_file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text("a:\n  rate: 3e-4\n  list:\n  - {x: 1}\n  - {x: 2.5e1}\nb: text\n")
    return path


def test_numbers_and_places(path: Path) -> None:
    file = read_recipe_file(path)
    assert file.values == {"a": {"rate": 3e-4, "list": [{"x": 1}, {"x": 25.0}]}, "b": "text"}
    assert file.places["a", "list", 1, "x"] == f"{path}, line 5"
    assert file.places["b",] == f"{path}, line 6"
    assert str(file.error(("a", "list", 1, "y"), "wrong")) == f"{path}, line 5: wrong"


def test_overrides_replace_values_and_places(path: Path) -> None:
    overrides = ["a.list.1.x=7", "a.list.0={y: [1, two]}", "c.d.e=1e-3", "b="]
    file = read_recipe_file(path, overrides)
    assert file.values == {
        "a": {"rate": 3e-4, "list": [{"y": [1, "two"]}, {"x": 7}]},
        "b": None,
        "c": {"d": {"e": 1e-3}},
    }
    assert str(file.error(("a", "list", 1, "x"), "wrong")) == "override 'a.list.1.x=7': wrong"
    assert str(file.error(("a", "list", 0, "y", 1), "wrong")) == "override 'a.list.0={y: [1, two]}': wrong"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [\n", "line 3: not YAML: expected the node content"),
        ("a: 1\na: 2\n", "line 2: a is given twice"),
        ("a: {b: 1, b: 2}\n", "line 1: a.b is given twice"),
        ("- 1\n", "expected a mapping with data, model, training and output_dir"),
        ("", "expected a mapping with data, model, training and output_dir"),
        ("a: 1\n\tb: 2\n", "line 2: not YAML"),
        ("[x]: 1\n", "line 1: a key must be one word"),
        ("a: &x [*x]\n", "nested more than 10 deep"),
        ("a: 2020-13-77\n", "line 1"),
        ("a: !!python/object:os.system x\n", "line 1: could not determine a constructor"),
        ("a: \0\n", "not YAML"),
    ],
)
def test_bad_text(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_recipe_file(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a", "expected key=value"),
        ("=1", "expected key=value"),
        ("a.list.2.x=1", "a.list is a list of 2, which has no item 2"),
        ("a.list.x=1", "a.list is a list of 2, which has no item x"),
        ("b.x=1", "b is not a mapping"),
        ("a.0=1", "a is a mapping, not a list"),
        ("0=1", "the recipe is a mapping, not a list"),
        ("a=[", "line 1: not YAML"),
    ],
)
def test_bad_overrides(path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_recipe_file(path, [override])
    assert str(caught.value).startswith(f"override {override!r}")
    assert message in str(caught.value)
