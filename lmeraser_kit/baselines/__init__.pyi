from .approximate import APPROXIMATE as APPROXIMATE
from .approximate import unlearn as unlearn
from .leakage import LEAKS as LEAKS
from .methods import FRONTIER as FRONTIER
from .methods import METHODS as METHODS
from .methods import build_method as build_method
from .methods import linear_probe as linear_probe
