from .datasets import Split as Split
from .datasets import load_dataset as load_dataset
from .readers import read_source as read_source
from .readers import source_names as source_names
