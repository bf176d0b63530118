"""The pages name every benchmark, and what they tell to run is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_ALONE = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("[a-z]*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


def test_the_table_of_the_readme_has_every_benchmark():
    listed = re.findall(
        r"^\| `python -m benchmarks\.(\w+)", PAGES[0].read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(RUN_ALONE) > 10
    assert sorted(listed) == RUN_ALONE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_benchmark_has_the_options_that_a_page_gives_it(page):
    for name, rest in re.findall(r"python -m benchmarks\.(\w+)([^`]*)`", page.read_text(encoding="utf-8")):
        assert name in RUN_ALONE
        source = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
        for option in re.findall(r"--[a-z-]+", rest):
            assert f'"{option}"' in source, (name, option)
