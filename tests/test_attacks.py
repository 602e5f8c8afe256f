"""Attacks and distances on cases whose answer is known: no difference is not found, a memorising model is caught."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax

from lmeraser_kit import attacks, distances
from lmeraser_kit.baselines import check_methods
from lmeraser_kit.shadows import halves

RNG = np.random.default_rng


def shadows(effect, n_models=64, n=300, seed=0):
    """Margins of shadow models: N(0, 1), and `effect` more where a sample was in; and who was in."""
    rng = RNG(seed)
    inside = rng.random((n_models, n)) < 0.5
    return rng.standard_normal((n_models, n)) + effect * inside, inside


def target(effect, n=300, seed=1):
    rng = RNG(seed)
    inside = rng.random(n) < 0.5
    return rng.standard_normal(n) + effect * inside, inside


def within(result, expected=0.5, errors=3):
    return abs(result["auc"] - expected) < errors * result["auc_se"]


# --- attacks


def test_the_interval_of_no_difference_is_right():
    found = [attacks.evaluate(*RNG(seed).standard_normal((2, 60))) for seed in range(400)]
    aucs = np.array([one["auc"] for one in found])
    assert abs(aucs.mean() - 0.5) < 0.01 and aucs.std() == pytest.approx(found[0]["auc_se"], rel=0.15)
    assert attacks.evaluate([2.0, 3], [0.0, 1])["auc"] == 1
    few = attacks.evaluate(np.r_[np.full(30, 9.0), np.zeros(70)], np.arange(1000) / 1000)
    assert few["tpr_at_0.001"] == 0.3


@pytest.mark.parametrize("score", [attacks.lira_online, attacks.lira_offline])
def test_lira_finds_nothing_where_nothing_is_and_what_there_is(score):
    margins, inside = shadows(0)
    values, truth = target(0)
    scores = score(values, margins, inside)
    assert within(attacks.evaluate(scores[truth], scores[~truth]))
    margins, inside = shadows(2)
    values, truth = target(2)
    scores = score(values, margins, inside)
    expected = stats.norm.cdf(2 / np.sqrt(2))  # AUC of two unit Gaussians that are 2 apart
    assert within(attacks.evaluate(scores[truth], scores[~truth]), expected)


def test_lira_is_the_log_ratio_of_two_gaussians():
    margins = np.array([[1.0], [3.0], [-1.0], [-3.0]] * 8)
    inside = margins > 0
    sd = np.std([1.0, 3.0] * 8, ddof=1)
    expected = stats.norm.logpdf(0.5, 2, sd) - stats.norm.logpdf(0.5, -2, sd)
    assert attacks.lira_online(np.array([0.5]), margins, inside)[0] == pytest.approx(expected)
    assert attacks.lira_offline(np.array([-2.0]), margins, inside)[0] == pytest.approx(np.log(2))
    with pytest.raises(ValueError, match="at least two shadow models"):
        attacks.lira_online(np.array([0.5]), margins, margins > -9)


def test_u_lira_tells_apart_what_differs_and_nothing_else():
    rng = RNG(0)
    base = rng.standard_normal((2, 40, 30))
    assert within(attacks.u_lira(base[0], base[1]))
    shifted = attacks.u_lira(base[0] + 2, base[1])
    assert within(shifted, stats.norm.cdf(2 / np.sqrt(2)), errors=5)
    with pytest.raises(ValueError, match="needs 4 models of each kind, and has 3 and 40"):
        attacks.u_lira(base[0, :3], base[1])
    low, high = attacks.u_lira_band(base[0])
    assert low < 0.5 < high < 0.6 < shifted["auc"]
    lower, higher = attacks.u_lira_band(base[0], level=0.99)
    assert lower < low and high < higher


def test_u_lira_wants_models_that_were_drawn_alone():
    def mean_auc(balanced):  # of models of the same kind: a margin is a sum over who is inside
        weights = RNG(1).standard_normal((30, 20))
        drawn = [halves(12, 30, seed, balanced=balanced) @ weights for seed in range(120)]
        return np.mean([attacks.u_lira(*pair)["auc"] for pair in zip(drawn[::2], drawn[1::2], strict=True)])

    assert mean_auc(balanced=False) == pytest.approx(0.5, abs=0.015)
    assert mean_auc(balanced=True) < 0.47


def test_rmia_counts_the_population_that_is_beaten():
    p_z, out_z = np.array([0.2, 0.4, 0.6, 0.8]), np.full(4, 0.5)
    pbar = (1.3 * 0.5 + 0.7) / 2
    scores = attacks.rmia(np.array([0.1, 0.5, 0.9]), np.full(3, 0.5), p_z, out_z)
    np.testing.assert_allclose(scores, [0, 0.5, 1])
    ratio = 0.5 / pbar
    assert attacks.rmia(np.array([0.5]), np.array([0.5]), p_z, out_z, gamma=ratio * pbar / 0.3)[0] == 0.25
    rng = RNG(0)
    same = attacks.rmia(rng.random(400), rng.random(400), rng.random(400), rng.random(400))
    assert within(attacks.evaluate(same[:200], same[200:]))


def test_epsilon_of_models_with_known_rates():
    unlearned, retrained = np.r_[np.ones(30), np.zeros(10)], np.r_[np.ones(10), np.zeros(30)]
    found = attacks.epsilon(unlearned[:, None], retrained[:, None])[0]  # FPR = FNR = 1/4
    assert found == pytest.approx(np.log(0.75 - 1e-5) - np.log(0.25))
    assert attacks.epsilon(retrained[:, None], unlearned[:, None])[0] == pytest.approx(found)  # in both directions
    assert attacks.epsilon(np.zeros((5, 1)), np.zeros((5, 1)))[0] == 0
    assert np.isinf(attacks.epsilon(np.ones((5, 1)), np.zeros((5, 1)))[0])
    assert attacks.forgetting_quality([0.0, 0.49, 0.5, 1.2, np.inf]) == pytest.approx((1 + 1 + 0.5 + 0.25 + 0) / 5)


def test_the_teaching_attacks_catch_a_memorising_model():
    rng = RNG(0)
    remembered = log_softmax(np.eye(10)[rng.integers(0, 10, 80)] * 9 + rng.standard_normal((80, 10)), axis=1)
    unsure = log_softmax(rng.standard_normal((80, 10)), axis=1)
    inside = np.arange(160) < 80
    scores = attacks.logistic_scores(np.r_[remembered, unsure], inside)
    assert attacks.evaluate(scores[inside], scores[~inside])["auc"] > 0.95
    inside = np.arange(80) < 40
    scores = attacks.logistic_scores(unsure, inside)
    assert within(attacks.evaluate(scores[inside], scores[~inside]))
    labels = remembered.argmax(axis=1)
    losses = distances.cross_entropy(remembered, labels), distances.cross_entropy(unsure, rng.integers(0, 10, 80))
    assert attacks.loss_attack(*losses)["auc"] > 0.95
    assert within(attacks.loss_attack(losses[1][:40], losses[1][40:]))


def test_prototypes_betray_who_they_are_made_of_and_nobody_else():
    rng = RNG(0)
    private, others, public = rng.standard_normal((3, 150, 8))
    assert attacks.prototype_attack(private[:20], private[:20], others)["auc"] == 1  # singletons
    pairs = private.reshape(75, 2, 8).mean(axis=1)
    assert attacks.prototype_attack(pairs, private, others)["auc"] > 0.6
    assert within(attacks.prototype_attack(public[:20], private, others))


def test_publishing_before_and_after_tells_who_left():
    rng = RNG(0)
    left = np.arange(200) < 20
    before = rng.standard_normal(200)
    assert within(attacks.before_after_attack(before, before + 0.1 * rng.standard_normal(200), left))
    after = before + 0.1 * rng.standard_normal(200) - left
    assert attacks.before_after_attack(before, after, left)["auc"] == 1


# --- distances


def test_gaps_and_tug_of_war_in_closed_form():
    one, other = {"UA": 0.1, "RA": 0.9, "TA": 0.8, "MIA": 0.6}, {"UA": 0.3, "RA": 0.8, "TA": 0.8, "MIA": 0.5}
    assert distances.average_gap(one, other) == pytest.approx((0.2 + 0.1 + 0 + 0.1) / 4)
    assert distances.tug_of_war(one, other) == pytest.approx(0.8 * 0.9 * 1)
    assert distances.average_gap(one, one) == 0 and distances.tug_of_war(one, one) == 1


def test_accuracies_of_each_part():
    logits = np.eye(4)
    labels = np.array([0, 1, 2, 0])
    found = distances.accuracies(dict.fromkeys(distances.PARTS, logits), dict.fromkeys(distances.PARTS, labels))
    assert found == {"UA": 0.25, "RA": 0.75, "TA": 0.75, "MIA": 0.5}


def test_divergences_in_closed_form():
    p, q = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert distances.kl_divergence(p, q) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    assert distances.total_variation(p, q) == pytest.approx(0.4)
    assert distances.kl_divergence(p + 7, p) == pytest.approx(0)  # logits need not be normalised


def test_the_margin_is_the_log_odds_of_the_label():
    logits = RNG(0).standard_normal((5, 3))
    p = np.exp(log_softmax(logits, axis=1))[np.arange(5), [0, 1, 2, 0, 1]]
    np.testing.assert_allclose(distances.margin(logits, [0, 1, 2, 0, 1]), np.log(p) - np.log(1 - p))
    assert np.isfinite(distances.margin(np.array([[80.0, 0, 0]]), [0])).all()  # where 1 - p is 0 in floating point
    assert distances.margin(RNG(0).standard_normal((2, 5, 3)), [0, 1, 2, 0, 1]).shape == (2, 5)


def test_klom_is_zero_for_the_same_models_and_grows():
    rng = RNG(0)
    one, other = rng.standard_normal((2, 400, 5))
    assert (distances.klom(one, one) == 0).all()
    near, far = distances.klom(one, other), distances.klom(one + 2, other)
    assert (near < 0.1).all() and (far > 0.5).all()
    counted = distances.klom(np.array([[0.0]] * 3 + [[1.0]]), np.array([[0.0]] + [[1.0]] * 3), bins=2)
    p, q = np.array([4, 2]) / 6, np.array([2, 4]) / 6
    assert counted[0] == pytest.approx((p * np.log(p / q)).sum())


def test_an_unknown_attack_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown attack 'lira'; one of: lira online, .*before-after"):
        check_methods(["u-lira", "lira"], attacks.ATTACKS, "attack")
