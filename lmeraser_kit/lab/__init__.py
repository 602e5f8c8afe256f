"""What a class uses: checks of the lessons' exercises, guesses before answers, and the handout."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
