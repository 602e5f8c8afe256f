import numpy as np
import pytest

from lmeraser_kit import Samples, load_dataset
from lmeraser_kit.ground.commitments import commitment_of, fresh_nonce, opens
from lmeraser_kit.ground.hashing import digest, keyed_uniform


def samples(n=6, **changes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 1, 4, 4)).astype(np.uint8)
    return Samples(**{"images": images, "labels": np.arange(n) % 3, "uids": [f"s{i}" for i in range(n)], **changes})


def test_slices_masks_and_index_arrays_keep_uids_and_classes():
    all_ = samples()
    for index in (slice(1, 3), [1, 2], np.array([False, True, True, False, False, False])):
        part = all_[index]
        assert part.uids.tolist() == ["s1", "s2"] and part.n_classes == 3
        np.testing.assert_array_equal(part.images, all_.images[1:3])
    assert len(all_[4]) == 1 and all_[4].uids[0] == "s4"


def test_owners_travel_and_are_hashed_where_they_are_given():
    plain, owned = samples(), samples(owners=["anna", "ben", "anna", "s3", "ben", "ben"])
    assert plain.owners is plain.uids and not plain.owned and owned.owned
    assert owned[[1, 3]].owners.tolist() == ["ben", "s3"] and owned.without("s0").uids_of("anna") == ["s2"]
    assert owned.uids_of(["ben", "s3"]) == ["s1", "s4", "s5", "s3"]
    assert (owned.digests == plain.digests).all(axis=1).tolist() == [False, False, False, True, False, False]
    assert (owned.owner_keys[[0, 1]] == owned.owner_keys[[2, 4]]).all() and owned.owner_keys[3] == plain.keys[3]
    assert plain.owner_keys is plain.keys
    for other in (owned[::-1].sorted(), owned[3:] + owned[:3], owned.without_cache(), plain.with_owners(owned.owners)):
        assert (other.sorted().digests == owned.digests).all() and other.owned
    mixed = owned[:2] + plain[2:]
    assert mixed.owners.tolist() == ["anna", "ben", "s2", "s3", "s4", "s5"] and not (plain[:2] + plain[2:]).owned
    assert owned.with_owners(None).digest == samples(owners=plain.uids.tolist()).digest == plain.digest
    assert repr(owned).endswith("3 owners)") and "owners" not in repr(plain)
    assert samples(owners=[7, 7, 8, 8, 9, 9]).uids_of(7) == ["s0", "s1"]


def test_owners_that_are_none_are_refused_and_so_is_an_image_of_two():
    for owners, message in (
        (["anna"] * 5, "there are 5 owners for 6 images"),
        ("anna", "there are 1 owners for 6 images"),
        (["anna", "", *"abcd"], "owner '' is no name"),
        ([None, *"abcde"], "owner None is no name"),
        ([0.5, *"abcde"], "owner 0.5 is no name"),
    ):
        with pytest.raises(ValueError, match=message):
            samples(owners=owners)
    anna = samples(owners=["anna"] * 6)
    with pytest.raises(ValueError, match="'s1' is there already, of the owners 'anna' and 'ben'"):
        anna + samples(owners=["ben"] * 6)[1:2]
    for owner, message in ((["anna", "anna"], "named twice"), ("ben", "unknown owner 'ben'"), ([], "owner is empty")):
        with pytest.raises(ValueError, match=message):
            anna.uids_of(owner)


def test_a_commitment_is_opened_by_its_owner_and_its_salt_alone():
    salts = [fresh_nonce(), fresh_nonce()]
    first, second = (commitment_of("owner", "anna", salt) for salt in salts)
    assert first != second and opens(first, "anna", salts[0]) and not opens(first, "anna", salts[1])
    assert not opens(first, "ben", salts[0]) and not opens(commitment_of("uid", "anna", salts[0]), "anna", salts[0])


def test_without_and_add_are_inverse_up_to_order():
    all_ = samples()
    back = all_.without(["s4", "s0"]) + all_[[0, 4]]
    assert sorted(back.uids) == sorted(all_.uids)
    assert (back.sorted().digests == all_.sorted().digests).all()
    assert back.sorted().uids.tolist() == all_.uids.tolist()


