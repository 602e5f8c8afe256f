"""Stores of formats that were released open in this version; what one has to compute again, it says.

`python tests/test_formats.py` writes the archive of the present format: once, when the format is new.
"""

import shutil
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest

from lmeraser_kit import Backbone, HashClusters, LMEraser, Recipe, Store, load_dataset
from lmeraser_kit.store.reading import FORMAT
from lmeraser_kit.store.store import StoreError

STORES = Path(__file__).parent / "stores"


def eraser_with(backbone):
    return LMEraser(backbone, HashClusters(3), Recipe(epochs=1, prompt="none"), seed=3, verbose=False)


def write(target):
    """A store with two owners' images, tombstones, a request of each kind behind it, and one that waits."""
    split = load_dataset("digits", seed=0)
    private = split.private[:26].with_owners(["anna"] * 3 + ["bo"] * 3 + split.private.uids[6:26].tolist())
    backbone = Backbone.train(split.public[:200], epochs=2, seed=0, img_size=16, embed_dim=16, depth=1, num_heads=2)
    eraser = eraser_with(backbone)
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder) / "store"
        with Store.create(at, eraser, private[:24], tombstones=True) as store:
            store.forget(owner="anna")
            store.add(private[24:])
            store.rectify(type(private)(private.images[6:7], [9], private.uids[6:7], private.n_classes))
            store.request_forget(owner="bo", deadline=30)
            store.backup(Path(folder) / "backup")
        with tarfile.open(target, "w:xz", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    archive.add(path, path.relative_to(folder))


@pytest.fixture(params=sorted(STORES.glob("format-*.tar.xz")), ids=lambda path: path.name.partition(".")[0])
def unpacked(request, tmp_path):
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def test_the_present_format_is_kept():
    assert (STORES / f"format-{FORMAT}.tar.xz").is_file(), "a new format: python tests/test_formats.py"


def test_a_store_that_was_kept_opens_predicts_forgets_and_is_exact(unpacked):
    split = load_dataset("digits", seed=0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        store = Store.open(unpacked / "store", verbose=False)  # bo's deadline has passed since it was made
    with store:
        if said:  # other code or another chip than it was made with
            assert any("learns all" in str(one.message) for one in said), [str(one.message) for one in said]
        assert [row["action"] for row in store.requests()] == ["fit", "forget", "add", "rectify", "forget"]
        assert np.isfinite(store.eraser.predict_proba(split.test[:5])).all()
        store.run()
        held = store.eraser.state_.samples
        assert sorted(held.uids.tolist()) == sorted(split.private.uids[6:26].tolist())
        assert held.labels[held.positions([split.private.uids[6]])].tolist() == [9]
        store.check()
        with pytest.raises(ValueError, match="forgotten"):  # the tombstones are still understood
            store.add(split.private[:1])
        store.forget(split.private.uids[7])
        store.verify()
        fresh = eraser_with(store.eraser.backbone).fit(store.eraser.state_.samples)
        assert store.eraser.state_hash() == fresh.state_hash()


def test_a_backup_that_was_kept_is_restored_beside_its_tombstones_alone(unpacked):
    with pytest.raises(StoreError, match="the tombstones of this store are missing"):
        Store.restore(unpacked / "backup", unpacked / "anew")
    shutil.copytree(unpacked / "store-tombstones", unpacked / "again-tombstones")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Store.restore(unpacked / "backup", unpacked / "again") as store:
            store.run()
            assert len(store.eraser.state_.samples) == 20
            store.verify()


if __name__ == "__main__":
    STORES.mkdir(exist_ok=True)
    target = STORES / f"format-{FORMAT}.tar.xz"
    if target.exists():
        sys.exit(f"{target} is there: it stays as it was made")
    write(target)
