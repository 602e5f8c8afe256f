from .backbone import FEATURE_BATCH as FEATURE_BATCH
from .backbone import PRECISIONS as PRECISIONS
from .backbone import Backbone as Backbone
from .cached import CachedFeatures as CachedFeatures
from .named import backbone_for as backbone_for
from .named import untrained as untrained
from .pretraining import VITS as VITS
