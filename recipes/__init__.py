"""What the four programs share: the recipe (recipe.py) and the artifacts between stages (artifacts.py)."""
