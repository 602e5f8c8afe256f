"""lmeraser_kit: exact unlearning by adaptive prompt tuning (LMEraser, arXiv 2404.11056).

Names are imported when they are first used: collecting runs or drawing figures must not wait for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
