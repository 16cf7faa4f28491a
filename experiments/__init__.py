"""What is run: recipes, grids, tracking, launching."""
