"""Run folders, plans and the environment of a run."""
