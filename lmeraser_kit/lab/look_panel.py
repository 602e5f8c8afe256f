"""Step 1 of the page "press Forget": private images by cluster, prototypes, prompts, and one image looked at."""

from __future__ import annotations

from html import escape
from typing import Any

from lmeraser_kit.experiments.extras import need

need("lab", __name__)

import ipywidgets as w
import numpy as np
import torch

from lmeraser_kit.ground.samples import Samples
from lmeraser_kit.lab import pictures
from lmeraser_kit.lab.models import GROUPS
from lmeraser_kit.lab.outcomes import FAR, separation
from lmeraser_kit.learners.prompts import prompt_canvas
from lmeraser_kit.learners.recipe import Recipe

A_PAGE = 24
ALL, LEAST_SURE, MOST_EXPOSED = -1, -2, -3
ORDERED = {LEAST_SURE: "All, the least sure first", MOST_EXPOSED: "All, the most exposed first"}


class LookPanel:
    """Private images, 24 at a time, and what the model makes of one of them."""

    def __init__(self, page: Any):
        self.page, self.first, self.shown, self.drawing = page, 0, np.zeros(0, int), False
        self.groups = w.Dropdown(description="Show", layout={"width": "400px"})
        self.images = [page.button("", self.look_at(i)) for i in range(A_PAGE)]
        for button in self.images:
            button.add_class("lmk-image")
        back, on = page.button("Earlier images", self.turn(-A_PAGE)), page.button("More images", self.turn(A_PAGE))
        self.where, self.about, self.details = w.HTML(), w.HTML(), w.HTML()
        self.choose = page.button("Choose this image", lambda: page.choose([page.looked]))
        self.person = page.button("Choose the person", lambda: page.choose(page.of_person(page.looked)))
        grid = w.HBox(self.images, layout={"flex_flow": "row wrap", "width": "600px"})
        turning = w.HBox([back, on, self.where])
        left = w.VBox([self.groups, grid, turning, self.about], layout={"width": "610px"})
        right = w.VBox([self.details, w.HBox([self.choose, self.person])], layout={"width": "600px"})
        self.widget = w.HBox([left, right], layout={"flex_flow": "row wrap"})
        self.groups.observe(page.guarded(self.change_group), "value")

    def look_at(self, number: int):
        """Looks at one of the images shown."""

        def look() -> None:
            self.page.looked = int(self.shown[number])
            self.update()

        return look

    def turn(self, by: int):
        """Turns to other images of the group."""

        def turned() -> None:
            self.first = min(max(self.first + by, 0), max((len(self.members()) - 1) // A_PAGE * A_PAGE, 0))
            self.update()

        return turned

    def change_group(self) -> None:
        """Another cluster, from its first image."""
        if not self.drawing:
            self.first = 0
            self.update()

    def assigned(self) -> np.ndarray:
        """The cluster or shard of each private image, (N,) int; ALL for the forgotten, and where there are none."""
        where = self.page.model.groups()
        return np.array([where.get(uid, ALL) for uid in self.page.split.private.uids.tolist()])

    def members(self) -> np.ndarray:
        """Positions of the images of the group chosen."""
        assigned, group, samples = self.assigned(), self.groups.value, self.page.split.private
        if group == LEAST_SURE:
            sure = self.page.model.predict_proba(samples)[np.arange(len(samples)), samples.labels]
            return np.argsort(sure, kind="stable")
        if group == MOST_EXPOSED:
            return np.argsort(-self.exposed(), kind="stable")
        return np.arange(len(assigned)) if group in (None, ALL) else np.flatnonzero(assigned == group)

    def exposed(self) -> np.ndarray:
        """How far reference models with each private image are from those without it, (N,)."""
        return separation(*self.page.references.available(self.page.model.name))

    def update(self) -> None:
        """Draw again."""
        page, assigned, word = self.page, self.assigned(), GROUPS.get(self.page.model.name, "").capitalize()
        numbers = np.unique(assigned[assigned != ALL]).tolist()
        options = [(f"All {len(assigned)} private images", ALL)]
        ready = page.references.n_ready(page.model.name) == page.references.n_models  # with few, chance would order
        options += [(text, order) for order, text in ORDERED.items() if order != MOST_EXPOSED or ready]
        options += [(f"{word} {k} ({int((assigned == k).sum())} images)", k) for k in numbers]
        if tuple(self.groups.options) != tuple(options):
            value = self.groups.value
            self.drawing = True
            self.groups.options = options
            self.groups.value = value if value in [order for _, order in options] else ALL
            self.drawing = False
        members = self.members()
        self.first = min(self.first, max(len(members) - 1, 0) // A_PAGE * A_PAGE)
        self.shown = members[self.first : self.first + A_PAGE]
        gone, samples = set(page.model.gone), page.split.private
        for button, i in zip(self.images, [*self.shown, *[None] * (A_PAGE - len(self.shown))], strict=True):
            button.layout.visibility = "visible" if i is not None else "hidden"
            if i is None:
                continue
            states = {
                "lmk-chosen": i in page.chosen,
                "lmk-gone": samples.uids[i] in gone,
                "lmk-looked": i == page.looked,
            }
            button._dom_classes = ("lmk-image", f"lmk-{i}", *(name for name, has in states.items() if has))  # noqa: SLF001
            said = "".join(f", {name[4:]}" for name, has in states.items() if has).replace("gone", "forgotten")
            button.description = button.tooltip = f"Image {i}, a {samples.labels[i]}{said}"
        self.where.value = f"Images {self.first + 1} to {self.first + len(self.shown)} of {len(members)}"
        self.about.value = self.group_about(self.groups.value)
        self.details.value = self.image_about(page.looked, assigned, word)
        mine = page.of_person(page.looked)
        whole = bool(mine) and set(mine) <= set(page.chosen)
        self.choose.description = "Take it out of the request" if page.looked in page.chosen else "Choose this image"
        person = f"person {page.people[page.looked]} ({len(mine)} images)"
        self.person.description = f"Take {person} out" if whole else f"Choose {person}"
        for button in (self.choose, self.person):
            button.tooltip = button.description

    def image_about(self, i: int, assigned: np.ndarray, word: str) -> str:
        """One image: its class, cluster, person, prediction, and its nearest neighbours."""
        page, samples = self.page, self.page.split.private
        image, model = samples[i], page.model
        probabilities = model.predict_proba(image)[0]
        best = np.argsort(-probabilities)[:3]
        features = page.backbone.features(samples.images)
        nearest_first = np.argsort(np.linalg.norm(features - features[i], axis=1), kind="stable")
        near = [int(j) for j in nearest_first if j != i][:6]
        gone = image.uids[0] in set(model.gone)
        group = "" if assigned[i] == ALL else f", in {word.lower()} {assigned[i]}"
        state = "forgotten by this model" if gone else f"held by this model{group}"
        guess = ", ".join(f"<b>{k}</b> ({probabilities[k]:.1%})" for k in best)
        large = pictures.row([(image.images[0], "", f"Image {i}, a {image.labels[0]}")], 120)
        others = pictures.row(
            (samples.images[j], f"a {samples.labels[j]}", f"Neighbour: image {j}, a {samples.labels[j]}") for j in near
        )
        text = f"<p>Person {page.people[i]} (invented: digits come without names), {escape(state)}.</p>"
        text += f"<p>The model says: {guess}.</p><p>Nearest private images, by features:</p>"
        return f"<h2>Image {i}: a {image.labels[0]}</h2>{large}{text}{others}"

    def group_about(self, k: int | None) -> str:
        """A cluster: where its prototype is, and its prompt."""
        model = self.page.model
        if k == MOST_EXPOSED:
            n = int((self.exposed() >= FAR).sum())
            first = "First are the images whose scores in reference models with and without them are furthest apart."
            return f"<p>{first} Of {n} images they are so far apart that the attack, step 3, can tell.</p>"
        if k in (None, ALL, LEAST_SURE) or model.name not in GROUPS:
            if model.name == "lmeraser":
                return "<p>Choose a cluster to see its prototype and its prompt.</p>"
            return (
                "<p>No clusters: this method learns one model from everybody.</p>" if model.name not in GROUPS else ""
            )
        shown = []
        if model.name == "lmeraser":
            shown = [
                (image, f"{n}.", f"Public image nearest to the prototype, number {n}")
                for n, image in enumerate(self.nearest_public(k).images, 1)
            ]
        backbone, seed = self.page.backbone, self.page.seed
        mask = Recipe().mask(backbone.size, seed)
        canvas = prompt_canvas(torch.tensor(model.eraser.state_.models[k].arrays["prompt"]), mask).numpy()
        prompt = (pictures.prompt_pixels(canvas), "prompt", "The cluster's prompt: a frame of pixels around the image")
        words = "<p>The public images nearest to its prototype, and its prompt:</p>" if shown else "<p>Its prompt:</p>"
        return words + pictures.row([*shown, prompt])

    def nearest_public(self, k: int, n: int = 5) -> Samples:
        """The public images whose features are nearest to a cluster's prototype."""
        page, routing = self.page, self.page.model.eraser.state_.partition
        features = page.backbone.features(page.split.public.images).astype(np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        prototype = getattr(routing, "prototypes_")[k]  # noqa: B009 - of hierarchical clusters alone
        prototype = prototype / np.linalg.norm(prototype)
        return page.split.public[np.argsort(-(features @ prototype), kind="stable")[:n]]
