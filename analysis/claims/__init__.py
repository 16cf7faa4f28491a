"""The paper's claims and the verdicts on them."""
