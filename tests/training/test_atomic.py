from pathlib import Path

import pytest

from reformer.training.atomic import atomic_folder, partial_path, remove_leftovers, write_text_atomically


def test_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "made" / "x"
    with atomic_folder(path) as partial:
        (partial / "a").write_text("1")
        (partial / "sub").mkdir()
        (partial / "sub" / "b").write_text("2")
        assert not path.exists()
    assert (path / "a").read_text() + (path / "sub" / "b").read_text() == "12"
    assert list(path.parent.iterdir()) == [path]


def test_folder_replaces_another(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for text in ("old", "new"):
        with atomic_folder(path) as partial:
            (partial / text).write_text(text)
    assert [file.name for file in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x"

    def fail() -> None:
        with atomic_folder(path) as partial:
            (partial / "a").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


def test_file_is_replaced_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    partial_path(tmp_path / "checkpoint-5").mkdir()
    partial_path(tmp_path / "recipe.yaml").write_text("half")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "checkpoint-4").mkdir()
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "checkpoint-4"]
