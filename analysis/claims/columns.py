"""The columns of a frame of verdicts, and of the files with verdicts."""

CLAIM_COLUMNS = ("id", "where", "claim", "metric", "method", "against", "better")
VERDICT_NUMBERS = (
    *("effect", "seeds_low", "seeds_high", "seeds_and_images_low", "seeds_and_images_high"),
    *("p_value", "corrected_p"),
)
VERDICT_COLUMNS = (
    *(*CLAIM_COLUMNS, "dataset", "architecture", *VERDICT_NUMBERS),
    *("n_method", "n_against", "comparison", "seeds_method", "seeds_against"),
    *("outcome", "reason", "missing", "settings", "seeds_for_power", "left_out", "pool"),
)
