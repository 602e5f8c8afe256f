"""Executed notebooks can be read without being run: figures have texts, links lead on, and nothing is left behind."""

import html
import importlib.util
import os
import re
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pytest

from lmeraser_kit import figures
from lmeraser_kit.experiments.report import write_report

ROOT = Path(__file__).parents[1]
CODE = [*(ROOT / "lmeraser_kit").rglob("*.py"), *ROOT.glob("notebooks/*/*.ipynb")]
EXECUTED = sorted([*ROOT.glob("docs/_build/lessons/*/*/executed.ipynb"), *ROOT.glob("results/quick/**/executed.ipynb")])
PAGES = sorted(ROOT.glob("docs/_build/html/notebooks/*/*.html"))
LEFT_BEHIND = {
    "a warning": r"\w*Warning:|\[IPKernelApp\]",
    "a traceback": r"Traceback \(most recent call last\)",
    "a path of a machine": r"site-packages|(?<![\w.])/(?:home|root|tmp|usr|opt|work|var|Users)/\w|[A-Z]:\\\\",
    "a progress bar at 0%": r"(?<!\d)0%\|",
}
PICTURE = r"base64,[A-Za-z0-9+/=]+"
NO_ALT = "No description has been provided"  # nbconvert's words
FIGURES = """
import matplotlib.pyplot as plt, numpy as np
from IPython.display import Image, display
from lmeraser_kit import figures
figures.set_theme()
figure, ax = plt.subplots()
ax.plot([1, 2, 4])
ax.set(title="Growth", xlabel="time (s)", ylabel="length (m)")
figures.save(figure, ".", "growth", alt="It <doubles>.");
---
display(Image("growth.png", width=300))
"""


def put_out(output):
    """What a reader sees of an output, without pictures' data; progress bars as they stand at the end."""
    if output.output_type == "error":
        return "\n".join(["Traceback (most recent call last)", *output.traceback])
    kinds = {"text/plain": output.text} if output.output_type == "stream" else output.data
    text = "\n".join(text for kind, text in kinds.items() if kind.startswith("text/"))
    text = re.sub(PICTURE, "", text)
    return "\n".join(line.rpartition("\r")[2] for line in text.splitlines())


def texts_of_images(page):
    """The alternative texts of a page's images; empty where there is none."""
    images = re.findall(r"<img\b[^>]*>", page)
    return [
        html.unescape((re.search(r"""\balt=(["'])(?P<text>.*?)\1""", image) or {"text": ""})["text"])
        for image in images
    ]


def faults(notebook):
    """What is wrong with the outputs of an executed notebook, by cell."""
    found = []
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            text = put_out(output)
            found += [f"cell {i}: {what}" for what, pattern in LEFT_BEHIND.items() if re.search(pattern, text)]
            data = output.get("data", {})
            found += [f"cell {i}: a widget"] * ("application/vnd.jupyter.widget-view+json" in data)
            alt = texts_of_images(data.get("text/html", ""))
            if ("image/png" in data and not alt) or any(len(words.split()) < 3 for words in alt):
                found.append(f"cell {i}: a figure without an alternative text")
    return found


def executed(code, folder):
    cells = [nbformat.v4.new_code_cell(part) for part in code.split("---\n")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), *cells])
    return nbclient.NotebookClient(notebook, resources={"metadata": {"path": folder}}, allow_errors=True).execute()


