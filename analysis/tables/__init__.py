"""The tables of a study. A new one is a function of ``Inputs`` under ``@TABLES.register`` in a file of this package.

Traits: ``columns``, the main columns shown in markdown and latex (default: all); ``formats``, what ``build_tables``
writes (default: all; a long table may leave the ones for reading out); ``title`` and ``place``, under which and where the
report shows it whole (default: not; the whole part of ``place`` is the chapter, see ``analysis.report.page``);
``optional``, for
one that the report leaves out while it is empty; ``shown``, a function of inputs and table that gives the rows which the
report shows (default: all).
"""
