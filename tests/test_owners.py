"""Requests of owners, who have many images, and rectification: exact, refused by name, and nothing left of either."""

import warnings

import numpy as np
import pytest
import stand_ins
from conftest import TINY
from PIL import Image

from lmeraser_kit import (
    Backbone,
    Eraser,
    HashClusters,
    HierarchicalClusters,
    HyperplaneClusters,
    LMEraser,
    Recipe,
    RidgeEraser,
    Samples,
    SingleCluster,
    Store,
    load_dataset,
)
from lmeraser_kit.backbones import CachedFeatures
from lmeraser_kit.data import Split, invented_owners, read_source
from lmeraser_kit.data.inputs import data_files
from lmeraser_kit.ground.commitments import opens
from lmeraser_kit.ground.names import owner_counts
from lmeraser_kit.learners import ExactSums, PromptTuning
from lmeraser_kit.store import StoreError
from lmeraser_kit.unlearning import SharedHead

PARTITIONS = {
    "public prototypes": HierarchicalClusters(4),
    "private prototypes": HierarchicalClusters(4, fit_on="private"),
    "bounded": HierarchicalClusters(3, bound=8),
    "hyperplanes": HyperplaneClusters(2),
    "shards": HashClusters(4),
    "shards by owner": HashClusters(4, by="owner"),
    "one": SingleCluster(),
}
LEARNERS = {
    "head": (PromptTuning(Recipe(epochs=1, prompt="none", slices=2)), None),
    "exact sums": (ExactSums(), SharedHead(corrections=True)),
}
NAMES = ["owner-anna", "owner-ben", "owner-cleo", "owner-dora", "owner-emil"]


@pytest.fixture(scope="module")
def owned(private):
    """Thirty images of five owners, and ten that are their own."""
    uids, names = private.uids[:40].tolist(), np.random.default_rng(0).permutation(np.repeat(NAMES, 6)).tolist()
    return private[:40].with_owners(names + uids[30:])


def changed(samples, **changes):
    parts = {name: getattr(samples, name) for name in ("images", "labels", "uids", "n_classes", "owners")}
    return Samples(**parts | changes)


@pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)
@pytest.mark.parametrize("learner, vote", LEARNERS.values(), ids=LEARNERS)
def test_owners_who_leave_come_back_or_are_rectified_give_the_state_of_a_fresh_fit(
    learner, vote, partition, backbone, split, owned
):
    def fit(samples):
        return Eraser(backbone, partition, learner, vote, verbose=False).fit(samples, split.public[:60])

    anna, ben = (owned[owned.owners == name] for name in NAMES[:2])
    whole, after = fit(owned).state_hash(), fit(owned.without([*anna.uids, *ben.uids])).state_hash()
    one_by_one, batch, by_uid = fit(owned[::-1]), fit(owned), fit(owned)
    planned = batch.plan(owned, split.public[:60], owner=NAMES[1::-1])
    receipt = batch.forget(owner=NAMES[:2])
    assert planned == ({} if receipt.summed else receipt.clusters_tuned) and receipt.n_requested == 12
    one_by_one.forget(owner="owner-ben"), one_by_one.forget(owner=["owner-anna"])
    by_uid.forget([*ben.uids, *anna.uids])
    assert {eraser.state_hash() for eraser in (one_by_one, batch, by_uid)} == {after}
    assert batch.verify() == after
    batch.add(ben), batch.add(anna[:3]), batch.add(anna[3:])
    assert batch.state_hash() == whole
    rng = np.random.default_rng(1)
    wrong = changed(anna, images=rng.integers(0, 256, anna.images.shape).astype(np.uint8), labels=[9] * 6)
    mistaken = fit(owned.without(anna.uids) + wrong[2:] + anna[:2].with_owners(["owner-ben"] * 2))
    assert mistaken.state_hash() != whole
    receipt = mistaken.rectify(anna)
    assert mistaken.state_hash() == whole and receipt.action == "rectify" and receipt.n_requested == 6
    mistaken.rectify(anna.with_owners(None))  # who states no owner keeps the one that there is
    assert mistaken.state_hash() == whole == mistaken.verify()


