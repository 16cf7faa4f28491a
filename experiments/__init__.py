"""What is run: recipes, grids, tracking, launching."""

from cskd.utils.cli import expect_ctrl_c

expect_ctrl_c()
