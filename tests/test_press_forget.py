"""The page "press Forget", without a browser: its models against the package, and what the page refuses."""

import re
import socket
from pathlib import Path

import numpy as np
import pytest

from lmeraser_kit import Backbone, load_dataset
from lmeraser_kit.backbones.cached import CachedFeatures
from lmeraser_kit.lab import references
from lmeraser_kit.lab.__main__ import main
from lmeraser_kit.lab.models import EXACT, INEXACT, NAMES, new_eraser, new_model
from lmeraser_kit.lab.page import Page
from lmeraser_kit.lab.references import References


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
    assert outcome.before.keys() == outcome.after.keys() == set(uids) and any(outcome.changed.values())
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
    for wrong in ([], ["nobody"], uids[:40]):
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
    for wrong in ("", "many", "-3", "²"):
        page.forget.guess.value = wrong
        page.forget.press.click()
        assert "lmk-wrong" in page.status.value and not page.model.gone
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
    assert "<th scope='row'>now</th>" in page.attack.verdict.value


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


def test_two_pages_share_no_model(parts, tmp_path):
    one, other = (Page(*parts, References(*parts, n_models=8, root=tmp_path)) for _ in range(2))
    one.look.choose.click()
    one.forget.guess.value = "1"
    one.forget.press.click()
    assert len(one.model.gone) == 1 and not other.model.gone and one.model.hash() != other.model.hash()
    assert set(INEXACT) <= set(NAMES) and np.isfinite(list(one.model.outcomes[0].after.values())).all()
