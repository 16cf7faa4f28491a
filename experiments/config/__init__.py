"""Recipes, grids and run specs: what is to be run."""
