"""The page "press Forget", without a browser: its models against the package, and what the page refuses."""

import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from lmeraser_kit import Backbone, load_dataset
from lmeraser_kit.backbones.cached import CachedFeatures
from lmeraser_kit.lab import references
from lmeraser_kit.lab.__main__ import end_group, main
from lmeraser_kit.lab.attacked import attacked_scores, half_with
from lmeraser_kit.lab.fields import limited
from lmeraser_kit.lab.look_panel import ALL, MOST_EXPOSED
from lmeraser_kit.lab.models import EXACT, GROUPS, LEAST_HELD, NAMES, new_eraser, new_model
from lmeraser_kit.lab.outcomes import FAR, Comparison, membership_scores, separation
from lmeraser_kit.lab.page import Page, open_page
from lmeraser_kit.lab.references import References
from lmeraser_kit.lab.words import WORDS


@pytest.fixture(scope="module")
def parts():
    split = load_dataset("digits", seed=0, limits=[150, 130, 40])
    return split, CachedFeatures(Backbone.train(split.public, epochs=1))


@pytest.fixture
def page(parts, tmp_path):
    return Page(*parts, References(*parts, n_models=8, root=tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_a_request_is_compared_with_the_fit_without_them_and_undone_to_the_bit(parts, name):
    split, backbone = parts
    model = new_model(name, split, backbone)
    before, uids = model.hash(), split.private.uids[[3, 50]].tolist()
    outcome = model.forget(uids)
    assert outcome.hash_before == before and outcome.hash_after == model.hash() != before
    assert any(outcome.changed.values())
    assert model.compare().equal == (name in EXACT)
    if name in EXACT:
        fresh = new_eraser(name, backbone, 0).fit(split.private.without(uids), public=split.public)
        assert model.eraser.state_hash() == fresh.state_hash()
    again = model.forget(split.private.uids[[7]].tolist())
    assert again.hash_before == outcome.hash_after
    assert model.undo() is again and model.hash() == outcome.hash_after
    assert model.undo() is outcome and model.hash() == before and not model.gone


def test_a_request_that_makes_no_sense_changes_nothing(parts):
    split, backbone = parts
    model = new_model("ridge head", split, backbone)
    before, uids = model.hash(), split.private.uids.tolist()
    for wrong in ([], ["nobody"], uids[:100]):
        with pytest.raises(ValueError, match=r"nobody is chosen|not held|would be left"):
            model.forget(wrong)
    with pytest.raises(ValueError, match="nothing to undo"):
        model.undo()
    assert model.hash() == before and not model.outcomes


def test_the_page_asks_for_guesses_first_and_then_shows_what_was_computed(page):
    page.steps["2 Forget"].click()
    page.forget.press.click()
    assert "Nobody is chosen" in page.status.value
    page.look.choose.click()
    for wrong in ("", "many", "-3", "²", "2.5", "131", "9" * 5000):
        page.forget.guess.value = wrong
        page.forget.press.click()
        assert "lmk-wrong" in page.status.value and not page.model.gone and page.forget.guess.value == wrong
        expected = "expected a whole number from 0 to 130: so many images does the model hold"
        assert (expected if wrong else "You made no guess") in page.status.value
    page.forget.guess.value = "12"
    page.forget.press.click()
    outcome = page.model.outcomes[-1]
    assert f"You guessed <b>12</b>; it is <b>{outcome.passed}</b>" in page.forget.result.value
    assert page.forget.tiles.value.count('class="other"') == sum(outcome.changed.values()) > 0
    page.forget.fresh.click()
    assert "you made no guess" in page.status.value.lower() and not page.forget.compared.value
    page.forget.hashes.value = "not equal"
    page.forget.fresh.click()
    assert (
        "they are <b>equal</b>" in page.forget.compared.value and page.model.hash()[:24] in page.forget.compared.value
    )
    page.undo.click()
    assert "the same hash as before it" in page.status.value


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lmeraser", "2 images were added again, and their clusters learned with them: the same hash as before it"),
        ("sisa (mean)", "2 images were added again, and their shards learned with them: the same hash as before it"),
        ("ridge head", "2 images were added to the sums again: the same hash as before it"),
        ("newton", "a copy of the model, kept from before it, was put back. Nothing was learned, so its hash shows"),
    ],
)
def test_undo_says_whether_images_were_added_again_or_a_copy_was_put_back(page, name, says):
    page.method.value = name
    page.choose([3, 50])
    page.forget.guess.value = "2"
    page.forget.press.click()
    page.undo.click()
    assert says in page.status.value and not page.model.gone
    assert ("same hash" in page.status.value) == (name in EXACT)