@pytest.mark.parametrize("kind", [LMEraser, RidgeEraser])
def test_samples_without_owners_are_hashed_and_priced_as_before(kind, make_eraser, split, private):
    plain, own = private[:40], private[:40].with_owners(private[:40].uids)
    erasers = [make_eraser(HashClusters(3, by=by), kind).fit(part) for by in ("uid", "owner") for part in (plain, own)]
    assert erasers[0].state_hash() == erasers[1].state_hash() and erasers[2].state_hash() == erasers[3].state_hash()
    assert erasers[0].state_.digests() == erasers[2].state_.digests()  # the same clusters of the same samples
    assert all(e.receipt_.owner_cost_factor is None and not e.receipt_.commitments for e in erasers)
    assert "owner" not in str(erasers[0].receipt_)


def test_an_owner_costs_one_shard_by_owner_and_a_subtraction_of_sums(make_eraser, owned, split):
    shards = make_eraser(HashClusters(4, by="owner")).fit(owned)
    for name in NAMES[:4]:
        assert len(shards.plan(owned, owner=name)) <= 1
        receipt = shards.forget(owner=name)
        assert len(receipt.clusters_tuned) + len(receipt.clusters_removed) == 1
    assert make_eraser(HashClusters(4, by="uid")).fit(owned).forget(owner=NAMES[0]).clusters_tuned.keys() == {1, 2, 3}
    sums = make_eraser(HashClusters(8), RidgeEraser).fit(owned)
    assert sums.plan(owned, owner=NAMES) == {} and sums.forget(owner=NAMES).sample_gradients == 0
    assert len(sums.state_) == 10


def test_the_cost_factor_of_an_owner_follows_from_who_is_where(make_eraser, owned, split):
    fitted = make_eraser(HashClusters(4)).fit(owned)
    held = fitted.state_.samples
    touched = [np.unique(fitted.state_.assignment[held.owners == name]) for name in np.unique(held.owners)]
    sizes = np.bincount(fitted.state_.assignment)
    assert fitted.receipt_.owner_cost_factor == pytest.approx(40 / np.mean([sizes[k].sum() for k in touched]))
    assert make_eraser(HashClusters(4), RidgeEraser).fit(owned).receipt_.owner_cost_factor == 15  # 15 owners of 40
    assert "(an owner's" in str(fitted.receipt_)
    n_k, c_k, n_owners = owner_counts(np.array([*"aabbc"]), np.array([1, 1, 1, 5, 5]))
    assert (n_k.tolist(), c_k.tolist(), n_owners) == ([3, 2], [2, 2], 3)


def test_a_receipt_names_no_owner_and_its_commitments_are_opened_by_who_has_the_salt(make_eraser, owned):
    fitted = make_eraser(HashClusters(3)).fit(owned)
    theirs = owned[owned.owners == NAMES[0]]
    receipt = fitted.forget(owner=[NAMES[1], NAMES[0]])
    assert [opens(c, n, s) for c, n, s in zip(receipt.commitments, NAMES[1::-1], receipt.salts, strict=True)] == [
        True
    ] * 2
    assert not opens(receipt.commitments[0], NAMES[0], receipt.salts[0])
    assert "owner-" not in str(vars(receipt)) and receipt.salts[0] not in repr(receipt)
    fitted.add(theirs)
    before, again = fitted.state_hash(), fitted.forget(owner=NAMES[0])
    assert not {*again.commitments, *again.salts} & {*receipt.commitments, *receipt.salts}
    fitted.add(theirs)
    assert fitted.state_hash() == before  # no salt is in it


