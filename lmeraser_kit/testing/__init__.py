"""Is an eraser exact? `check_eraser` tries it, whatever its learner, partition and vote."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
