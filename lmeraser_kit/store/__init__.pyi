from .certificate import Certificate as Certificate
from .certificate import Verification as Verification
from .files import DamagedError as DamagedError
from .files import StoreError as StoreError
from .store import Store as Store
from .tombstones import Tombstones as Tombstones
from .waiting import Plan as Plan
