"""Figures: each a data function (a table, exported beside the picture) and a drawing of nothing but that table.

A new figure is a function of the data (an Arrow table) and the specification that returns a Matplotlib ``Figure``, under
``@FIGURES.register(name, formula=caption, source=..., ...)``. Traits:

- ``title`` and ``place``: heading and place in the report (see ``analysis.report.page``).
- ``data``: a function of ``Inputs`` that gives the data's rows, or a whole table; ``columns`` are those of the rows.
- ``empty``: what stands in place of a picture where there are no data.
- ``always``: in the report also while there are no data (default: not).
"""
