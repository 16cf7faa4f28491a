"""The paper's numbers and the layout of its tables."""
