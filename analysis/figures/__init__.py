"""The paper's figures, and those that its claims need, redrawn from what runs left: one file a figure."""
