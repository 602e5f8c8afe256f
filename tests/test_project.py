"""What holds for the project as a whole: its files agree with each other, and stay readable."""

import ast
import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from lmeraser_kit.backbones import VITS
from lmeraser_kit.data.inputs import EXPECTED, PAPER

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("[!.]*.ipynb"))
MODULES = sorted((ROOT / "lmeraser_kit").rglob("*.py"))
BESIDE = [*sorted((ROOT / "benchmarks").glob("*.py")), ROOT / "tests" / "kill.py", ROOT / "tests" / "stand_ins.py"]
CONDA_NAMES = {"pytorch": "torch", "snakemake-minimal": "snakemake"}
IMPORT_NAMES = {"lazy_loader": "lazy-loader", "sklearn": "scikit-learn", "yaml": "pyyaml", "PIL": "pillow"}


def requirements():
    """What pyproject.toml asks for: of the core, and of each extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {part: {r.name.lower(): r for r in map(Requirement, lines)} for part, lines in asked.items()}


def declared(*parts):
    """The requirements of some parts, or of all that are not those of others taken together."""
    asked = requirements()
    named = parts or asked.keys() - {"all"}
    return {name: requirement for part in named for name, requirement in asked[part].items()}


def locked():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {r.name.lower().replace("_", "-"): next(iter(r.specifier)).version for r in pins}


def test_pyproject_lock_and_environment_name_the_same_packages():
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = dict(entry.split("=") for entry in entries if isinstance(entry, str))
    *pinned, itself = entries[-1]["pip"]
    conda |= dict(entry.split("==") for entry in pinned)
    conda = {CONDA_NAMES.get(name, name): pin for name, pin in conda.items() if name not in ("python", "pip")}
    assert conda.keys() == declared().keys() <= locked().keys()
    for name, requirement in declared().items():
        assert requirement.specifier.contains(locked()[name]), f"{name}: the lock is outside the range"
        assert Version(locked()[name]).release[:2] == Version(conda[name].removesuffix(".*")).release[:2], (
            f"{name}: other minor version"
        )
    assert itself == "-e ."


def test_the_extras_do_not_overlap_and_all_is_all_of_them():
    asked = requirements()
    (everything,) = asked.pop("all").values()
    assert everything.name == "lmeraser-kit" and everything.extras == asked.keys() - {"core"}
    assert asked.keys() == {"core", "lab", "batch", "slurm", "class", "dask", "docs", "dev"}
    assert sum(map(len, asked.values())) == len(declared())


def test_every_dependency_of_the_environment_says_why():
    lines = (ROOT / "environment.yml").read_text().split("dependencies:")[1].splitlines()
    packages = [line for line in lines if re.match(r"  - \w", line) and not re.search("python=|pip", line)]
    assert len(packages) > 20 and all("#" in line for line in packages)


def test_no_file_names_an_index():
    for name in ("requirements.lock", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"):
        assert not re.search(r"https?://|index-url|find-links|file:", (ROOT / name).read_text()), name


def test_continuous_integration_runs_what_runs_here():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    python = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    assert python == ["3.11"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_hooks_before_a_commit_are_local_and_one_is_make_lint():
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert "make lint" in [hook["entry"] for hook in repos[0]["hooks"]]


def imported(path):
    """The packages that a module imports, but the kit and those of Python."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
    tops = {name.split(".")[0] for name in names} - {"lmeraser_kit"} - set(sys.stdlib_module_names)
    return {IMPORT_NAMES.get(top, top) for top in tops}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_what_is_imported_is_in_the_core_or_in_the_extra_that_the_module_needs(path):
    needed = re.findall(r"^need\(\"(\w+)\", __name__", path.read_text(), re.M)
    needed += ["dask"] if path.name == "dask_plugin.py" else []  # imported where somebody has a client
    missing = imported(path) - declared("core", *needed).keys()
    assert not missing, f"{path.name} imports {missing}"


def test_no_import_goes_upwards_and_there_is_no_circle():
    """The floors are in pyproject.toml; the message names the import that breaks them."""
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("folder", sorted((ROOT / "lmeraser_kit").glob("*/")), ids=lambda path: path.name)
def test_a_folder_says_what_it_is_for_and_exports_what_is_there(folder):
    if folder.name == "__pycache__":
        return
    room = importlib.import_module(f"lmeraser_kit.{folder.name}")
    assert room.__doc__.splitlines()[0].endswith(".")
    for name in getattr(room, "__all__", []):
        assert getattr(room, name) is not None