def test_wrong_requests_are_one_clear_error_and_lose_nothing(make_eraser, owned, split, tmp_path):
    fitted = make_eraser(HashClusters(3)).fit(owned, split.public[:30])
    named, other = owned[:1], split.private[200:201]
    theirs = changed(split.public[:2], owners=["owner-public"] * 2)
    cases = {
        "unknown owner 'nobody'": lambda e: e.forget(owner=["owner-anna", "nobody"]),
        "named twice": lambda e: e.forget(owner=["owner-anna", "owner-anna"]),
        "owner is empty": lambda e: e.forget(owner=[]),
        "owner 0.5 is no name": lambda e: e.forget(owner=[0.5]),
        "both of uids and owner": lambda e: e.forget(owned.uids[:1], owner="owner-anna"),
        "neither of uids and owner": lambda e: e.forget(),
        "its owner is": lambda e: e.add(named.with_owners(["owner-zoe"])),
        f"owner .{split.public.uids[0]}. has public samples": lambda e: e.add(other.with_owners(split.public.uids[:1])),
        "unknown uid": lambda e: e.rectify(owned[:2] + other),
        "outside the range": lambda e: e.rectify(changed(named, labels=[10], n_classes=11)),
        "cannot join images": lambda e: e.rectify(changed(named, images=np.zeros((1, 1, 9, 9), np.uint8))),
        "has public samples": lambda e: e.rectify(changed(named, owners=split.public.uids[:1])),
        "samples is": lambda e: e.rectify(["a"]),
    }
    with Store.create(tmp_path / "store", make_eraser(HashClusters(3)), owned, split.public[:30]) as store:
        for message, call in cases.items():
            for eraser in (fitted, store):
                with pytest.raises(ValueError, match=message):
                    call(eraser)
        assert store.eraser.state_hash() == fitted.state_hash() and store.requests()[-1]["action"] == "fit"
        for call in (lambda e: e.forget(owner="owner-anna"), lambda e: e.rectify(named)):
            with pytest.raises(StoreError, match="belongs to a store"):
                call(store.eraser)
    fitted.verify()
    with pytest.raises(ValueError, match="owner 'owner-public' has public samples"):
        make_eraser(HashClusters(3)).fit(owned[:5].with_owners(["owner-public"] * 5), theirs)
    with pytest.raises(ValueError, match="by is 'person', expected one of: uid, owner"):
        make_eraser(HashClusters(3, by="person")).fit(owned)
    with pytest.raises(ValueError, match="unknown owner 'nobody'"):
        fitted.plan(owned, split.public[:30], owner="nobody")


def left_in(folder, *traces):
    """Files below a folder that hold a trace."""
    held = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return [(path.name, trace) for path, content in held.items() for trace in traces if trace in content]


def test_a_store_forgets_an_owner_by_name_and_a_wrong_image_and_keeps_neither(make_eraser, owned, tmp_path):
    anna, ben = (owned[owned.owners == name] for name in NAMES[:2])
    wrong = changed(ben, images=np.random.default_rng(3).integers(0, 256, ben.images.shape).astype(np.uint8))
    start = owned.without(ben.uids) + wrong
    with Store.create(tmp_path, make_eraser(HashClusters(3)), start) as store:
        traces = [image.tobytes() for image in wrong.images] + [one.tobytes() for one in wrong.digests]
        assert left_in(tmp_path, b"owner-anna", b"owner-ben") and left_in(tmp_path, traces[0])
        certificate = store.rectify(ben)
        assert (certificate.n_rectified, certificate.n_forgotten, certificate.n_added) == (6, 0, 0)
        assert not left_in(tmp_path, *traces)
        assert store.eraser.state_hash() == make_eraser(HashClusters(3)).fit(owned).state_hash()
        assert [r["action"] for r in store.requests()] == ["fit", "rectify"] and store.requests()[-1]["n"] == 6
        certificate = store.forget(owner="owner-anna")
        (salt,) = certificate.owner_salts
        assert certificate.concerns("owner-anna", salt) and not certificate.concerns("owner-ben", salt)
        assert [opens(one, "owner-anna", salt) for one in certificate.commitments] == [True]
        assert "owner" not in certificate.record() and certificate.n_forgotten == 6
        assert not left_in(tmp_path, b"owner-anna", b"owner_anna", salt.encode(), *[u.encode() for u in anna.uids])
        assert left_in(tmp_path, b"owner-ben")
        store.verify(), store.check()
    with Store.open(tmp_path, verbose=False) as store:
        after = make_eraser(HashClusters(3)).fit(owned.without(anna.uids))
        assert store.eraser.state_hash() == after.state_hash()
        np.testing.assert_array_equal(store.eraser.state_.samples.owners, after.state_.samples.owners)
        store.forget(owner=NAMES[1:])
        assert len(store.eraser.state_) == 10 and not left_in(tmp_path, b"owner-")