@pytest.mark.parametrize("wrong", ["-5", "10000", "2.5", "", "1e3", "x", "²", "9" * 5000])
def test_a_seed_that_is_none_is_refused_in_a_sentence_and_no_other_is_put_in_its_place(page, wrong):
    model = page.model
    page.seeds.value = wrong
    page.again.click()
    assert "lmk-wrong" in page.status.value and "expected a whole number from 0 to 9999" in page.status.value
    assert page.model is model and page.seed == 0 and page.seeds.value == wrong and len(page.status.value) < 200
    page.seeds.value = " 7 "
    page.again.click()
    assert "Fitted with seed 7" in page.status.value and page.seed == page.model.seed == 7


@pytest.mark.parametrize("numbers", [{"seed": -5}, {"seed": 10_000}, {"backbone_epochs": -1}, {"n_models": 7}])
def test_the_pages_numbers_are_refused_before_anything_is_trained(numbers, tmp_path):
    with pytest.raises(ValueError, match=rf"{next(iter(numbers))} is .*, expected a whole number from"):
        open_page(**numbers, root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_request_stays_when_the_method_changes_and_goes_with_a_new_seed(page):
    page.choose([3, 50])
    page.method.value = "ridge head"
    assert page.chosen == [3, 50] and "Your request stays: 2 chosen to be forgotten." in page.status.value
    page.forget.guess.value = "0"
    page.forget.press.click()
    page.choose([7])
    page.method.value = "lmeraser"
    page.choose([3])
    page.method.value = "ridge head"
    assert page.chosen == [7]
    assert "Your request stays: 1 chosen to be forgotten, without 1 that it has forgotten." in page.status.value
    page.again.click()
    assert not page.chosen and "nobody is chosen" in page.status.value
    page.method.value = "lmeraser"
    assert "Your request" not in page.status.value


def test_a_request_that_took_longer_than_a_fit_is_called_one(page):
    page.choose([3])
    page.forget.guess.value = "1"
    page.forget.press.click()
    outcome, says = page.model.outcomes[-1], "This request took longer than the fit on everybody"
    for seconds, longer in ((0.9, False), (1.1, True)):
        timed = replace(outcome, seconds=seconds * page.model.fit_seconds)
        assert (says in page.forget.told(timed, 1)) == longer


@pytest.mark.parametrize(
    ("name", "word"), [("lmeraser", "cluster"), ("sisa (mean)", "shard"), ("ridge head", "bucket")]
)
def test_pieces_of_the_state_have_the_methods_own_names(page, name, word):
    page.method.value = name
    words = {piece.split()[0] for piece in page.model.pieces()}
    assert word in words and not words & {"cluster", "shard", "bucket"} - {word}


@pytest.mark.committed
def test_what_teachers_are_told_to_click_is_there(page):
    """Its words; what each click shows depends on the chip."""
    text = (Path(__file__).parents[1] / "docs" / "teaching.md").read_text()
    script = re.sub(r"\*\*.*?\*\*", "", text.partition("## First clicks")[2].partition("\n## ")[0])
    clicks = {re.sub(r"^Method: | *\d+ \(.*", "", click).strip(".") for click in re.findall(r"\*([^*\n]+)\*", script)}
    there = [*page.steps, "Show", "Undo", *page.method._options_labels, *page.look.groups._options_labels]
    there += [b.description for b in (page.look.choose, page.look.person, page.forget.press, page.forget.fresh)]
    assert len(clicks) >= 10 and page.undo.description == "Undo" and page.look.groups.description == "Show"
    assert not {click for click in clicks if not any(name.startswith(click) for name in there)}


def test_the_attack_compares_with_the_reference_models_that_are_there(page):
    page.steps["3 Attack"].click()
    page.attack.guess.value = page.attack.guess.options[2]
    page.attack.show.click()
    assert "0 reference models are ready" in page.status.value and not page.attack.result.value
    page.references.prepare(("lmeraser",), n_jobs=1)
    scores, inside = page.references.available("lmeraser")
    assert scores.shape == inside.shape == (8, 130) and (inside.sum(axis=0) == 4).all()
    assert scores[inside].mean() > scores[~inside].mean()  # members score higher
    page.attack.show.click()
    assert "4 reference models trained with the image" in page.attack.result.value
    assert "<th scope='row'>with it</th>" in page.attack.verdict.value


def test_reference_models_of_other_code_of_the_page_are_not_taken(parts, tmp_path, monkeypatch):
    before = References(*parts, n_models=8, root=tmp_path).folder
    assert References(*parts, n_models=8, root=tmp_path).folder == before
    assert References(*parts, n_models=16, root=tmp_path).folder != before
    (tmp_path / "models.py").write_text("EPOCHS = 6")
    monkeypatch.setattr(references, "__file__", str(tmp_path / "references.py"))
    assert References(*parts, n_models=8, root=tmp_path).folder != before


def test_a_port_that_is_taken_is_refused_before_anything_starts(capsys):
    with socket.socket() as other:
        other.bind(("localhost", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["--no-browser", f"--port={port}"]) == 2
    assert f"Port {port} is taken" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-5", "0", "65536", "eight"])
def test_a_port_that_is_none_is_refused(port, capsys):
    with pytest.raises(SystemExit):
        main(["--no-browser", f"--port={port}"])
    assert "expected a whole number from 1 to 65535" in capsys.readouterr().err


def test_two_pages_share_no_model(parts, tmp_path):
    one, other = (Page(*parts, References(*parts, n_models=8, root=tmp_path)) for _ in range(2))
    one.look.choose.click()
    one.forget.guess.value = "1"
    one.forget.press.click()
    assert len(one.model.gone) == 1 and not other.model.gone and one.model.hash() != other.model.hash()


def fake_references(page, name, apart, offset=0.0):
    """Scores of reference models that are not made: of image i, those with it are `apart[i]` deviations higher."""
    references, rng = page.references, np.random.default_rng(0)
    scores = rng.normal(size=references.inside.shape) + references.inside * apart + offset
    for part, models in enumerate(references.parts()):
        path = references.path(name, part)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(scores[models].tobytes())
    return scores


def test_the_attacked_model_is_of_a_half_with_the_image_as_no_reference_model_is(parts):
    split, backbone = parts
    private, request = split.private, split.private.uids[[3, 50]].tolist()
    half = half_with(private, request, seed=0)
    assert len(half) == len(private) // 2 and set(request) <= set(half.uids)
    assert (half.uids == half_with(private, request, 0).uids).all()
    assert set(half.uids) != set(half_with(private, request, 1).uids)
    inside = np.isin(private.uids, half.uids)
    common = (References(split, backbone, n_models=64).inside == inside).mean(axis=1)
    assert common.min() > 0.3 and common.max() < 0.7  # as much in common as chance gives
    many = private.uids[:80].tolist()
    most = half_with(private, many, 0)
    assert len(most) == 80 + LEAST_HELD and set(many) <= set(most.uids)


@pytest.mark.parametrize("name", ["ridge head", "newton"])
def test_the_attack_is_on_a_model_of_half_before_and_after_the_same_request(parts, name):
    split, backbone = parts
    private, request = split.private, split.private.uids[[3, 50]].tolist()
    image, half = private[[3]], half_with(split.private, request, 0)
    found = attacked_scores(name, split, backbone, 0, request[0], request)
    eraser = new_eraser(name, backbone, 0).fit(half, public=split.public)
    proba = eraser.predict_proba(image)[0]
    mine = proba[image.labels[0]]
    assert found["before"] == pytest.approx(np.log(mine) - np.log1p(-mine))
    fresh = new_eraser(name, backbone, 0).fit(half.without(request), public=split.public)
    without = membership_scores(fresh.predict_proba(image), image.labels)[0]
    assert (found["after"] == without) == (name in EXACT) and found["after"] != found["before"]
    assert attacked_scores(name, split, backbone, 0, request[0]).keys() == {"with it"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1032.95, "more than +20"), (-1032.95, "less than -20"), (20.0, "+20.00"), (-0.5, "-0.50"), (0.25, "+0.25")],
)
def test_a_log_ratio_beyond_what_can_be_measured_is_shown_as_more_than_20(value, shown):
    assert limited(value, 2, signed=True) == shown