@pytest.mark.parametrize("path", [*BESIDE, *NOTEBOOKS], ids=lambda path: path.name)
def test_what_is_imported_from_the_kit_is_there(path):
    """In benchmarks and notebooks, which no other test runs."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lmeraser_kit"):
            home = importlib.import_module(node.module)
            for name in (alias.name for alias in node.names):
                found = hasattr(home, name) or importlib.util.find_spec(f"{node.module}.{name}")
                assert found, f"{node.module} has no {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_modules_are_short_and_documented(path):
    assert len(path.read_text().splitlines()) <= 300
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            nested = any(
                node in ast.walk(f) and node is not f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)
            )
            assert nested or ast.get_docstring(node), f"{node.name} has no docstring"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stripped_parameterised_and_short(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert code[0].metadata.get("tags") == ["parameters"]
    assignment = re.compile(r"^\w+: (int|float|str|bool|list) = [^#]+  # \S.*$")
    lines = code[0].source.splitlines()
    assert all(assignment.match(line) for line in lines)
    found = papermill.inspect_notebook(str(path))
    assert len(found) == len(lines) and all(about["help"] for about in found.values())
    lengths = sorted(len(cell.source.splitlines()) for cell in code[1:])
    median, most = (10, 15) if "lessons" in path.parts else (8, 20)  # lessons build things by hand
    assert lengths[len(lengths) // 2] <= median and lengths[-1] <= most


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.parent.name == "experiments"], ids=lambda path: path.name)
def test_an_experiment_asks_one_question_and_its_last_cell_answers(path):
    cells = nbformat.read(path, as_version=4).cells
    title = cells[0].source.splitlines()[0]
    assert re.fullmatch(rf"# {path.stem[:2]}\. [^.?]+\?", title)
    headings = [cell.source for cell in cells if cell.cell_type == "markdown" and cell.source.startswith("## ")]
    assert headings[-1].startswith("## The answer")
    assert cells[-1].cell_type == "code" and re.search(r"print\(.*f[\"']", cells[-1].source, re.DOTALL)
    page = (ROOT / "docs" / "experiments.md").read_text()
    assert f"[{path.stem}](../notebooks/experiments/{path.name}) | {title.partition('. ')[2]}" in page


@pytest.mark.committed
def test_every_dataset_and_every_named_backbone_is_in_the_tables_of_licences():
    page = (ROOT / "data" / "README.md").read_text()
    rows = [row for row in page.splitlines() if row.startswith("| `")]
    assert all(len(row.strip("| ").split(" | ")) == 4 for row in rows)
    used = {"digits", *EXPECTED, *PAPER, *VITS, *named_in_profiles()}
    assert not {name for name in used if not any(f"`{name}`" in row for row in rows)}


def named_in_profiles():
    """The backbones and datasets that profiles name, without the side of the input and the rule of the split."""
    for path in (ROOT / "workflow" / "config").glob("*.yaml"):
        grids = yaml.safe_load(path.read_text())["notebooks"].values()
        for grid in (g for several in grids for g in (several if isinstance(several, list) else [several])):
            for value in (grid.get("backbone", []), grid.get("dataset", [])):
                yield from (re.split("[@/]", name)[0] for name in (value if isinstance(value, list) else [value]))


def rows_of_exact_methods():
    """The table of exact methods in docs/results.md, made of the committed tables."""
    peers = pd.read_csv(ROOT / "results" / "reference" / "quick" / "tables" / "peers.csv")
    for row in peers[peers["kind"] == "exact"].sort_values("cost_factor_size_biased_mean").to_dict("records"):
        accuracy = f"{row['accuracy_mean']:.3f} ± {row['accuracy_ci95']:.3f}"
        faster = row["retrain_seconds_mean"] / row["seconds_of_one_mean"]
        yield f"| {row['method']} | {accuracy} | {row['cost_factor_size_biased_mean']:.1f} | {faster:.1f} |"


def rows_of_full_size():
    """The table of 40,000 private images in docs/choosing.md."""
    folder, by = ROOT / "results" / "reference" / "cifar10-full" / "tables", ["method", "n_clusters", "features"]
    for end in ("", *(f"_cifar10-paper-tf_efficientnet_lite0-{sides}" for sides in ("224", "96-224"))):
        frontier = pd.read_csv(folder / f"frontier{end}.csv").sort_values("accuracy_mean", kind="stable")
        seconds = pd.read_csv(folder / f"frontier_seconds{end}.csv")
        for row in frontier.merge(seconds, on=by, how="left").to_dict("records"):
            accuracy = f"{row['accuracy_mean']:.4f}" + f" ± {row['accuracy_ci95']:.4f}" * (row["accuracy_ci95"] > 0)
            timed = [row[f"seconds_{name}_mean"] for name in ("request", "refit_cached", "fit_images")]
            cells = [row["method"], row["features"], "none" if row["n_clusters"] == 1 else str(row["n_clusters"])]
            cells += [accuracy, f"{row['cost_factor_size_biased']:,.0f}"]
            cells += ["" if np.isnan(t) else f"{t:.2f}" if t < 10 else f"{t:.0f}" for t in timed]
            assert row["exact"]
            yield f"| {' | '.join(cells)} |"


def rows_of_prompts():
    """The table of prompts in docs/choosing.md: columns for 4,000 and 40,000 private images, and for the small ViT."""
    methods = pd.read_csv(ROOT / "results" / "reference" / "cifar10-full-prompts" / "tables" / "methods.csv")
    for method in methods["method"].unique():
        rows = methods[methods["method"] == method].set_index("limits")
        cells = [method, "yes" if rows["public_labels"].iloc[0] else "no"]
        for limits in ("[5000, 4000, 4000]", "[5000, 0, 0]", "[10000, 8000, 4000]"):
            row = rows.loc[limits] if limits in rows.index else {"accuracy_mean": np.nan, "accuracy_ci95": np.nan}
            mean, wide = row["accuracy_mean"], row["accuracy_ci95"]
            cells.append("" if np.isnan(mean) else f"{mean:.3f}" + ("" if np.isnan(wide) else f" ± {wide:.3f}"))
        yield f"| {' | '.join(cells)} |"


@pytest.mark.committed
@pytest.mark.parametrize(
    ("page", "table", "least"),
    [("results", rows_of_exact_methods, 8), ("choosing", rows_of_full_size, 20), ("choosing", rows_of_prompts, 10)],
)
def test_the_documents_quote_the_reference(page, table, least):
    rows, text = list(table()), (ROOT / "docs" / f"{page}.md").read_text()
    assert len(rows) >= least
    for row in rows:
        assert row in text, row


def claims():
    """The rows of docs/claims.md: the cells of each, and all numbers of the tables that it links."""
    for row in (ROOT / "docs" / "claims.md").read_text().splitlines():
        links = re.findall(r"\]\(\.\./(results/reference/[^)]*\.(?:csv|json))\)", row)
        if row.startswith("| ") and links:
            tables = [ROOT / link for link in links]
            frames = [
                pd.read_csv(path) if path.suffix == ".csv" else pd.json_normalize(json.loads(path.read_text()))
                for path in tables
            ]
            numbers = [frame.select_dtypes("number").to_numpy().ravel() for frame in frames]
            yield row.strip("| ").split(" | "), np.concatenate(numbers)


@pytest.mark.committed
def test_every_figure_of_a_claim_is_in_a_table_that_it_links():
    """The third cell says what came out. A number in a name (CIFAR-10), in code or in a link is none."""
    rows = list(claims())
    assert len(rows) >= 10
    for (claim, _, outcome, *_), numbers in rows:
        for text in re.findall(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?", re.sub(r"\]\([^)]*\)|`[^`]*`", "", outcome)):
            decimals, value = len(text.partition(".")[2]), float(text.rstrip(",").replace(",", ""))
            assert (np.abs(numbers - value) <= 0.500001 * 10.0**-decimals).any(), f"{claim}: {text}"


def test_make_refuses_a_name_that_it_does_not_know():
    done = subprocess.run(["make", "-n", "slurm", "GPU=1"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "make knows no GPU; it knows PROFILE" in done.stderr
    done = subprocess.run(["make", "-n", "slurm", "GPUS=1", "PROFILE=tiny"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--gpus '1'" in done.stdout
