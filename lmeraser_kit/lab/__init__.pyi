from .exercises import check as check
from .exercises import compare as compare
