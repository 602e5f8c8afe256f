from .prompt_tuning import ClusterModel as ClusterModel
from .prompt_tuning import cluster_addresses as cluster_addresses
from .prompt_tuning import tune_cluster as tune_cluster
from .prompts import prompt_canvas as prompt_canvas
from .prompts import prompt_mask as prompt_mask
from .recipe import RECIPES as RECIPES
from .recipe import Recipe as Recipe
from .recipe import named_recipe as named_recipe
