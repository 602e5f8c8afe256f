"""Step 2 of the page "press Forget": a guess, the request, its cost, what changed, and the fit without them."""

from __future__ import annotations

from typing import Any

from lmeraser_kit.experiments.extras import need

need("lab", __name__)

import ipywidgets as w

from lmeraser_kit.lab import pictures
from lmeraser_kit.lab.fields import whole_number
from lmeraser_kit.lab.models import GROUPS, INEXACT
from lmeraser_kit.lab.outcomes import Comparison, Outcome

MOST_SHOWN = 12
EQUAL, UNEQUAL = "equal", "not equal"


class ForgetPanel:
    """The request, and what came of it."""

    def __init__(self, page: Any):
        self.page = page
        self.request, self.result, self.tiles, self.compared = w.HTML(), w.HTML(), w.HTML(), w.HTML()
        self.guess = w.Text(
            placeholder="a number",
            style={"description_width": "initial"},
            layout={"width": "740px"},
        )
        self.press = page.button("Forget", self.forget, width="180px")
        self.press.button_style = "danger"
        self.none = page.button("Choose nobody", self.nobody)
        self.hashes = page.question("Will a fit without them, from nothing, have the same hash?", (EQUAL, UNEQUAL))
        self.fresh = page.button("Fit without them, and compare", self.compare)
        asked = w.HBox([self.guess, self.press, self.none], layout={"flex_flow": "row wrap"})
        title = w.HTML("<h2>Is it forgotten?</h2>")
        column = {"width": "610px", "align_items": "flex-start"}
        self.beside = w.VBox([title, self.hashes, self.fresh, self.compared], layout=column)
        both = w.HBox([w.VBox([self.result], layout=column), self.beside], layout={"flex_flow": "row wrap"})
        self.widget = w.VBox([self.request, asked, both, self.tiles])
        self.clear()

    def clear(self) -> None:
        """Nothing has been asked for yet."""
        self.result.value = self.tiles.value = self.compared.value = self.guess.value = ""
        self.hashes.value = None
        self.beside.layout.display = "none"

    def nobody(self) -> None:
        """Take everybody out of the request."""
        self.page.chosen = []
        self.page.update()
        self.page.say("Nobody is chosen.")

    def update(self) -> None:
        """Draw the request."""
        page, samples = self.page, self.page.split.private
        chosen = page.chosen
        how = "the method look at" if page.model.name in INEXACT else "pass through the model again"
        self.guess.description = f"How many images will {how}? Your guess:"
        if not chosen:
            self.request.value = "<p>Nobody is chosen. Choose an image, or a person, in 1 Look.</p>"
            return
        shown = [(samples.images[i], f"a {samples.labels[i]}", f"Image {i}, a {samples.labels[i]}") for i in chosen]
        more = f"<p>and {len(chosen) - MOST_SHOWN} more</p>" if len(chosen) > MOST_SHOWN else ""
        count = f"{len(chosen)} image" + "s" * (len(chosen) > 1)
        self.request.value = f"<h2>The request: {count} to forget</h2>{pictures.row(shown[:MOST_SHOWN], 56)}{more}"

    def forget(self) -> None:
        """Forget those who are chosen, and show what it took."""
        page, model = self.page, self.page.model
        uids = page.split.private.uids[page.chosen].tolist()
        model.check(uids)
        if not self.guess.value.strip():
            raise ValueError("you made no guess: write down first how many images it will be, such as 100")
        n = len(page.split.private) - len(model.gone)
        guess = whole_number("the guess", self.guess.value, 0, n, ": so many images does the model hold")
        self.clear()
        with page.working(f"Forgetting {len(uids)} with {page.method.label}", model.fit_seconds):
            outcome = model.forget(uids)
        self.guess.value = ""
        page.chosen = []
        page.attack.clear()
        self.result.value, self.tiles.value = self.told(outcome, guess), pictures.tiles(outcome.changed)
        self.beside.layout.display = "flex"
        page.update()
        page.say(f"Forgotten in {outcome.seconds:.2f} seconds. {page.held}")

    def told(self, outcome: Outcome, guess: int) -> str:
        """What a request took, beside the guess and beside a fit from nothing."""
        model, n = self.page.model, len(self.page.split.private)
        what = "images looked at" if model.name in INEXACT else "images passed through the model"
        rows = [
            (what, f"{outcome.passed}", f"{n}"),
            ("sample gradients", f"{outcome.sample_gradients}", f"{model.fit_gradients}"),
            ("seconds, to the next answer", f"{outcome.seconds:.3f}", f"{model.fit_seconds:.3f}"),
        ]
        body = "".join(
            f"<tr><th scope='row'>{name}</th><td class='n'>{mine}</td><td class='n'>{fit}</td></tr>"
            for name, mine, fit in rows
        )
        head = "<tr><th></th><th scope='col'>this request</th><th scope='col'>the fit on everybody</th></tr>"
        note = "Features are at hand in both columns."
        if model.name in INEXACT:
            note += " An approximate method changes the whole model, instead of fitting a part of it again."
        if outcome.seconds > model.fit_seconds:
            note += " <b>This request took longer than the fit on everybody</b>: it has saved no time."
        said = f"<p>You guessed <b>{guess}</b>; it is <b>{outcome.passed}</b>.</p>"
        count = f"{len(outcome.uids)} image" + "s" * (len(outcome.uids) > 1)
        where = self.where(outcome)
        return f"<h2>What it took to forget {count}</h2>{said}{where}<table>{head}{body}</table><p>{note}</p>"

    def where(self, outcome: Outcome) -> str:
        """In how many clusters or shards they were, which is what the request has cost; "" for a method without."""
        if not outcome.groups:
            return ""
        n, word = len(outcome.uids), GROUPS[self.page.model.name]
        who = f"These {n} images lie" if n > 1 else "The image lies"
        but = f", unless nobody is left in it ({outcome.emptied})" if outcome.emptied else ""
        again = "each of these is" if outcome.lie_in > 1 else "this one is"
        return f"<p>{who} in {outcome.lie_in} of {outcome.groups} {word}s, and {again} learned again{but}.</p>"

    def compare(self) -> None:
        """The fit without them, from nothing, beside the model."""
        page, model = self.page, self.page.model
        if self.hashes.value is None:
            raise ValueError(f"you made no guess: say first whether the hashes will be {EQUAL} or {UNEQUAL}")
        with page.working("Fitting without them, from nothing", model.fit_seconds):
            compared = model.compare()
        self.compared.value = self.beside_each_other(compared)
        page.say(f"The hashes are {EQUAL if compared.equal else UNEQUAL}.")

    def beside_each_other(self, compared: Comparison) -> str:
        """Both hashes, and how far the models are apart."""
        sign, is_equal = ("=", EQUAL) if compared.equal else ("≠", UNEQUAL)
        said = f"<p>You guessed <b>{self.hashes.value}</b>; they are <b>{is_equal}</b> ({sign}).</p>"
        hashes = f"<p>This model <code>{compared.hash_held[:24]}…</code><br>"
        hashes += f"Fresh fit <code>{compared.hash_fresh[:24]}…</code> ({compared.seconds:.2f} s)</p>"
        if compared.equal:
            return said + hashes + "<p>Every bit is the same: nothing of them is left in the model.</p>"
        far = f"<p>On the test images, probabilities differ by up to <b>{compared.apart:.4f}</b>, and "
        far += f"{compared.disagree:.1%} of the predicted classes. Had nothing been done, by up to "
        far += f"<b>{compared.apart_before:.4f}</b>.</p>"
        if compared.nearer:
            gain = f"nearer to the fresh fit than doing nothing, by {1 - compared.apart / compared.apart_before:.0%}"
        else:
            gain = "no nearer to the fresh fit than doing nothing"
        return f"{said}{hashes}{far}<p>So the model after the request is <b>{gain}</b>.</p>"
