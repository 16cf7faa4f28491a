"""Tables and their text, Markdown, LaTeX and CSV forms."""
