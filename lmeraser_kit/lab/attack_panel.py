"""Step 3 of the page "press Forget": the membership score of one image, in one model and in reference models."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from lmeraser_kit.experiments.extras import need

need("lab", __name__)

import ipywidgets as w
import matplotlib.pyplot as plt
import numpy as np

from lmeraser_kit.evaluation.attacks import lira_online
from lmeraser_kit.figures import as_html
from lmeraser_kit.lab import pictures
from lmeraser_kit.lab.attacked import attacked_scores
from lmeraser_kit.lab.fields import LIMIT, limited
from lmeraser_kit.lab.outcomes import FAR, separation

FEW = 16  # models of a kind, below which the page says so
LEAST = 8  # reference models, for half of them to have a spread
GUESSES = ("among models trained with it", "among models without it", "one cannot tell")


class AttackPanel:
    """Was this image in the training set? Before the request, and after."""

    def __init__(self, page: Any):
        self.page = page
        self.making: subprocess.Popen | None = None
        self.who = w.Dropdown(description="Image", layout={"width": "420px"})
        self.guess = page.question("Where will its score lie after it has been forgotten?", GUESSES)
        self.show = page.button("Attack", self.attack, width="180px")
        self.show.button_style = "primary"
        self.make = page.button("Make the others (minutes, in the background)", self.start_making)
        self.ready, self.verdict, self.result = w.HTML(), w.HTML(), w.HTML()
        left = w.VBox([self.ready, self.who, self.guess, self.show, self.make])
        left.layout = w.Layout(width="560px", align_items="flex-start")
        self.widget = w.HBox(
            [left, w.VBox([self.verdict, self.result], layout={"width": "660px"})], layout={"flex_flow": "row wrap"}
        )
        self.who.observe(page.guarded(self.clear), "value")

    def clear(self) -> None:
        """No scores are shown."""
        self.result.value = self.verdict.value = ""
        self.guess.value = None

    def start_making(self) -> None:
        """Make the reference models in another process, which goes on when the page is closed."""
        if self.making is None or self.making.poll() is not None:
            command = [sys.executable, "-m", "lmeraser_kit.lab.references"]
            self.making = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.page.say("Reference models are being made: go on, and come back.")

    def update(self) -> None:
        """Draw the choice of images, those forgotten last first, and how many reference models there are."""
        page, samples = self.page, self.page.split.private
        positions = [int(i) for i in samples.positions(page.model.gone)[::-1]]
        positions += [i for i in (*page.chosen, page.looked) if i not in positions]
        gone = set(page.model.gone)
        options = [
            (f"Image {i}, a {samples.labels[i]} ({'forgotten' if samples.uids[i] in gone else 'held'})", i)
            for i in dict.fromkeys(positions)
        ]
        if tuple(self.who.options) != tuple(options):
            value = self.who.value
            self.who.options = options
            self.who.value = value if value in positions else positions[0]
        references = page.references
        n = references.n_ready(page.model.name)
        making = n < references.n_models and references.being_made()
        self.make.layout.display = "none" if n == references.n_models or making else ""
        count = f"<b>{n} of {references.n_models}</b> reference models of this method are ready, each of a random half"
        what = "Attacked is a model of half of them, too, with this image in it, before and after the same request."
        what += " More are being made." * making
        self.ready.value = f"<h2>Was this image in the training set?</h2><p>{count} of the private images. {what}</p>"

    def attack(self) -> None:
        """Show the scores."""
        page, model, i = self.page, self.page.model, self.who.value
        self.update()
        if self.guess.value is None:
            raise ValueError("you made no guess: say first where its score will lie")
        scores, inside = page.references.available(model.name)
        if len(scores) < LEAST:
            raise ValueError(f"{len(scores)} reference models are ready, expected {LEAST} at least: wait, or make them")
        scores, inside, uid = scores[:, [i]], inside[:, [i]], str(page.split.private.uids[i])
        request = next((outcome.uids for outcome in reversed(model.outcomes) if uid in outcome.uids), ())
        with page.working("Attacking a model of half of the images", model.fit_seconds):
            marks = attacked_scores(model.name, page.split, page.backbone, page.seed, uid, request)
        figure = pictures.distribution(scores[inside], scores[~inside], marks)
        said = f"<p>You guessed: <b>{self.guess.value}</b>.</p>"
        if not request:
            said += "<p>It is held: forget it, and attack again.</p>"
        self.verdict.value = said + self.told(marks, scores, inside)
        self.result.value = as_html(figure)
        plt.close(figure)
        page.say("; ".join(f"{name}: score {value:.1f}" for name, value in marks.items()) + ".")

    def told(self, marks: dict[str, float], scores: np.ndarray, inside: np.ndarray) -> str:
        """What LiRA says of each score, where reference models with the image, (n, 1), differ from those without it."""
        apart = separation(scores, inside)[0]
        n_with, n_without = int(inside.sum()), int((~inside).sum())
        far = f"{n_with} models with it and {n_without} without it are {limited(apart, 1)} standard deviations apart"
        if min(n_with, n_without) < FEW:
            far = f"So few models hardly show a spread; wait for more. {far}"
        if apart < FAR:
            rows = "".join(
                f"<tr><th scope='row'>{name}</th><td class='n'>{value:.2f}</td></tr>" for name, value in marks.items()
            )
            cannot = f"with less than {FAR:.0f} they look too much alike: <b>the attack cannot tell</b>"
            return f"<table><tr><th></th><th scope='col'>score</th></tr>{rows}</table><p>{far}; {cannot}.</p>"
        ratios = {name: lira_online(np.array([value]), scores, inside)[0] for name, value in marks.items()}
        rows = "".join(
            f"<tr><th scope='row'>{name}</th><td class='n'>{marks[name]:.2f}</td>"
            f"<td class='n'>{limited(value, 2, signed=True)}</td>"
            f"<td>{'it was in' if value > 0 else 'it was not in'}</td></tr>"
            for name, value in ratios.items()
        )
        head = "".join(f"<th scope='col'>{name}</th>" for name in ("", "score", "log ratio", "LiRA says"))
        note = f"{far}. LiRA fits a normal curve to each. A log ratio of r says: by these curves the score is "
        note += "e<sup>r</sup> times as likely with the image in training as without it. Near 0 it says little."
        if max(map(abs, ratios.values())) > LIMIT:
            note += f" Beyond {LIMIT:.0f}, more than 480 million to 1, so few models cannot measure how much."
        return f"<table><tr>{head}</tr>{rows}</table><p>{note}</p>"
