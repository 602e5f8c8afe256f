from .copies import altered as altered
from .datasets import Split as Split
from .datasets import load_dataset as load_dataset
from .image_files import read_images as read_images
from .owners import invented_owners as invented_owners
from .readers import read_source as read_source
from .readers import source_names as source_names
