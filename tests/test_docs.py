"""The documents are true: links lead somewhere, code runs, and the front page is short."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
PAGES += [ROOT / "results" / "README.md", *sorted((ROOT / "results" / "reference").rglob("README.md"))]
AFTER_README = """
from lmeraser_kit import HashClusters, LMEraser, Recipe, Backbone, load_dataset
split = load_dataset("digits", seed=0).take(120, 60, 40)
backbone = Backbone.train(split.public, epochs=2, seed=0)
eraser = LMEraser(backbone, HashClusters(3), Recipe(epochs=1), verbose=False)
"""


def code_of(page):
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))


@pytest.mark.committed
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.committed
def test_the_front_page_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150 and len(text) <= 8000
    assert 8 <= len(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)[0].splitlines()) <= 13


@pytest.mark.committed
def test_every_page_of_the_documents_can_be_found_from_the_first():
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "index.md" or f"]({page.name})" in index, page.name


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)], ids=lambda page: page.name)
def test_code_of_the_documents_runs(page, tmp_path):
    before = "" if "load_dataset(" in code_of(page) else AFTER_README
    (tmp_path / "code.py").write_text(before + code_of(page))
    done = subprocess.run([sys.executable, "code.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
