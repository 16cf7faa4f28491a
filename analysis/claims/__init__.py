"""The claims and the verdicts on them."""
