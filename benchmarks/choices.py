"""What is chosen for exact sums and corrections, on public samples alone: `python benchmarks/choices.py [OPTIONS]`.

The public samples are divided into three: clusters are made of the first, a model is fitted on the second, and the
third is predicted. Nothing private, and no test image, is looked at. Two tables are written: accuracy by the penalty
l2, at several numbers of samples; and by softness and number of votes, with clusters of some 200 samples.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from lmeraser_kit import HashClusters, HierarchicalClusters, RidgeEraser, load_dataset
from lmeraser_kit.backbones import backbone_for
from lmeraser_kit.ground.determinism import progress
from lmeraser_kit.unlearning.votes import SharedHead

PENALTIES = (50, 150, 400, 1000, 2500)
SOFTNESS, VOTES = (0.05, 0.1, 0.2, 0.4), (1, 2, 4, 8, 16)


def main() -> None:
    """Choose, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="cifar10/paper")
    parser.add_argument("--backbone", default="tf_efficientnet_lite0@96")
    parser.add_argument("--fit-sizes", type=int, nargs="+", default=[300, 1500, 4000])
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/choices"))
    given = parser.parse_args()
    public = load_dataset(given.dataset).public
    backbone = backbone_for(given.backbone, public, cached=True)
    backbone.features(np.asarray(public.images), 2, layers=True)  # once, on both cores
    order = np.argsort(public.keys)
    n = max(given.fit_sizes)
    if len(public) < 2 * n + 500:
        parser.error(f"{len(public)} public samples are too few for fits on {n}: give smaller --fit-sizes")
    fit, seen, asked = public[order[:n]], public[order[n : 2 * n]], public[order[2 * n :]]
    by_l2, by_votes = [], []
    for size in progress(given.fit_sizes, desc="penalties"):
        for l2 in PENALTIES:
            eraser = RidgeEraser(backbone, HashClusters(8), l2=l2, verbose=False).fit(fit[:size], public=seen)
            by_l2.append({"n_samples": size, "l2": l2, "accuracy": eraser.score(asked)})
    clusters = HierarchicalClusters(max(2, n // 200), softness=1.0)
    eraser = RidgeEraser(backbone, clusters, verbose=False).fit(fit, public=seen)
    shared, learner = SharedHead(corrections=True), eraser.choices().learner
    context = eraser.rebuild().context.of(asked)
    for softness in progress(SOFTNESS, desc="votes"):
        for n_votes in VOTES:
            routing = eraser.state_.partition.set_params(softness=softness, n_votes=n_votes)
            said = shared.predict_proba(eraser.gathered(), learner, routing, asked, context)
            row = {"softness": softness, "n_votes": n_votes, "accuracy": float((said.argmax(1) == asked.labels).mean())}
            by_votes.append(row)
            routing.set_params(softness=1.0, n_votes=None)
    given.out.mkdir(parents=True, exist_ok=True)
    name = f"{given.dataset.partition('/')[0]}-{given.backbone.rpartition('@')[2]}"
    for kind, rows, columns in (("l2", by_l2, "l2"), ("votes", by_votes, "n_votes")):
        table = pd.DataFrame(rows)
        table.to_csv(given.out / f"{kind}-{name}.csv", index=False)
        index = "n_samples" if kind == "l2" else "softness"
        print(table.pivot(index=index, columns=columns, values="accuracy").round(4))


if __name__ == "__main__":
    main()