def test_a_request_of_an_owner_is_about_what_was_held_when_it_was_recorded(make_eraser, owned, tmp_path):
    anna = owned[owned.owners == "owner-anna"]
    early, late = anna[2:4], anna[4:]
    eraser = make_eraser(HashClusters(3))
    store = Store.create(tmp_path, eraser, owned.without([*early.uids, *late.uids]))
    store.request_add(early)
    salts = store.request_forget(owner="owner-anna")
    store.request_add(late)
    store.request_rectify(changed(late, labels=[1, 1]))
    with pytest.raises(ValueError, match="unknown owner"):
        store.request_forget(owner="owner-zoe")
    assert list(salts) == ["owner-anna"] and left_in(tmp_path / "staged", b"owner-anna")
    store.close()  # a crash: nothing was carried out
    with Store.open(tmp_path, verbose=False) as store:
        certificate = store.recovered
        assert (certificate.n_forgotten, certificate.n_added, certificate.n_rectified) == (2, 2, 0)
        assert certificate.concerns("owner-anna", salts["owner-anna"])
        expected = owned.without(anna.uids) + changed(late, labels=[1, 1])
        assert store.eraser.state_hash() == make_eraser(HashClusters(3)).fit(expected).state_hash()
        assert sorted(store.eraser.state_.uids_of("owner-anna")) == sorted(late.uids)
        store.verify()


def test_two_requests_of_one_owner_in_one_run_have_a_commitment_each(make_eraser, owned, tmp_path):
    anna = owned[owned.owners == "owner-anna"]
    with Store.create(tmp_path, make_eraser(HashClusters(3)), owned) as store:
        first = store.request_forget(owner="owner-anna")
        store.request_add(anna)
        second = store.request_forget(owner="owner-anna")
        certificate = store.run()
        assert certificate.owner_salts == [first["owner-anna"], second["owner-anna"]]
        assert len(set(certificate.commitments)) == 2 and certificate.n_forgotten == 6
        assert all(certificate.concerns("owner-anna", salt) for salt in certificate.owner_salts)


def test_a_store_of_the_format_before_is_refused_with_what_to_do(make_eraser, owned, tmp_path, monkeypatch):
    for module in ("reading", "store"):
        monkeypatch.setattr(f"lmeraser_kit.store.{module}.FORMAT", "4")
    Store.create(tmp_path, make_eraser(HashClusters(2)), owned).close()
    monkeypatch.undo()
    with pytest.raises(StoreError, match="another version of the kit: make a new store from its samples"):
        Store.open(tmp_path)


def test_owners_are_in_a_file_and_come_back_with_it(split, owned, tmp_path):
    backbone = Backbone.train(split.public[:60], epochs=1, seed=0, **TINY)
    fitted = RidgeEraser(backbone, HashClusters(4, by="owner"), verbose=False).fit(owned, split.public[:60])
    assert backbone.is_timm
    read = RidgeEraser.load(fitted.save(tmp_path / "owned.safetensors"))
    assert read.state_hash() == fitted.state_hash()
    assert read.forget(owner="owner-anna").hash_after == fitted.forget(owner="owner-anna").hash_after
    assert b"owner-anna" not in fitted.save(tmp_path / "after.safetensors").read_bytes()


def test_features_of_an_image_that_was_rectified_are_not_kept(backbone, split, owned, tmp_path):
    cached = CachedFeatures(backbone, tmp_path)
    fitted = RidgeEraser(cached, HashClusters(4), verbose=False).fit(owned, split.public[:60])
    right = changed(owned[:1], images=owned.images[:1] ^ 1)
    keys = set(cached.rows)
    fitted.rectify(right)
    assert len(keys - set(cached.rows)) == 1


def write_people(root, name, parts=("",), n_people=24):
    """Images of noise in CLASS/OWNER/ folders: an owner has three, in two classes."""
    rng = np.random.default_rng(0)
    for part in parts:
        for i in range(3 * n_people):
            path = root / name / part / f"class-{i % 2}" / f"person-{part}-{i // 3}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def together(split):
    sides = [set(part.owners.tolist()) for part in (split.public, split.private, split.test)]
    return all(sides) and not (sides[0] & sides[1] or sides[1] & sides[2] or sides[0] & sides[2])


