"""The package as a wheel: what is in it, and that it works where there is no repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lmeraser_kit.data import inputs

ROOT = Path(__file__).parents[1]
TWELVE_LINES = """
import lmeraser_kit
from lmeraser_kit import Backbone, HierarchicalClusters, LMEraser, Recipe, RidgeEraser, Store, load_dataset
from lmeraser_kit.backbones import backbone_for
from lmeraser_kit.data.inputs import DATA
from lmeraser_kit.experiments.results import output_folder

split = load_dataset("digits", seed=0).take(100, 40, 20)
backbone = backbone_for("small-vit", split.public, epochs=1)
eraser = LMEraser(backbone, clusters=HierarchicalClusters(n_clusters=3), recipe=Recipe(epochs=1), seed=0)
eraser.fit(split.private, public=split.public)
eraser.forget(split.private.uids[:3])
eraser.verify()
with Store.create("my-store", RidgeEraser(backbone), split.private, split.public) as store:
    store.forget(split.private.uids[0])
output_folder("", "mine")
print(lmeraser_kit.__file__, DATA, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy of the sources (a build leaves files beside them), made without a network."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("lmeraser_kit", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", folder, source], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder that the wheel is installed in."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target]
    subprocess.run([*pip, wheel], check=True)
    return target


def files(folder):
    return {path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def outside(arguments, installed, folder):
    """Run Python in an empty folder, with the installed package, and with a home and a cache of its own."""
    ours = {"LMERASER_DATA", "XDG_CACHE_HOME", "SET"}
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= {"PYTHONPATH": str(installed), "HOME": str(folder / "home")}
    (folder / "here").mkdir()
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder / "here", env=variables, capture_output=True, text=True
    )


def test_the_wheel_has_the_package_and_its_types_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = {path for path in files(ROOT / "lmeraser_kit") if path.suffix in (".py", ".pyi")}
    assert inside == {str(path.relative_to(ROOT)) for path in package} | {"lmeraser_kit/py.typed"}
    assert "lmeraser_kit/__init__.pyi" in inside


def test_it_works_without_the_repository_and_writes_nothing_where_it_is_installed(installed, tmp_path):
    before = files(installed)
    done = outside(["-c", TWELVE_LINES], installed, tmp_path)
    assert done.returncode == 0, done.stderr
    cache = tmp_path / "home" / ".cache" / "lmeraser_kit"
    assert done.stdout.split()[-2:] == [str(installed / "lmeraser_kit" / "__init__.py"), str(cache)]
    assert files(installed) == before
    assert [path.parent.name for path in files(cache)] == ["backbones"]
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"my-store", "results"}


@pytest.mark.parametrize("command", ["reproduce", "estimate", "reference", "agreement"])
def test_a_command_on_profiles_says_where_they_are(command, installed, tmp_path):
    done = outside(["-m", f"lmeraser_kit.experiments.{command}", "quick"], installed, tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert "in the repository of lmeraser-kit only" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "variables, repository, expected",
    [
        ({"LMERASER_DATA": "/d", "XDG_CACHE_HOME": "/c"}, "/r", "/d"),
        ({"LMERASER_DATA": "/d", "XDG_CACHE_HOME": "/c"}, None, "/d"),
        ({"LMERASER_DATA": "", "XDG_CACHE_HOME": "/c"}, "/r", "/r/data"),
        ({"XDG_CACHE_HOME": "/c"}, "/r", "/r/data"),
        ({"XDG_CACHE_HOME": "/c"}, None, "/c/lmeraser_kit"),
        ({"XDG_CACHE_HOME": "c"}, None, "/h/.cache/lmeraser_kit"),
        ({}, None, "/h/.cache/lmeraser_kit"),
    ],
)
def test_where_data_lie(variables, repository, expected, monkeypatch):
    for name in ("LMERASER_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/h", **variables}.items():
        monkeypatch.setenv(name, value)
    assert inputs.data_folder(repository and Path(repository)) == Path(expected)


def test_the_tests_run_on_a_repository():
    assert inputs.REPOSITORY == ROOT
