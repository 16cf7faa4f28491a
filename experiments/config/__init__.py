"""Recipes, grids and run specs: the settings of runs."""
