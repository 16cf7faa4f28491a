"""Figures that were drawn before are not drawn again."""

import numpy as np
from matplotlib.figure import Figure

from analysis.tables import files
from analysis.tables.files import Drawing, save_drawing

drawn = []


def line(points: np.ndarray) -> Figure:
    drawn.append(points)
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot(points)
    return figure


def test_figure_is_drawn_again_only_if_arrays_files_or_code_changed(tmp_path, monkeypatch):
    png, record = tmp_path / "line.png", tmp_path / ".drawings" / "line.json"

    def draws(points, text="a text") -> bool:
        before = len(drawn)
        returned = save_drawing(Drawing(line, np.array(points)), [png], record, lambda figure: text)
        assert (returned, png.is_file()) == ("a text", True)
        return len(drawn) > before

    assert draws([1, 2])
    first = png.read_bytes()
    assert not draws([1, 2], text="another text")
    assert draws([1, 3]) and png.read_bytes() != first
    assert draws([1, 2]) and png.read_bytes() == first
    png.unlink()
    assert draws([1, 2])
    record.write_text("{")
    assert draws([1, 2])
    monkeypatch.setattr(files, "_code", lambda: "other code")
    assert draws([1, 2]) and not draws([1, 2])
