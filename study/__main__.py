"""``python -m study`` is ``fmm-study``."""

from study.cli import main

main()
