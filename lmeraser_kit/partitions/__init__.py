"""Who is learnt together. Every partition has one interface: `check`, `fit`, `assign`, `votes`, `pieces`.

What a partition learns from decides whether forgetting is exact, and what it moves (the *routing ladder*):

    prototypes of private features, kept    inexact: a prototype remembers who has left (the published code)
    prototypes of private features, refit   exact; a request moves other samples, whose clusters are tuned again too
    prototypes of public features           exact; nothing private in the routing (the default)
    random hyperplanes from a public seed   exact; nothing is fitted, and clusters are less coherent
    a hash of the uid                       exact; blind to what images show: SISA's shards (Bourtoule et al. 2021)

A partition's attribute `learns_from` is `public`, `private` or None; `uses_features` says whether it looks at features,
`refits` whether every request fits it again, `exact` whether forgetting is exact.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
