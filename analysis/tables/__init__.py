"""The tables of a study. A new one is a function of ``Inputs`` under ``@TABLES.register`` in a file of this package.

The function returns rows (mappings of column to value; ``study`` is added) or a whole Arrow table. Traits:

- ``columns``: every column, in the order of parquet and csv (``analysis.words.columns``); ``row`` says what a row is.
- ``main``: names of the columns shown in Markdown, LaTeX and the report, in their order (default: all).
- ``formats``: what ``build_tables`` writes (default: all).
- ``title`` and ``place``: heading and place in the report (default: not in the report; see ``analysis.report.page``).
- ``always``: in the report also while it is empty (default: not).
- ``shown``: a function of inputs and table that gives the rows which the report shows (default: all).
"""