def test_the_verdict_on_a_score_far_from_both_is_told_in_words_and_not_by_a_large_number(page):
    inside = np.arange(8)[:, None] < 4
    scores = np.linspace(0, 1, 8)[:, None] + 100 * inside
    told = page.attack.told({"before": 100.0, "after": 1.0}, scores, inside)
    assert "<td class='n'>more than +20</td><td>it was in</td>" in told
    assert "<td class='n'>less than -20</td><td>it was not in</td>" in told
    assert "are more than 20 standard deviations apart" in told and "480 million to 1" in told
    assert "480 million" not in page.attack.told({"before": 50.5}, scores, inside)


def test_separation_is_the_difference_of_means_over_the_pooled_deviation():
    inside = np.array([[True, False], [True, True], [False, True], [False, False]])
    scores = np.array([[5.0, 1.0], [7.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    assert separation(scores, inside) == pytest.approx([5 / np.sqrt(2), 0])


def test_where_reference_models_look_alike_the_attack_says_that_it_cannot_tell(page):
    page.steps["3 Attack"].click()
    page.attack.guess.value = page.attack.guess.options[2]
    for apart, says, silent in ((0.0, "attack cannot", "LiRA says"), (40.0, "LiRA says", "attack cannot")):
        fake_references(page, "lmeraser", apart, offset=-20)
        page.attack.show.click()
        assert says in page.attack.verdict.value and silent not in page.attack.verdict.value
    assert "forget it, and attack again" in page.attack.verdict.value
    page.choose([0])
    page.forget.guess.value = "1"
    page.forget.press.click()
    page.attack.update()
    page.attack.guess.value = page.attack.guess.options[1]
    page.attack.show.click()
    for name in ("before", "after"):
        assert f"<th scope='row'>{name}</th>" in page.attack.verdict.value
    assert "forget it" not in page.attack.verdict.value


def test_the_most_exposed_come_first_once_all_reference_models_are_there(page):
    def orders():
        return [order for _, order in page.look.groups.options if order < ALL]

    apart = np.zeros(len(page.split.private))
    apart[[70, 9, 101]] = 300, 200, -100
    scores = fake_references(page, "lmeraser", apart)
    assert separation(scores, page.references.inside).argsort()[::-1][:3].tolist() == [70, 9, 101]
    page.references.path("lmeraser", 0).rename(page.references.folder / "away")
    page.update()
    assert MOST_EXPOSED not in orders()
    (page.references.folder / "away").rename(page.references.path("lmeraser", 0))
    page.update()
    assert MOST_EXPOSED in orders()
    page.look.groups.value = MOST_EXPOSED
    assert page.look.shown[:3].tolist() == [70, 9, 101]
    n = (separation(scores, page.references.inside) >= FAR).sum()
    assert f"Of {n} images they are so far apart" in page.look.about.value
    page.method.value = "ridge head"
    assert page.look.groups.value == ALL and MOST_EXPOSED not in orders()


@pytest.mark.parametrize("name", GROUPS)
def test_a_request_says_in_how_many_clusters_they_lie_and_those_are_learned_again(page, name):
    page.method.value = name
    where, uids = page.model.groups(), page.split.private.uids
    page.choose([1, 2, 3, 5, 8, 13, 21, 34])
    clusters = {where[uid] for uid in uids[page.chosen].tolist()}
    page.forget.guess.value = "1"
    page.forget.press.click()
    outcome = page.model.outcomes[-1]
    assert outcome.lie_in == len(clusters) and outcome.groups == len(set(where.values())) and not outcome.emptied
    assert outcome.passed == sum(k in clusters for k in page.model.groups().values())
    text = f"These 8 images lie in {len(clusters)} of {outcome.groups} {GROUPS[name]}s"
    assert f"{text}, and each of these is learned again." in page.forget.result.value


def test_an_approximate_method_is_asked_and_judged_as_one(page):
    page.steps["2 Forget"].click()
    assert page.forget.guess.description.startswith("How many images will pass through the model again?")
    page.method.value = "newton"
    assert page.forget.guess.description.startswith("How many images will the method look at?")
    for apart, says in (
        (0.06, "nearer to the fresh fit than doing nothing, by 25%"),
        (0.08, "no nearer"),
        (0.09, "no"),
    ):
        said = page.forget.beside_each_other(Comparison("a", "b", apart, 0.08, 0.0, 1.0, 1))
        assert f"<b>{says}" in said
    assert "doing nothing" not in page.forget.beside_each_other(Comparison("a", "a", 0.0, 0.08, 0.0, 1.0, 1))


def test_the_words_of_the_page_are_explained_on_it(page):
    shown = " ".join(child.value for child in page.widget.children if "lmk-words" in str(getattr(child, "value", "")))
    assert shown.count("<p><b>") == len(WORDS) and "<summary>Words</summary>" in shown


def test_what_is_made_beside_the_page_ends_with_it_and_so_do_its_workers():
    sleep = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    command = [sys.executable, "-c", f"{sleep}; print(p.pid, flush=True); p.wait()"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as making:
        worker = psutil.Process(int(making.stdout.readline()))
        end_group(making)
        assert making.poll() is not None
        psutil.wait_procs([worker], timeout=10)
        assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
