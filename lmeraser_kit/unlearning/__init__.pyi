from .eraser import LMEraser as LMEraser
from .ridge_eraser import RidgeEraser as RidgeEraser
from .state import ExactnessError as ExactnessError
from .state import Receipt as Receipt
from .state import State as State
