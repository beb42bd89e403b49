"""Figures: each a data function (a table, exported beside the picture) and a drawing of nothing but that table.

A new figure is one file here: ``@FIGURES.register(name, formula=caption, source=..., title=..., place=number,
data=function)`` over a function of the data and the specification that returns a matplotlib ``Figure``. ``place`` is
its chapter in the report and its order there (see ``analysis.report.page``).
"""
