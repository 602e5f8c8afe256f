"""Erasers: a partition, a learner and a vote; a request is a rebuild with a content-addressed cache."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
