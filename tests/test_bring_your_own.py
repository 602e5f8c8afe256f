"""The notebook "Bring your own": parts of one's own get everything that the kit does for its own."""

import json
from pathlib import Path

import papermill

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "experiments" / "12_bring_your_own.ipynb"
SMALL = {"n_public": 200, "n_private": 150, "sweep": [1, 4], "backbone_epochs": 10, "n_references": 12, "n_forget": 20}


def test_parts_of_ones_own_get_everything(tmp_path):
    papermill.execute_notebook(
        NOTEBOOK,
        tmp_path / "executed.ipynb",
        SMALL | {"n_check": 30, "checked": ["neighbours"], "output": str(tmp_path)},
        progress_bar=False,
    )
    answer = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert answer["exact"] and answer["failed_checks"] == 0 and answer["failed_checks_leaky"] > 0
    assert answer["accuracy_best"] > 0.3 and (tmp_path / "frontier.png").is_file()
