"""The table of methods, approximate peers, reference models, and leaks that tests must catch."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