def test_a_digest_covers_uid_label_and_pixels():
    one = samples(1)
    images = one.images.copy()
    images[0, 0, 0, 0] ^= 1
    others = [samples(1, uids=["other"]), samples(1, labels=[1], n_classes=3), samples(1, images=images)]
    assert len({s.digests[0].tobytes() for s in [one, *others]}) == 4
    assert digest("ab", "c") != digest("a", "bc")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"images": np.full((6, 1, 4, 4), np.nan)}, "NaN"),
        ({"images": np.zeros((6, 1, 4, 4), dtype=np.float32)}, "expected uint8"),
        ({"images": np.zeros((6, 4, 4), dtype=np.uint8)}, r"\(N, C, H, W\)"),
        ({"images": np.zeros((6, 2, 4, 4), dtype=np.uint8)}, "C = 1 or 3"),
        ({"images": np.zeros((6, 1, 0, 4), dtype=np.uint8)}, "no pixels"),
        ({"labels": np.zeros(5)}, "one for each of the 6 samples"),
        ({"labels": np.full(6, -1)}, "label -1 of uid 's0' is outside"),
        ({"labels": np.arange(6), "n_classes": 4}, "label 4 of uid 's4' is outside the range 0 to 3"),
        ({"labels": np.array([0, 1, np.nan, 0, 0, 0])}, "whole numbers"),
        ({"uids": ["a"] * 6}, "'a' occurs more than once"),
    ],
)
def test_bad_samples_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        samples(**changes)


def test_unknown_and_repeated_uids_are_refused():
    with pytest.raises(ValueError, match="unknown uid 'nobody'"):
        samples().without(["s1", "nobody"])
    with pytest.raises(ValueError, match="'s1' is named twice"):
        samples().without(["s1", "s1"])
    with pytest.raises(ValueError, match="'s1' is there already"):
        samples() + samples()[1:2]
    assert len(samples().without({"s1", "s2"})) == len(samples().without(u for u in ("s1", "s2"))) == 4
    assert samples().without("s1").uids.tolist() == ["s0", "s2", "s3", "s4", "s5"]


def test_random_numbers_belong_to_the_uid_not_to_the_position():
    keys = samples(6).keys
    whole = keyed_uniform("a", 7, keys, 2, 4)
    np.testing.assert_array_equal(keyed_uniform("a", 7, keys[[5, 1]], 2, 4), whole[[5, 1]])
    for other in (("b", 7, keys, 2, 4), ("a", 8, keys, 2, 4), ("a", 7, keys, 3, 4)):
        assert not (keyed_uniform(*other) == whole).any()


def test_random_numbers_are_uniform_and_independent():
    keys = samples(1).keys + np.arange(20_000, dtype=np.uint64)
    u = keyed_uniform("a", 0, keys, 0, 3)
    assert u.min() >= 0 and u.max() < 1
    counts = np.histogram(u, bins=20, range=(0, 1))[0]
    assert ((counts - 3000) ** 2 / 3000).sum() < 43.8  # chi-squared, 19 degrees, p = 0.001
    assert np.abs(np.corrcoef(u.T) - np.eye(3)).max() < 0.03


def test_parts_are_disjoint_and_a_sample_keeps_its_part(tmp_path):
    split = load_dataset("digits", seed=0)
    parts = [set(part.uids) for part in (split.public, split.private, split.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797
    assert [round(len(part) / 1797, 1) for part in parts] == [0.4, 0.4, 0.2]
    half = split.private[::2]
    np.savez(tmp_path / "half.npz", images=half.images, labels=half.labels, uids=half.uids)
    again = load_dataset("half", seed=1, root=tmp_path)
    for part in ("public", "private", "test"):
        whole = set(getattr(load_dataset("digits", seed=1), part).uids)
        assert set(getattr(again, part).uids) == whole & set(half.uids)
    assert parts[0] != set(load_dataset("digits", seed=1).public.uids)


def test_no_private_label_decides_the_number_of_classes(tmp_path):
    digits = load_dataset("digits", seed=0)
    whole = digits.public + digits.private + digits.test
    labels = np.where(whole.uids == digits.private.uids[0], 10, whole.labels)
    arrays = {"images": whole.images, "labels": labels, "uids": whole.uids}
    np.savez(tmp_path / "silent.npz", **arrays)
    with pytest.raises(ValueError, match=r"label 10 of uid .* is outside the range 0 to 9"):
        load_dataset("silent", root=tmp_path)
    np.savez(tmp_path / "stated.npz", **arrays, n_classes=11)
    assert load_dataset("stated", root=tmp_path).public.n_classes == 11


def test_a_bad_dataset_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"unknown dataset 'digit'; one of: digits.*mean 'digits'"):
        load_dataset("digit")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(ValueError, match=r"torn\.npz is not a readable"):
        load_dataset("torn", root=tmp_path)
    np.savez(tmp_path / "bare.npz", images=np.zeros((3, 1, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r"expected images \(N, C, H, W\), labels"):
        load_dataset("bare", root=tmp_path)


def test_a_files_name_without_its_folder_is_told_what_it_may_be(private):
    samples = Samples(private.images[:2], private.labels[:2], ["pets-cat/tom.jpg", "pets-dog/rex.jpg"], 10)
    with pytest.raises(ValueError, match=r"unknown uid 'tom\.jpg'.*Did you mean 'pets-cat/tom\.jpg'\?"):
        samples.without("tom.jpg")
    with pytest.raises(ValueError, match=r"recorded request forgets it$"):
        samples.without("om.jpg")
