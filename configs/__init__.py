"""Recipes (the YAML files here), their schema and their loader.

`load_recipe` reads a recipe for a launcher, `read_resolved` reads a run's config.yaml for a worker.
To see what a recipe comes to: `python -m configs finetune.yaml --set optimizer.lr=0.01`.
"""

from configs.loader import LoadedRecipe, change_resolved, dump_recipe, load_recipe, read_resolved
from configs.schema import Recipe
from configs.settings import RecipeError

__all__ = [
    "LoadedRecipe",
    "Recipe",
    "RecipeError",
    "change_resolved",
    "dump_recipe",
    "load_recipe",
    "read_resolved",
]
