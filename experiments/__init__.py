"""Recipes, grids, launching, tracking, tuning and benchmarks of runs."""

from cskd.utils.cli import expect_ctrl_c

expect_ctrl_c()
