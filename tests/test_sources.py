"""Datasets in their published formats: read as torchvision reads them, missing and damaged files refused."""

import numpy as np
import pytest
import stand_ins
from PIL import Image

from lmeraser_kit import load_dataset
from lmeraser_kit.datasets import Split
from lmeraser_kit.sources import EXPECTED, N_CLASSES, read_source


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing may be downloaded, and stand-ins are not what the checksums say."""
    monkeypatch.setenv("LMERASER_STAND_INS", "1")

    def refuse(*arguments, **options):
        raise OSError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", stand_ins.WRITERS)
def test_published_formats_are_read_and_split(name, tmp_path):
    stand_ins.WRITERS[name](tmp_path)
    source, split = read_source(name, tmp_path), load_dataset(name, root=tmp_path)
    assert source.train.n_classes == source.test.n_classes == split.private.n_classes == N_CLASSES[name]
    assert source.train.images.dtype == np.uint8 and source.train.images.shape[1] == (1 if "mnist" in name else 3)
    for c in range(10):  # the class decides the colour: labels and channels are where they belong
        means = source.test.images[source.test.labels == c].mean(axis=(0, 2, 3))
        expected = np.random.default_rng(0).integers(30, 226, (N_CLASSES[name], len(means)))[c]
        if (source.test.labels == c).any():
            assert np.abs(means - expected).max() < 8, c
    uids = [set(part.uids.tolist()) for part in (split.public, split.private, split.test)]
    assert not uids[0] & uids[1] and uids[0] | uids[1] == set(source.train.uids.tolist())
    assert split.test.uids.tolist() == source.test.uids.tolist()


@pytest.mark.parametrize("name", stand_ins.WRITERS)
def test_the_published_split_is_the_first_80_per_cent(name, tmp_path):
    stand_ins.WRITERS[name](tmp_path)
    source, split = read_source(name, tmp_path), load_dataset(f"{name}/paper", root=tmp_path)
    if name == "gtsrb":  # no track on both sides
        tracks = [{uid.rsplit("_", 1)[0] for uid in part.uids.tolist()} for part in (split.public, split.private)]
        assert not tracks[0] & tracks[1] and 0.6 < len(split.private) / len(source.train) < 0.95
    else:
        n = round(0.8 * len(source.train))
        assert split.private.uids.tolist() == source.train.uids[:n].tolist()
        assert split.public.uids.tolist() == source.train.uids[n:].tolist()


def test_tracks_of_one_sign_stay_together(tmp_path):
    stand_ins.gtsrb(tmp_path)
    split = load_dataset("gtsrb", seed=3, root=tmp_path)
    tracks = [{uid.rsplit("_", 1)[0] for uid in part.uids.tolist()} for part in (split.public, split.private)]
    assert not tracks[0] & tracks[1] and min(map(len, tracks)) > 10
    assert isinstance(split.private.images, np.memmap) or split.private.images.base is not None


@pytest.mark.parametrize("name", EXPECTED)
def test_missing_files_are_refused_with_where_they_belong(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name} is missing or damaged under .*could not") as error:
        load_dataset(name, root=tmp_path)
    assert EXPECTED[name].split()[0] in str(error.value)


def test_damaged_files_are_refused(tmp_path, monkeypatch):
    stand_ins.cifar10(tmp_path)
    monkeypatch.delenv("LMERASER_STAND_INS")  # now the checksums count
    with pytest.raises(ValueError, match=r"cifar10 is missing or damaged .* Damaged: .*data_batch_1"):
        load_dataset("cifar10", root=tmp_path)
    stand_ins.mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="mnist is missing or damaged"):
        load_dataset("mnist", root=tmp_path)


def test_labels_that_do_not_fit_are_refused(tmp_path):
    stand_ins.mnist(tmp_path)
    stand_ins.idx(tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.full(stand_ins.TEST, 11))
    with pytest.raises(ValueError, match=r"label 11 .* outside the range 0 to 9"):
        load_dataset("mnist", root=tmp_path)


def test_folders_of_images(tmp_path):
    stand_ins.folders(tmp_path)
    samples = read_source("shapes", tmp_path).train
    assert samples.images.shape == (30, 3, 224, 224) and samples.n_classes == 3
    assert isinstance(samples.images, np.memmap)
    assert samples.uids[0] == "shapes-class-0/" + sorted(p.name for p in (tmp_path / "shapes" / "class-0").iterdir())[0]
    before = list((tmp_path / "decoded").iterdir())
    read_source("shapes", tmp_path)
    assert list((tmp_path / "decoded").iterdir()) == before  # decoded once
    assert len(load_dataset("shapes", root=tmp_path).private) > 0
    (tmp_path / "shapes" / "class-1" / "torn.png").write_bytes(b"\x89PNG, and then nothing")
    with pytest.raises(ValueError, match=r"torn.png is no readable image"):
        read_source("shapes", tmp_path)
    assert not list((tmp_path / "decoded").glob("*.partial"))


def test_folders_with_a_test_part_and_wrong_folders(tmp_path):
    stand_ins.folders(tmp_path, "both/train")
    stand_ins.folders(tmp_path, "both/test")
    source = read_source("both", tmp_path)
    assert len(source.train) == len(source.test) == 30
    Image.new("RGB", (9, 9)).save(tmp_path / "both" / "test" / "stray.png")
    (tmp_path / "both" / "test" / "class-9").mkdir()
    with pytest.raises(ValueError, match="different class folders, such as 'class-9'"):
        read_source("both", tmp_path)
    (tmp_path / "nothing" / "here").mkdir(parents=True)
    with pytest.raises(ValueError, match="1 class folders with 0 images: expected CLASS/IMAGE"):
        load_dataset("nothing", root=tmp_path)


def test_a_pair_of_arrays_is_memory_mapped(tmp_path):
    images, labels = stand_ins.blobs(60, 4, 12, 3, 0)
    np.save(tmp_path / "pair-images.npy", images.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"expected images .*, labels"):
        load_dataset("pair", root=tmp_path)
    np.save(tmp_path / "pair-labels.npy", labels)
    assert isinstance(read_source("pair", tmp_path).train.images, np.memmap)
    split = load_dataset("pair", root=tmp_path)
    assert len(split.public) + len(split.private) + len(split.test) == 60


def test_limits_take_the_same_samples_whoever_else_is_there(tmp_path):
    stand_ins.svhn(tmp_path)
    split = load_dataset("svhn", root=tmp_path, limits=[20, 30, 0])
    assert (len(split.public), len(split.private), len(split.test)) == (20, 30, stand_ins.TEST)
    gone = split.private.uids[0]
    whole = load_dataset("svhn", root=tmp_path)
    less = Split(whole.public, whole.private.without([gone]), whole.test, "svhn").take(private=30)
    assert len(set(less.private.uids) & set(split.private.uids)) == 29  # one takes the empty place
    with pytest.raises(ValueError, match="5000 private samples of 'svhn' were asked for, and there are"):
        load_dataset("svhn", root=tmp_path, limits=[0, 5000, 0])
    with pytest.raises(ValueError, match="expected three numbers"):
        load_dataset("svhn", root=tmp_path, limits=[5])
    with pytest.raises(ValueError, match="unknown split 'papers'"):
        load_dataset("svhn/papers", root=tmp_path)
