"""``python -m fmm_study`` is ``fmm-study``: the name that no file of a user shadows."""

from study.cli import main

main()
