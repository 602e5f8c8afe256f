"""The page "press Forget": look at private images, forget some, attack what is left. In Voila or JupyterLab.

from lmeraser_kit.lab.page import open_page
open_page()
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from lmeraser_kit.experiments.extras import need

need("lab", __name__)

import ipywidgets as w
import numpy as np

from lmeraser_kit import checks
from lmeraser_kit.backbones.backbone import Backbone
from lmeraser_kit.data import Split
from lmeraser_kit.data.inputs import DATA
from lmeraser_kit.ground.hashing import keyed_uniform
from lmeraser_kit.lab import pictures
from lmeraser_kit.lab.attack_panel import LEAST, AttackPanel
from lmeraser_kit.lab.fields import whole_number
from lmeraser_kit.lab.forget_panel import ForgetPanel
from lmeraser_kit.lab.look_panel import LookPanel
from lmeraser_kit.lab.models import EXACT, INEXACT, Model, new_model
from lmeraser_kit.lab.references import BACKBONE_EPOCHS, N_MODELS, References, split_and_backbone
from lmeraser_kit.lab.words import details

N_PEOPLE = 60
MOST_SEEDS = 9999


class Page:
    """One window's page. Nothing is shared with another's: each has a kernel, and models, of its own.

    Args:
        split: Public, private and test images.
        backbone: The frozen backbone, its features kept.
        references: Reference models, for the attack.
        seed: Keys the draws of tuning; from 0 to MOST_SEEDS.

    Attributes:
        model: The fitted model of the method that is chosen.
        chosen: Positions in the private part of those who are to be forgotten next.
        looked: Position of the image that is looked at.
        people: The number of the person whom each private image is given to, (N,); digits come without names.
        widget: What is displayed.
    """

    def __init__(self, split: Split, backbone: Backbone, references: References, seed: int = 0):
        self.split, self.backbone, self.references = split, backbone, references
        self.seed = checks.whole("seed", seed, 0, MOST_SEEDS)
        self.people = (keyed_uniform("people", 0, split.private.keys)[:, 0] * N_PEOPLE).astype(int)
        self.models: dict[str, Model] = {}
        self.chosen: list[int] = []
        self.looked, self.busy = 0, False
        self.status, self.beat = w.HTML(), w.HTML(layout={"visibility": "hidden", "height": "0", "margin": "0"})
        self.status.add_class("lmk-status"), self.beat.add_class("lmk-beat")
        options = [
            (f"{title} ({how})", name)
            for names, how in ((EXACT, "exact"), (INEXACT, "approximate"))
            for name, title in names.items()
        ]
        self.method = w.Dropdown(options=options, description="Method", layout={"width": "400px"})
        self.seeds = w.Text(str(self.seed), description="Seed", layout={"width": "160px"})
        self.again = self.button("Fit with this seed", self.fit_again)
        self.undo = self.button("Undo", self.take_back)
        self.reset = self.button("Reset", self.start_again)
        self.bar = w.FloatProgress(min=0, max=1, layout={"width": "200px", "visibility": "hidden"})
        self.bar.tooltip = "progress"
        self.steps = {name: self.button(name, self.step(name)) for name in ("1 Look", "2 Forget", "3 Attack")}
        for button in self.steps.values():
            button.add_class("lmk-step")
        with self.working("Fitting the first model"):
            self.model = self.model_of(self.method.value)
        self.look, self.forget, self.attack = LookPanel(self), ForgetPanel(self), AttackPanel(self)
        self.panels: dict[str, LookPanel | ForgetPanel | AttackPanel] = dict(
            zip(self.steps, (self.look, self.forget, self.attack), strict=True)
        )
        self.method.observe(self.guarded(self.change_method), "value")
        top = w.HBox([self.method, self.seeds, self.again, self.undo, self.reset])
        steps = w.HBox([*self.steps.values(), self.bar])
        for box in (top, steps):
            box.layout.flex_flow = "row wrap"
        parts = [w.HTML(pictures.thumbnails(split.private)), top, steps, self.status]
        self.widget = w.VBox([*parts, *(panel.widget for panel in self.panels.values()), w.HTML(details()), self.beat])
        self.widget.add_class("lmk")
        self.open("1 Look")
        self.say(f"{self.held} Click an image to look at it, choose some, and go on to Forget.")

    @property
    def held(self) -> str:
        """How many images the model holds, as a sentence."""
        gone, n = len(self.model.gone), len(self.split.private)
        return f"This model holds {n - gone} of {n} private images" + (
            f"; {gone} {'is' if gone == 1 else 'are'} forgotten." if gone else "."
        )

    def button(self, text: str, action: Callable[[], None], **layout: str) -> w.Button:
        """A button that does something when it is pressed, and never breaks the page."""
        made = w.Button(description=text, tooltip=text, layout={"width": "auto", **layout})
        made.on_click(self.guarded(action))
        return made

    def question(self, text: str, answers: tuple[str, ...]) -> w.RadioButtons:
        """A question whose answer is asked for before something is shown."""
        style, layout = {"description_width": "initial"}, {"width": "max-content"}
        return w.RadioButtons(options=answers, value=None, description=text, style=style, layout=layout)

    def guarded(self, action: Callable[[], None]) -> Callable:
        """The action; if it raises, the page says why and stays as it was."""

        def act(_: object = None) -> None:
            try:
                action()
            except Exception as error:
                self.say(str(error) or type(error).__name__, wrong=True)

        return act

    def say(self, text: str, wrong: bool = False) -> None:
        """Write a sentence into the status line, which a screen reader reads out."""
        text = text[:1].upper() + text[1:]
        self.status.value = f'<div class="{"lmk-wrong" if wrong else "lmk-said"}">{escape(text)}</div>'

    @contextmanager
    def working(self, what: str, expected: float = 2.0) -> Iterator[None]:
        """A progress bar by the clock, while something is computed that takes about so many seconds."""
        started, done = time.perf_counter(), threading.Event()
        self.say(f"{what} ...")
        self.bar.value, self.bar.layout.visibility = 0, "visible"

        def tick() -> None:
            while not done.wait(0.2):
                self.bar.value = min((time.perf_counter() - started) / max(expected, 0.2), 0.97)

        clock = threading.Thread(target=tick, daemon=True)
        clock.start()
        try:
            yield
        finally:
            done.set()
            clock.join()
            self.bar.value, self.bar.layout.visibility = 1, "hidden"

    def model_of(self, name: str) -> Model:
        """The model of a method, fitted when it is asked for first."""
        if name not in self.models:
            self.models[name] = new_model(name, self.split, self.backbone, self.seed)
        return self.models[name]

    def step(self, name: str) -> Callable[[], None]:
        """Opens a step; what was said on another is taken back."""

        def go() -> None:
            self.open(name)
            self.say(self.held)

        return go

    def open(self, step: str) -> None:
        """Show one of the three steps."""
        self.opened = step
        for name, panel in self.panels.items():
            panel.widget.layout.display = "flex" if name == step else "none"
            (self.steps[name].add_class if name == step else self.steps[name].remove_class)("lmk-now")
            self.steps[name].button_style = "primary" if name == step else ""
        self.panels[step].update()

    def update(self) -> None:
        """Draw what is shown again."""
        self.chosen = [i for i in self.chosen if self.split.private.uids[i] not in set(self.model.gone)]
        self.panels[self.opened].update()

    def change_method(self) -> None:
        """Another method's model, of the same images: the request stays, but for those whom it has forgotten."""
        with self.working(f"Fitting {self.method.label}"):
            self.model = self.model_of(self.method.value)
        before = len(self.chosen)
        self.renew()
        gone = f", without {before - len(self.chosen)} that it has forgotten" * (before > len(self.chosen))
        kept = f" Your request stays: {len(self.chosen)} chosen to be forgotten{gone}." if before else ""
        self.say(f"{self.held}{kept}")

    def fit_again(self) -> None:
        """All methods are fitted with the seed that is written there, each when it is chosen; nobody is chosen."""
        self.seed, self.models = whole_number("the seed", self.seeds.value, 0, MOST_SEEDS), {}
        with self.working(f"Fitting {self.method.label} with seed {self.seed}"):
            self.model = self.model_of(self.method.value)
        self.chosen = []
        self.renew()
        self.say(f"Fitted with seed {self.seed}: requests start again, and nobody is chosen. {self.held}")

    def take_back(self) -> None:
        """Undo the last request of this method."""
        with self.working("Undoing the last request", self.model.fit_seconds):
            outcome = self.model.undo()
        self.renew()
        self.say(f"The last request is undone: {self.model.undone(outcome)}. {self.held}")

    def start_again(self) -> None:
        """Everybody is held again."""
        with self.working("Fitting on everybody", self.model.fit_seconds):
            self.model.fit()
        self.chosen, self.seeds.value = [], str(self.seed)  # the one that is in force
        self.renew()
        self.say(f"Reset: fitted on everybody with seed {self.seed}, and nobody is chosen. {self.held}")

    def renew(self) -> None:
        """After the model has changed: forget what was shown of it."""
        self.forget.clear()
        self.attack.clear()
        self.update()

    def choose(self, positions: list[int]) -> None:
        """Add images to the request, or take them out if all are in it."""
        gone = set(self.model.gone)
        positions = [i for i in positions if self.split.private.uids[i] not in gone]
        if not positions:
            raise ValueError("this model has forgotten them already")
        inside = set(positions) <= set(self.chosen)
        self.chosen = [i for i in self.chosen if i not in positions] + ([] if inside else positions)
        self.update()
        self.say(f"{len(self.chosen)} chosen to be forgotten." if self.chosen else "Nobody is chosen.")

    def of_person(self, i: int) -> list[int]:
        """Positions of all images that are held of the person of image i."""
        held = ~np.isin(self.split.private.uids, self.model.gone)
        return np.flatnonzero((self.people == self.people[i]) & held).tolist()

    def watched(self) -> Script:
        """What tells the window every other second that the kernel is there; to be displayed."""

        def beat() -> None:
            for number in range(10**9):
                self.beat.value = str(number)
                time.sleep(2)

        threading.Thread(target=beat, daemon=True).start()
        return Script()


class Script:
    """The page's script, as Jupyter displays it."""

    def _repr_html_(self) -> str:
        return f"<script>{pictures.SCRIPT}</script>"


def open_page(
    seed: int = 0, backbone_epochs: int = BACKBONE_EPOCHS, n_models: int = N_MODELS, root: Path | str = DATA
) -> Page:
    """A page, to be displayed (`widget`, then `watched()`).

    Args:
        seed: Keys the draws of tuning.
        backbone_epochs: Passes over the public images, for the backbone.
        n_models: Reference models of each method.
        root: Where data lie.

    Raises:
        ValueError: If a number is out of its range; nothing has been trained then.
    """
    seed, backbone_epochs = (
        checks.whole("seed", seed, 0, MOST_SEEDS),
        checks.whole("backbone_epochs", backbone_epochs, 0),
    )
    n_models = checks.whole("n_models", n_models, LEAST)
    split, backbone = split_and_backbone(backbone_epochs, root)
    return Page(split, backbone, References(split, backbone, n_models, root), seed)
