"""Small but real: digits, a ViT trained for a few epochs on the public part, erasers that tune for an epoch or two."""

import pytest

from lmeraser_kit import Backbone, HierarchicalClusters, LMEraser, Recipe, RidgeEraser, load_dataset
from lmeraser_kit.learners import public_start

# Two workers take file by file, in this order: those that take minutes begin first.
LONG = ["test_press_forget_in_browser", "test_check_eraser", "test_lessons", "test_docs", "test_exactness"]
TINY = {"img_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session")
def split():
    return load_dataset("digits", seed=0)


@pytest.fixture(scope="session")
def backbone(split):
    return Backbone.train(split.public, epochs=4, seed=0, **TINY)


@pytest.fixture(scope="session")
def private(split):
    return split.private[:120]


@pytest.fixture
def make_eraser(backbone):
    def make(clusters=None, cls=LMEraser, **options):
        recipe = Recipe(**{"epochs": 2, "shift": 0.06, **options.pop("recipe", {})})
        tuned = {} if issubclass(cls, RidgeEraser) else {"recipe": recipe}
        return cls(backbone, clusters or HierarchicalClusters(5), **tuned, **{"seed": 3, "verbose": False, **options})

    return make


@pytest.fixture(scope="session")
def backbone_of(backbone, split):
    """The backbone for a method's name: with a start from public samples for those that want one."""
    kinds = {"head": "none", "prompt": "frame"}
    recipes = {what: Recipe(epochs=1, prompt=prompt) for what, prompt in kinds.items()}
    started = {what: public_start(backbone, split.public[:100], recipe) for what, recipe in recipes.items()}
    return lambda name: started["head" if "head" in name else "prompt"] if "from public" in name else backbone
