"""Recall and precision of candidate pairs."""

import math

import pandas as pd
import pytest

from lmeraser_kit.evaluation.candidates import judged_pairs, share


def test_recall_and_precision_count_pairs_of_those_who_were_asked_about():
    found = pd.DataFrame({"uid": ["a2", "x", "b2", "y", "b2"], "copy_of": ["a", "a", "b", "c", "a"]})
    row = judged_pairs(found, [("a2", "a"), ("a3", "a"), ("b2", "b")], ["a", "b"])
    assert (row["recall"], row["precision"], row["others"]) == (2 / 3, 2 / 4, 1.0)
    assert (row["wanted"], row["listed"]) == (3, 4)
    assert row["recall_low"] < 2 / 3 < row["recall_high"] and row["precision_low"] < 0.5 < row["precision_high"]
    nobody = judged_pairs(found[:0], [], "a")
    assert math.isnan(nobody["recall"]) and math.isnan(nobody["precision"]) and nobody["others"] == 0


def test_a_share_has_clopper_and_pearsons_interval():
    assert share("s", 0, 10) == {"s": 0.0, "s_low": 0.0, "s_high": pytest.approx(0.30850, abs=1e-5)}
    assert share("s", 10, 10)["s_low"] == pytest.approx(1 - 0.30850, abs=1e-5) and share("s", 10, 10)["s_high"] == 1


def test_wrong_arguments():
    found = pd.DataFrame({"uid": ["a"], "copy_of": ["b"]})
    for wrong in ([], None, 0.5):
        with pytest.raises(ValueError, match="asked"):
            judged_pairs(found, [], wrong)
    for wrong in (None, [("a", "b")], found[["uid"]]):
        with pytest.raises(ValueError, match="found"):
            judged_pairs(wrong, [], "a")
    for hits, n in ((3, 2), (-1, 2), (0.5, 2), (0, -1)):
        with pytest.raises(ValueError, match=r"hits|n is"):
            share("s", hits, n)
