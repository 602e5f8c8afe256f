"""What a command of this folder needs besides the core: the packages of an extra, and maybe the repository."""

from __future__ import annotations

import importlib.util
import sys

from lmeraser_kit.experiments.results import CLONE, REPOSITORY

MODULES = {  # extra -> what its packages in pyproject.toml are imported as
    "batch": (
        "papermill",
        "ipykernel",
        "nbclient",
        "nbformat",
        "nbconvert",
        "jinja2",
        "yaml",
        "tabulate",
        "snakemake",
    ),
    "lab": ("jupyterlab", "ipywidgets"),
    "class": ("nbgrader", "voila"),
}


def need(extra: str, caller: str, repository: bool = False) -> None:
    """Refuse to go on without an extra: called before its packages are imported.

    Args:
        extra: The extra's name.
        caller: The `__name__` of the module that needs it. A command (`python -m ...`) ends with status 2.
        repository: Whether the command works on profiles, which no installed package has.

    Raises:
        ModuleNotFoundError: If a package of the extra is missing; its message says what to install.
    """
    command = caller == "__main__"
    missing = [name for name in MODULES[extra] if importlib.util.find_spec(name) is None]
    if command and repository and REPOSITORY is None:
        message = CLONE
    elif missing:
        names = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'}"
        message = f'{names} missing: pip install "lmeraser-kit[{extra}]"'
    else:
        return
    if command:
        print(message, file=sys.stderr)
        sys.exit(2)
    raise ModuleNotFoundError(message, name=missing[0])
