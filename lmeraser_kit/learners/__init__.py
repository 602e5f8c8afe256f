"""What is learnt from one cluster: a prompt and a head, or the statistics of a closed form."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
