from .determinism import environment as environment
from .determinism import exact_arithmetic as exact_arithmetic
from .determinism import pick_device as pick_device
from .determinism import progress as progress
from .hashing import digest as digest
from .hashing import keyed_uniform as keyed_uniform
from .samples import Samples as Samples
from .samples import concatenate as concatenate