def test_owners_come_from_folders_and_stay_on_one_side_of_the_split(tmp_path):
    write_people(tmp_path, "people")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train = read_source("people", tmp_path).train
    assert train.owned and len(set(train.owners.tolist())) == 24
    assert sorted(train.uids_of("person--0")) == [f"people-class-{i % 2}/person--0/{i}.png" for i in (0, 2, 1)]
    for seed in range(4):
        split = load_dataset("people", seed=seed, root=tmp_path)
        assert together(split)
    with pytest.raises(ValueError, match=r"owner 'person--\d+' has public and private samples"):
        Split(split.public, split.private.with_owners([split.public.owners[0]] * len(split.private)), split.test, "x")
    (tmp_path / "people" / "class-0" / "person--0" / "0.png").rename(tmp_path / "people" / "class-0" / "alone.png")
    with pytest.warns(
        UserWarning, match=r"1 of 72 images under .* lie in no owner's folder, such as class-0/alone.png"
    ):
        train = read_source("people", tmp_path).train
    assert train.owners[train.positions("people-class-0/alone.png")] == ["people-class-0/alone.png"]


def test_an_owner_in_the_official_training_and_test_part_is_refused(tmp_path):
    write_people(tmp_path, "both", ("train", "test"))
    assert together(load_dataset("both", root=tmp_path)) and together(load_dataset("both/paper", root=tmp_path))
    (tmp_path / "both" / "test" / "class-0" / "person-test-0").rename(tmp_path / "both/test/class-0/person-train-0")
    with pytest.raises(ValueError, match=r"owner 'person-train-0' has (public|private) and test samples"):
        load_dataset("both", root=tmp_path)


def test_owners_come_from_prepared_arrays(tmp_path):
    images, labels = stand_ins.blobs(90, 3, 8, 3, 0)
    arrays = {"images": images.transpose(0, 3, 1, 2), "labels": labels}
    owners = [f"person-{i // 3}" for i in range(90)]
    np.savez(tmp_path / "one.npz", **arrays, owners=owners)
    np.savez(tmp_path / "plain.npz", **arrays)
    for name, array in (arrays | {"owners": np.array(owners)}).items():
        np.save(tmp_path / f"two-{name}.npy", array)
    assert tmp_path / "two-owners.npy" in data_files("two", tmp_path)
    one, two = (load_dataset(name, root=tmp_path) for name in ("one", "two"))
    assert together(one) and one.private.owners.tolist() == two.private.owners.tolist()
    plain = load_dataset("plain", root=tmp_path)
    assert not plain.private.owned and plain.digest != one.digest
    np.savez(tmp_path / "odd.npz", **arrays, owners=owners[:80])
    with pytest.raises(ValueError, match="there are 80 owners for 90 images"):
        load_dataset("odd", root=tmp_path)


def test_invented_owners_follow_a_rule_and_may_be_of_one_class(private):
    for exponent, seed, alike in ((0.0, 0, False), (1.0, 0, False), (1.0, 1, True), (2.0, 3, True)):
        given = invented_owners(private, 4, exponent, seed, alike)
        names, sizes = np.unique(given.owners, return_counts=True)
        assert len(names) == 30 and sizes.sum() == 120 and sizes.min() >= 1
        assert (np.diff(sizes) <= 0).all() and names[0] == "owner-00001"  # by rank
        again = invented_owners(private[::-1], 4, exponent, seed, alike)
        assert again.sorted().owners.tolist() == given.sorted().owners.tolist()
    assert set(np.unique(invented_owners(private, 4, 0.0).owners, return_counts=True)[1].tolist()) == {4}
    classes = [len(np.unique(given.labels[given.owners == name])) for name in names]
    apart = invented_owners(private, 4, 2.0, 3)
    assert np.mean(classes) < np.mean([len(np.unique(apart.labels[apart.owners == name])) for name in names])
    assert len(np.unique(invented_owners(private[:3], 100).owners)) == 1
