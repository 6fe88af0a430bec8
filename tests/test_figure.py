"""Figures without pyplot."""

import gc
import weakref

from IPython.core.formatters import DisplayFormatter

from eqxtrain._figure import new_figure


def test_a_figure_has_its_size_and_shows_itself_as_a_png() -> None:
    figure = new_figure("test", 3.0, 2.0)
    figure.add_subplot().plot([0, 1], [1, 0])
    assert tuple(figure.get_size_inches()) == (3.0, 2.0)
    png = figure._repr_png_()
    assert png.startswith(b"\x89PNG") and len(png) > 1000
    assert "image/png" in DisplayFormatter().format(figure)[0]


def test_nobody_keeps_a_figure() -> None:
    figure = new_figure("test", 3.0, 2.0)
    figure._repr_png_()
    gone = weakref.ref(figure)
    del figure
    gc.collect()
    assert gone() is None
