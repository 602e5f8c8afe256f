"""What a fit and a batch write outside a store, for faults.py: an eraser's file, features kept, a run's folder.

The notebook of the run is a function that writes what a notebook writes: a kernel is a process of its own.
"""

import shutil
from pathlib import Path
from unittest import mock

import nbformat
import numpy as np
import pandas as pd

from lmeraser_kit import Backbone, HashClusters, RidgeEraser, load_dataset
from lmeraser_kit.backbones.cached import CachedFeatures, key_of
from lmeraser_kit.experiments import runs
from lmeraser_kit.experiments.results import read_json, save_metrics

TINY = {"img_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "experiments" / "02_clusters.ipynb"
TABLE = pd.DataFrame({"value": np.arange(3000) / 7})


def written(notebook, executed, parameters):
    """What a notebook leaves."""
    folder = Path(parameters["output"])
    TABLE.to_csv(folder / "table.csv", index=False)
    (folder / "figure.png").write_bytes(bytes(range(256)) * 40)
    save_metrics(folder, {"accuracy": 0.5}, device="cpu")
    nbformat.write(nbformat.v4.new_notebook(), executed)


class FileTrials:
    """The tasks, what is expected of them, and files to start from."""

    def __init__(self, folder, seed):
        self.folder = Path(folder) / "files"
        split = load_dataset("digits", seed=0)
        self.backbone = Backbone.train(split.public, epochs=2, seed=0, **TINY)
        private, images = split.private[:40], split.private.images[:160]
        self.old, self.new = (
            RidgeEraser(self.backbone, HashClusters(4), verbose=False).fit(part) for part in (private[:20], private)
        )
        self.kept, self.gone = images[:80], {"drop": images[:7], "drop all": images[:80]}
        self.expected = self.backbone.features(images)
        self.images = images
        start = self.folder / "start"
        for name in ("save", "features", "drop", "drop all", "run"):
            (start / name).mkdir(parents=True)
        self.old.save(start / "save" / "eraser")
        for name in ("features", "drop", "drop all"):
            CachedFeatures(self.backbone, start / name).features(self.kept)
        self.run(start / "run")
        self.whole = self.files_of(start / "run")
        self.tasks = {
            "save": (lambda at: self.new.save(at / "eraser"), None, None),
            "features": (lambda at: CachedFeatures(self.backbone, at).features(images), None, None),
            "drop": (lambda at: CachedFeatures(self.backbone, at).drop(self.gone["drop"]), None, None),
            "drop all": (lambda at: CachedFeatures(self.backbone, at).drop(self.gone["drop all"]), None, None),
            "run": (self.run, None, None),
        }

    @staticmethod
    def run(at):
        with mock.patch.object(runs, "_execute", written), mock.patch.object(runs, "git_state", dict):
            runs.run_notebook(NOTEBOOK, at, {"dataset": "digits"}, checked=True)

    @staticmethod
    def files_of(at):
        return {p.name: p.read_bytes() for p in at.iterdir() if p.is_file() and p.name != "manifest.json"}

    def copy(self, name):
        at = self.folder / "trial"
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(self.folder / "start" / name, at)
        return at

    def look(self, name, at, acknowledged, point, images_read=True):
        """See that all is well on a disk that is, and do it once more. Returns whether it had been done."""
        is_done = getattr(self, f"_{name.partition(' ')[0]}")
        done = is_done(at, name) if name in self.gone else is_done(at)
        assert done or not acknowledged, (name, point, "acknowledged and lost")
        self.tasks[name][0](at)
        assert is_done(at, name) if name in self.gone else is_done(at), (name, point, "cannot be done again")
        assert not [path for path in at.rglob("*") if ".partial" in path.name], (name, point, "left behind")
        return done

    def _save(self, at):
        found = RidgeEraser.load(at / "eraser").state_hash()
        assert found in (self.old.state_hash(), self.new.state_hash())
        return found == self.new.state_hash()

    def _features(self, at):
        cached = CachedFeatures(self.backbone, at)
        np.testing.assert_array_equal(cached.features(self.kept), self.expected[:80])
        done = len(cached.rows) == len(self.images)
        np.testing.assert_array_equal(cached.features(self.images), self.expected)
        return done

    def _drop(self, at, name):
        cached = CachedFeatures(self.backbone, at)
        for path in at.rglob("*.safetensors"):
            cached._read(path.parent, False, 1)  # raises if it is torn
        keys = [key_of(image) for image in self.gone[name]]
        return not any(key in path.read_bytes() for key in keys for path in at.rglob("*") if path.is_file())

    def _run(self, at):
        path = at / "manifest.json"
        if not path.is_file() or read_json(path)["status"] != "ok":
            return False
        assert self.files_of(at) == self.whole
        return True
