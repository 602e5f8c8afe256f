from .check import Check as Check
from .check import NotExactError as NotExactError
from .check import check_eraser as check_eraser
