"""Every registered table is compiled where there is a LaTeX."""

import shutil
import subprocess

import pyarrow as pa
import pytest
from book import planted, synthetic_spec

from analysis.inputs import Inputs
from analysis.tables.build import build_tables
from analysis.words.export import Column, render

COMPILERS = [name for name in ("pdflatex", "tectonic") if shutil.which(name)]


HOSTILE = r"50% of $x_1$ & #2 ~ ^{a} \textbf{b} <c> | é ±"


PREAMBLE = r"""\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[paperwidth=300cm,paperheight=300cm,margin=1cm]{geometry}
\usepackage{booktabs}
\begin{document}
"""


def inputs():
    claims = synthetic_spec().model_dump()["claims"]
    for claim in claims.values():
        claim["text"] = HOSTILE
    return Inputs(
        spec=synthetic_spec(title=HOSTILE, claims=claims), contents=planted().contents, chance={"digits": 0.1}
    )


@pytest.mark.skipif(not COMPILERS, reason="no LaTeX is installed (pdflatex or tectonic)")
def test_every_table_compiles(tmp_path):
    build_tables(inputs(), tmp_path, formats=["tex"])
    (tmp_path / "hostile.tex").write_bytes(
        render(pa.table({"a": [HOSTILE], "b": [True]}), "tex", [Column(heading=HOSTILE, name="a", bold="b")])
    )
    parts = "\n\n".join(f"\\input{{{path.name}}}" for path in sorted(tmp_path.glob("*.tex")))
    (tmp_path / "all.tex").write_text(f"{PREAMBLE}{parts}\n\\end{{document}}\n")
    options = ["-halt-on-error", "-interaction=nonstopmode"] if COMPILERS[0] == "pdflatex" else []
    done = subprocess.run(
        [COMPILERS[0], *options, "all.tex"], cwd=tmp_path, capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
