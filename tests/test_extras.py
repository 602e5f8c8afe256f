"""The core works without the packages of the extras, and what needs them says what to install."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_project import IMPORT_NAMES, requirements

from lmeraser_kit.experiments.extras import MODULES, need

ROOT = Path(__file__).parents[1]
OF_THE_CORE = {"yaml", "jinja2"}  # timm and torch need them, too
COMMANDS = ("reproduce", "estimate", "reference", "runs", "report")


def without(modules, code):
    """Run code in a process that cannot import these modules."""
    before = f"import sys\nfor name in {sorted(modules)!r}: sys.modules[name] = None\n"
    done = subprocess.run([sys.executable, "-c", before + code], cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def command(name):
    """Code that does what `python -m lmeraser_kit.experiments.NAME quick` does."""
    return (
        f"import runpy\nsys.argv[1:] = ['quick']\nrunpy.run_module('lmeraser_kit.experiments.{name}', {{}}, '__main__')"
    )


def test_the_extra_is_named_as_it_is_imported():
    for extra, modules in MODULES.items():
        assert {IMPORT_NAMES.get(module, module) for module in modules} == requirements()[extra].keys()


def test_the_core_needs_no_extra():
    """Every module that does not say that it needs an extra, and the imports of the README."""
    extras = {*MODULES["batch"], "jupyterlab", "ipywidgets", "IPython", "notebook"} - OF_THE_CORE
    imports = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("from lmeraser_kit")]
    assert len(imports) >= 2
    for path in sorted((ROOT / "lmeraser_kit").rglob("*.py")):
        if not re.search(r"^need\(", path.read_text(), re.M):
            parts = path.relative_to(ROOT).with_suffix("").parts
            imports.append(f"import {'.'.join(parts).removesuffix('.__init__')}")
    status, _, said = without(extras, "\n".join(imports))
    assert status == 0, said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_to_install_and_ends(name):
    status, out, said = without(["snakemake"], command(name))
    assert (status, out, said) == (2, "", 'snakemake is missing: pip install "lmeraser-kit[batch]"\n')


def test_all_that_is_missing_is_named_and_an_import_raises():
    code = "import lmeraser_kit.experiments.runs"
    status, _, said = without(["snakemake", "papermill"], code)
    message = 'papermill, snakemake are missing: pip install "lmeraser-kit[batch]"'
    assert status == 1 and said.splitlines()[-1] == f"ModuleNotFoundError: {message}"


def test_nothing_is_said_where_nothing_is_missing():
    need("batch", "__main__", repository=True)
