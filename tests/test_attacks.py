"""Attacks and distances on cases whose answer is known: no difference is not found, a memorising model is caught."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import log_softmax

from lmeraser_kit.baselines.methods import check_methods
from lmeraser_kit.baselines.shadows import halves
from lmeraser_kit.evaluation import attacks, distances, roc

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


@pytest.mark.parametrize(("n", "m", "distance"), [(40, 60, 1.0), (5, 300, 1.0), (30, 30, 4.0), (200, 200, 0.0)])
def test_the_intervals_of_independent_scores_cover_the_truth(n, m, distance):
    auc, covered = stats.norm.cdf(distance / np.sqrt(2)), []  # of two unit Gaussians
    for seed in range(300):
        rng = RNG(seed)
        members, others = rng.standard_normal(n) + distance, rng.standard_normal(m)
        row = attacks.evaluate(members, others)
        threshold = np.sort(others)[-1 - m // 100]
        rate = stats.norm.sf(threshold - distance)
        assert row["false_positives_at_0.01"] == m // 100 and row["tpr_at_0.01"] == (members > threshold).mean()
        covered.append(
            (row["auc_low"] <= auc <= row["auc_high"], row["tpr_at_0.01_low"] <= rate <= row["tpr_at_0.01_high"])
        )
    auc_covered, rate_covered = np.mean(covered, axis=0)
    assert auc_covered >= (0.97 if auc > 0.99 else 0.93)  # near 1 it is wide, rather than narrow
    assert auc > 0.99 or auc_covered < 0.985
    assert rate_covered >= 0.94  # Clopper and Pearson's is at least 95%


def test_a_perfect_auc_and_a_rate_of_none_have_intervals_with_a_width():
    row = attacks.evaluate(np.arange(20) + 100.0, np.arange(30.0))
    z2 = stats.norm.ppf(0.975) ** 2
    assert row["auc"] == row["auc_high"] == 1 and 0.85 < row["auc_low"] < 0.93
    assert row["tpr_at_0.001_low"] == pytest.approx(0.025 ** (1 / 20)) and row["tpr_at_0.001_high"] == 1
    some = attacks.evaluate(np.r_[np.full(7, 9.0), np.zeros(13)], np.arange(30.0) / 30)
    exact = stats.binomtest(7, 20).proportion_ci(0.95, "exact")
    assert (some["tpr_at_0.01_low"], some["tpr_at_0.01_high"]) == pytest.approx((exact.low, exact.high))
    none = attacks.evaluate(np.arange(20.0), np.arange(30) + 100.0)
    assert none["auc_low"] == 0 and none["auc_high"] == pytest.approx(1 - row["auc_low"])
    assert none["tpr_at_0.01_high"] == pytest.approx(1 - 0.025 ** (1 / 20))
    assert roc.auc_interval(1.0, 1, 1) == pytest.approx((1 / (1 + z2), 1))  # with N* = 0 it is Wilson's, of one
    low, high = roc.auc_interval(0.8, 40, 60)  # both ends are z standard errors away from 0.8
    for end in (low, high):
        q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)
        variance = (end * (1 - end) + 49 * (q1 + q2 - 2 * end**2)) / 2400  # Hanley and McNeil's, with N* = 49
        assert (0.8 - end) ** 2 == pytest.approx(z2 * variance)


def test_rates_at_few_false_positives_say_what_they_rest_on():
    others = np.arange(999) / 1000
    row = attacks.evaluate(np.r_[np.full(30, 0.9985), np.zeros(70)], others)
    assert row["tpr_at_0.001"] == 0.3 and row["false_positives_at_0.001"] == 0  # of 999: none at all
    row = attacks.evaluate(np.r_[np.full(30, 0.9985), np.zeros(70)], np.r_[others, 2.0])
    assert row["tpr_at_0.001"] == 0.3 and row["false_positives_at_0.001"] == 1  # of 1,000: one
    assert (row["members"], row["others"], row["false_positives_at_0.01"]) == (100, 1000, 10)
    tied = np.repeat(np.arange(200.0), 5)  # a threshold lets a whole tie pass, or nobody of it
    row = attacks.evaluate(tied, tied)
    assert row["auc"] == 0.5 and row["false_positives_at_0.01"] == 10 and row["false_positives_at_0.001"] == 0
    assert row["tpr_at_0.01"] == 0.01 and row["tpr_at_0.001"] == 0


def test_the_interval_of_u_lira_is_over_samples():
    def draw(seed, n, n_models=12):  # samples differ in how well they are remembered; all models agree about it
        rng = RNG(seed)
        shift, base = rng.normal(0.5, 0.5, n), rng.standard_normal(n)
        unlearned = base + shift + rng.standard_normal((n_models, n))
        return unlearned, base + rng.standard_normal((n_models, n))

    truth = np.mean([attacks.u_lira(*draw(seed, 2000), n_resamples=2)["auc"] for seed in range(1000, 1006)])
    rows = [attacks.u_lira(*draw(seed, 40), n_resamples=200) for seed in range(100)]
    assert 0.88 <= np.mean([row["auc_low"] <= truth <= row["auc_high"] for row in rows]) <= 0.99
    assert np.std([row["auc"] for row in rows]) == pytest.approx(np.mean([row["auc_se"] for row in rows]), rel=0.2)
    assert (rows[0]["unlearned_models"], rows[0]["retrained_models"], rows[0]["samples"]) == (12, 12, 40)
    once, again, other = (attacks.u_lira(*draw(0, 40), n_resamples=50, seed=seed) for seed in (1, 1, 2))
    assert once == again != other and once["auc"] == other["auc"]


def test_a_perfect_u_lira_has_the_interval_of_one_score_a_sample():
    rng = RNG(0)
    row = attacks.u_lira(rng.standard_normal((8, 25)) + 99, rng.standard_normal((8, 25)), n_resamples=20)
    assert (row["auc"], row["auc_low"]) == (1, roc.auc_interval(1.0, 25, 25)[0])
    assert row["tpr_at_0.01_low"] == pytest.approx(0.025 ** (1 / 25))


def test_an_attack_with_the_sign_turned_is_an_attack():
    assert attacks.two_sided(0.2) == pytest.approx(0.8) and attacks.two_sided(0.7) == 0.7
    np.testing.assert_allclose(attacks.two_sided(np.array([0.0, 0.4, 0.5, 1.0])), [1, 0.6, 0.5, 1])
    scores = RNG(0).standard_normal((2, 50))
    turned = [attacks.two_sided(attacks.evaluate(*(sign * scores))["auc"]) for sign in (1, -1)]
    assert turned[0] == pytest.approx(turned[1])
    for wrong in (1.2, -0.1, np.nan, [0.5, 2.0]):
        with pytest.raises(ValueError, match=r"auc is .*, expected a share in \[0, 1\]"):
            attacks.two_sided(wrong)


def test_canary_gaps_have_an_interval_over_canaries():
    row = roc.canary_gap(np.array([0.5, 0.7, 0.6]), np.array([0.1, 0.1, 0.3]), np.full(3, 0.1))
    half = stats.t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    assert row["before"] == pytest.approx(0.5) and row["after"] == pytest.approx(0.2 / 3) and row["canaries"] == 3
    assert row["before_largest"] == pytest.approx(0.6) and row["after_largest"] == pytest.approx(0.2)
    assert (row["before_low"], row["before_high"]) == pytest.approx((0.5 - half, 0.5 + half))
    alone = roc.canary_gap([0.5], [0.1], [0.1])
    assert alone["after"] == alone["after_largest"] == 0 and np.isnan(alone["after_low"])


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
    low, high = attacks.u_lira_null(base[0])
    assert low < 0.5 < high < 0.6 < shifted["auc"]
    lower, higher = attacks.u_lira_null(base[0], level=0.99)
    assert lower < low and high < higher


def test_u_lira_wants_models_that_were_drawn_alone():
    def mean_auc(balanced):  # of models of the same kind: a margin is a sum over who is inside
        weights = RNG(1).standard_normal((30, 20))
        drawn = [halves(12, 30, seed, balanced=balanced) @ weights for seed in range(120)]
        return np.mean(
            [attacks.u_lira(*pair, n_resamples=2)["auc"] for pair in zip(drawn[::2], drawn[1::2], strict=True)]
        )

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


N, M = np.linspace(0, 1, 12), np.linspace(0, 1, 15)  # what fits, for the table below
MODELS, HALF = np.tile(N, (10, 1)), np.arange(120).reshape(10, 12) % 3 > 0
NAN, EMPTY, SQUARE = np.where(N > 0.5, np.nan, N), np.zeros(0), np.zeros((12, 2))
OFFLINE = (attacks.lira_online, attacks.lira_offline)


@pytest.mark.parametrize(
    ("call", "arguments", "message"),
    [
        (attacks.evaluate, (EMPTY, M), r"members has shape \(0,\), expected \(N,\), not empty"),
        (attacks.evaluate, (N, EMPTY), r"others has shape \(0,\)"),
        (attacks.evaluate, (SQUARE, M), r"members has shape \(12, 2\), expected \(N,\)"),
        (attacks.evaluate, (3.0, M), r"members has shape \(\)"),
        (attacks.evaluate, (NAN, M), "members holds NaN, expected numbers"),
        (attacks.evaluate, (N, NAN), "others holds NaN"),
        (attacks.evaluate, (["a", "b"], M), "members is .*, expected an array of numbers"),
        (attacks.evaluate, (None, M), "members is None"),
        (attacks.loss_attack, (NAN, M), "members holds NaN"),
        (attacks.loss_attack, (N, EMPTY), "others has shape"),
        (roc.auc_interval, (1.1, 3, 3), "auc is 1.1"),
        (roc.auc_interval, (np.nan, 3, 3), "auc is nan"),
        (roc.auc_interval, (0.5, 0, 3), "n is 0"),
        (roc.auc_interval, (0.5, 3, 2.5), "m is 2.5"),
        (roc.auc_interval, (0.5, 3, 3, 2), "level is 2, expected a finite number above 0 to 1"),
        (
            roc.evaluate_samples,
            (MODELS, MODELS[:, :9]),
            r"others has shape \(10, 9\), expected \(n_models, 12\)",
        ),
        (roc.canary_gap, (N, N[:5], N), r"after has shape \(5,\), expected \(12,\)"),
        (roc.canary_gap, (EMPTY, EMPTY, EMPTY), "never has shape"),
        (attacks.logistic_scores, (N, HALF[0]), r"log_probabilities has shape \(12,\), expected \(N, n_classes\)"),
        (attacks.logistic_scores, (SQUARE, HALF[0][:9]), r"inside is an array of bool \(9,\), expected bool \(12,\)"),
        (attacks.logistic_scores, (SQUARE, HALF[0].astype(int)), "inside is an array of int64"),
        (attacks.logistic_scores, (SQUARE, N > 0.9), "inside has 2 True and 10 False, expected at least 5 of each"),
        (attacks.logistic_scores, (SQUARE * np.nan, HALF[0]), "log_probabilities holds NaN or infinity"),
        (attacks.logistic_scores, (SQUARE, N > 0.5, 0.5), "seed is 0.5, expected a whole number from 0"),
        (attacks.logistic_scores, (SQUARE, N > 0.5, -1), "seed is -1"),
        *((lira, (NAN, MODELS, HALF), "target holds NaN or infinity") for lira in OFFLINE),
        *(
            (lira, (N, MODELS[:, :9], HALF), r"shadows has shape \(10, 9\), expected \(n_models, 12")
            for lira in OFFLINE
        ),
        *((lira, (N, MODELS, HALF[:9]), r"inside is an array of bool \(9, 12\), expected") for lira in OFFLINE),
        *((lira, (N, MODELS, HALF * 1), r"inside is an array of int64 \(10, 12\), expected") for lira in OFFLINE),
        *((lira, (N, MODELS + np.inf, HALF), "shadows holds NaN or infinity") for lira in OFFLINE),
        (attacks.u_lira, (MODELS, MODELS[:, :9]), r"retrained has shape \(10, 9\), expected \(n_models, 12\)"),
        (attacks.u_lira, (N, MODELS), r"unlearned has shape \(12,\), expected \(n_models, N\)"),
        (attacks.u_lira, (MODELS, MODELS * np.nan), "retrained holds NaN"),
        (attacks.u_lira, (MODELS, MODELS[:3]), "needs 4 models of each kind, and has 10 and 3"),
        (attacks.u_lira, (MODELS, MODELS, 1), "n_resamples is 1, expected a whole number from 2"),
        (attacks.u_lira, (MODELS, MODELS, 10, 0.5), "seed is 0.5"),
        (attacks.u_lira_null, (MODELS[:7],), "needs 8 retrained models, and has 7"),
        (attacks.u_lira_null, (N,), "retrained has shape"),
        (attacks.u_lira_null, (MODELS, 2), "level is 2"),
        (attacks.u_lira_null, (MODELS, 0), "level is 0"),
        (attacks.u_lira_null, (MODELS, 0.95, 0), "n_splits is 0, expected a whole number from 2"),
        (attacks.u_lira_null, (MODELS, 0.95, 100, 0.5), "seed is 0.5"),
        (attacks.rmia, (N, N[:5], M, M), r"out has shape \(5,\), expected \(12,\)"),
        (attacks.rmia, (N, N, M, N), r"out_z has shape \(12,\), expected \(15,\)"),
        (attacks.rmia, (NAN, N, M, M), "target holds NaN"),
        (attacks.rmia, (N, N, 2 * M, M), r"target_z is from 0 to 2, expected probabilities in \[0, 1\]"),
        (attacks.rmia, (N, -N, M, M), "out is from -1 to"),
        (attacks.rmia, (N, N, M, EMPTY), "out_z has shape"),
        (attacks.rmia, (N, N, M, M, 1.5), "a is 1.5"),
        (attacks.rmia, (N, N, M, M, 0.3, 0), "gamma is 0, expected a finite number above 0"),
        (attacks.epsilon, (MODELS, MODELS[:, :9]), "retrained has shape"),
        (attacks.epsilon, (MODELS[:0], MODELS), "unlearned has shape"),
        (attacks.epsilon, (MODELS * np.nan, MODELS), "unlearned holds NaN"),
        (attacks.epsilon, (MODELS, MODELS, -1e-5), "delta is -1e-05, expected a finite number from 0 to 1"),
        (attacks.forgetting_quality, (NAN,), "epsilons holds NaN"),
        (attacks.forgetting_quality, (EMPTY,), "epsilons has shape"),
        (attacks.forgetting_quality, (-N,), "epsilons are -1 at least, expected none below 0"),
        (attacks.prototype_attack, (SQUARE, MODELS, SQUARE), r"members has shape \(10, 12\), expected \(N, 2\)"),
        (attacks.prototype_attack, (SQUARE, SQUARE, MODELS), "others has shape"),
        (attacks.prototype_attack, (SQUARE[:0], SQUARE, SQUARE), "prototypes has shape"),
        (attacks.prototype_attack, (SQUARE, SQUARE, SQUARE + np.inf), "others holds NaN or infinity"),
        (attacks.before_after_attack, (N, M, HALF[0]), r"after has shape \(15,\), expected \(12,\)"),
        (attacks.before_after_attack, (N, N, HALF[0][:5]), r"left is an array of bool \(5,\), expected bool \(12,\)"),
        (attacks.before_after_attack, (N, N, [1, 2]), "left is an array of int64"),
        (attacks.before_after_attack, (N, N, N > 2), "left has 0 True and 12 False, expected at least 1 of each"),
        (attacks.before_after_attack, (NAN, N, HALF[0]), "before holds NaN or infinity"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, arguments, message):
    with pytest.raises(ValueError, match=message):
        call(*arguments)


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
