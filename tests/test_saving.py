"""An eraser in one file: what is read is what was written, bit for bit, and it goes on; damage is refused."""

import numpy as np
import pytest

from lmeraser_kit import Eraser, HashClusters, HierarchicalClusters, LMEraser, Recipe, RidgeEraser
from lmeraser_kit.learners import ExactSums, PromptTuning
from lmeraser_kit.partitions import OwnPartition
from lmeraser_kit.unlearning import SharedHead


class Everybody(OwnPartition):
    """One cluster."""

    def assign(self, features, keys):
        return np.zeros(len(keys), int)

    def votes(self, features, available):
        return np.ones((1, 1))


@pytest.fixture(params=["prompts in slices", "private routing", "ridge", "any"])
def eraser(request, backbone):
    quick = Recipe(epochs=1, slices=2)
    return {
        "prompts in slices": LMEraser(backbone, HierarchicalClusters(3), quick, seed=np.int64(2), verbose=False),
        "private routing": LMEraser(backbone, HierarchicalClusters(3, fit_on="private"), quick, verbose=False),
        "ridge": RidgeEraser(backbone, HierarchicalClusters(3, softness=0.1), mirrored=True, verbose=False),
        "any": Eraser(backbone, HashClusters(3), ExactSums(l2=0.3), SharedHead(), verbose=False),
    }[request.param]


def test_what_is_read_is_what_was_written_and_it_goes_on(eraser, private, split, tmp_path):
    eraser.fit(private[:40], public=split.public[:80])
    path = eraser.save(tmp_path / "eraser.safetensors")
    read = type(eraser).load(path)
    assert read.state_hash() == eraser.state_hash() == read.verify()
    np.testing.assert_array_equal(read.predict_proba(split.test), eraser.predict_proba(split.test))
    for one in (read, eraser):
        one.forget(private.uids[:2])
        one.add(private[40:42])
    assert read.state_hash() == eraser.state_hash() == read.verify()
    assert [file.name for file in tmp_path.iterdir()] == ["eraser.safetensors"]


def test_an_empty_eraser_and_a_foreign_file(backbone, private, tmp_path):
    eraser = RidgeEraser(backbone, HashClusters(2), verbose=False).fit(private[:3])
    eraser.forget(private.uids[:3])
    path = eraser.save(tmp_path / "empty")
    assert RidgeEraser.load(path).add(private[:3]).n_samples == 3
    with pytest.raises(ValueError, match=r"of the class RidgeEraser: RidgeEraser\.load"):
        LMEraser.load(path)
    with pytest.raises(ValueError, match="no eraser of this kit"):
        LMEraser.load(backbone.save(tmp_path / "backbone"))
    with pytest.raises(FileNotFoundError):
        LMEraser.load(tmp_path / "none")


def test_one_changed_bit_is_refused(backbone, private, split, tmp_path):
    eraser = LMEraser(backbone, HashClusters(2), Recipe(epochs=1), verbose=False)
    path = eraser.fit(private[:20], public=split.public[:10]).save(tmp_path / "e")
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    for at in np.linspace(start, len(content) - 1, 12).astype(int).tolist():
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged|is it damaged"):
            LMEraser.load(path)
        content[at] ^= 1
    path.write_bytes(content)
    LMEraser.load(path).verify()


def test_a_part_of_ones_own_is_refused_before_anything_is_written(backbone, private, tmp_path):
    eraser = Eraser(backbone, Everybody(), PromptTuning(Recipe(epochs=1)), verbose=False).fit(private[:20])
    with pytest.raises(ValueError, match="partition is of your own, and a file holds no code: keep it in a Store"):
        eraser.save(tmp_path / "own")
    assert not list(tmp_path.iterdir())