def only_fresh(path):
    """What older code has made says nothing of today's: make reproduce and make docs make it anew."""
    if path.stat().st_mtime < max(file.stat().st_mtime for file in CODE):
        pytest.skip("it is older than the code")


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.fixture(scope="module")
def conf():
    spec = importlib.util.spec_from_file_location("docs_conf", ROOT / "docs" / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", EXECUTED, ids=name_of)
def test_an_executed_notebook_has_texts_for_its_figures_and_nothing_left_behind(path):
    only_fresh(path)
    assert faults(nbformat.read(path, as_version=4)) == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_and_pictures_of_a_built_page(path):
    only_fresh(path)
    page = path.read_text()
    texts = texts_of_images(page)
    assert all(texts) and not any(NO_ALT in text for text in texts)
    for target in re.findall(r'<a class="reference[^"]*" href="([^"#]+)', page):
        assert target.startswith("http") or (path.parent / target).exists(), target
    words = re.sub(PICTURE + r"|<(script|style)\b.*?</\1>", "", page, flags=re.S)
    assert not [what for what, pattern in LEFT_BEHIND.items() if re.search(pattern, words)]


def test_a_figure_is_put_out_with_its_text_in_a_notebook_and_in_a_report(tmp_path):
    notebook = executed(FIGURES, tmp_path)
    assert faults(notebook) == []
    wanted = "It <doubles>. Growth. Horizontal axis: time (s). Vertical axis: length (m). Shown: from 1 to 4."
    drawn, from_file = (cell.outputs[-1].data for cell in notebook.cells[1:])
    assert texts_of_images(drawn["text/html"]) == texts_of_images(from_file["text/html"]) == [wanted]
    assert "image/png" in drawn, "what takes no HTML shows this"
    assert wanted in html.unescape((tmp_path / "growth.svg").read_text())
    nbformat.write(notebook, tmp_path / "executed.ipynb")
    page = write_report(tmp_path / "executed.ipynb", tmp_path / "page.html").read_text()
    assert texts_of_images(page) == [wanted, wanted] and NO_ALT not in page


@pytest.mark.parametrize(
    "code, fault",
    [
        ("import warnings\nwarnings.warn('old')", "a warning"),
        ("1 / 0", "a traceback"),
        ("print('/home/ada/data')", "a path of a machine"),
        ("import numpy\nprint(numpy.__file__)", "a path of a machine"),
        ("import sys\nprint('\\r  0%|    | 0/9', file=sys.stderr)", "a progress bar at 0%"),
        ("import matplotlib.pyplot as plt\nplt.plot([1, 2]);", "a figure without an alternative text"),
    ],
)
def test_a_fault_is_found(code, fault, tmp_path):
    assert f"cell 1: {fault}" in faults(executed(code, tmp_path))


def test_a_bar_that_went_on_and_a_share_are_no_faults(tmp_path):
    assert faults(executed("print('10%|#  |\\r100%|###|', 'found: 0% of https://a.org/home/x')", tmp_path)) == []


def test_texts_of_images_are_found_in_either_quotes():
    assert texts_of_images("<img src='a' alt='It is 5\" wide'><img alt=\"It's 5\"><img src=\"b\">") == [
        'It is 5" wide',
        "It's 5",
        "",
    ]


def test_a_text_says_what_is_in_a_figure():
    matplotlib.use("agg")
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([1, 10, 100], [3, 2, 1], label="one")
    left.errorbar([1, 10, 100], [4, 5, 6], yerr=1, label="two")
    left.set(title="Lines", xscale="log", xlabel="size")
    right.bar(["cats", "dogs"], [1, 2.5], label="pets")
    figure.suptitle("Both?")
    assert figures.describe(figure) == (
        "Both? Panel 1 of 2: Lines. Horizontal axis: size (logarithmic). Shown: one (from 3 to 1); two (from 4 to 6). "
        "Panel 2 of 2. Horizontal axis: cats, dogs. Shown: pets (1, 2.5)."
    )
    grid = figures.images(np.zeros((20, 1, 4, 4), np.uint8), list(range(20)))
    assert figures.describe(grid) == "20 images: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more."
    plt.close("all")


def test_links_of_a_lesson_lead_to_pages_of_the_documents(conf):
    lesson = ROOT / "notebooks" / "lessons" / "1_what_does_it_mean_to_forget.ipynb"
    links = {
        "[a](2_divide_and_relearn.ipynb)": "[a](2_divide_and_relearn.ipynb)",
        "[a](../../docs/cost.md#clusters)": "[a](../../cost.md#clusters)",
        "[a](../../results/README.md)": "a (`results/README.md`)",
        "[a](../experiments/01_backbone.ipynb)": "[a](../experiments/01_backbone.ipynb)",
        "[a](https://arxiv.org/abs/2404.11056)": "[a](https://arxiv.org/abs/2404.11056)",
    }
    assert {link: conf.with_links(link, lesson) for link in links} == links
    to_lesson = "(../notebooks/lessons/2_divide_and_relearn.ipynb)"
    assert conf.with_links(f"[a]{to_lesson}", ROOT / "docs" / "teaching.md") == f"[a]{to_lesson.replace('../', '')}"


def test_a_lesson_is_executed_once_and_one_that_fails_ends_the_build(conf, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(conf, "LESSONS", tmp_path / "executed")
    head = [
        nbformat.v4.new_code_cell(
            "seed: int = 0  # a seed\noutput: str = ''  # a folder", metadata={"tags": ["parameters"]}
        )
    ]
    end = "from lmeraser_kit.experiments import results\nresults.save_metrics(output, {'answer': seed})"
    for name, code in (("good", end), ("bad", "1 / 0")):
        notebook = nbformat.v4.new_notebook(cells=[*head, nbformat.v4.new_code_cell(code)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    first = conf.executed_lesson(tmp_path / "good.ipynb")
    time = os.stat(first).st_mtime_ns
    assert conf.executed_lesson(tmp_path / "good.ipynb") == first and os.stat(first).st_mtime_ns == time
    with open(tmp_path / "good.ipynb", "a") as file:
        file.write("\n")
    assert conf.executed_lesson(tmp_path / "good.ipynb") != first and not first.exists()
    with pytest.raises(Exception, match="ZeroDivisionError"):
        conf.executed_lesson(tmp_path / "bad.ipynb")


def test_an_experiment_that_was_not_run_says_how_to(conf):
    source = ROOT / "notebooks" / "experiments" / "01_backbone.ipynb"
    cells = conf.page(source, None)["cells"]
    title, _, note, *_ = cells[0]["source"].splitlines()
    assert title.startswith("# 01. ") and note == "```{admonition} Shown without its outputs"
    assert "make reproduce" in cells[0]["source"] and cells[1]["cell_type"] == "code"
    assert "```" not in conf.page(source, source)["cells"][0]["source"]
