"""Two studies side by side: intervals against scipy's tests, what is the same, what changed, what is refused."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from book import JACOBIAN, full, planted, synthetic_spec
from rich.console import Console
from scipy import stats

from analysis.claims.rejudged import earlier_verdicts, keep_earlier
from analysis.comparison import Side, TwoStudies, compare_studies
from analysis.inputs import Inputs
from analysis.tables.build import build_table
from study.commands.show import anywhere
from study.errors import UserError
from study.printing.comparison import check_format, print_comparison
from study.results.ledger import Contents, Ledger
from study.results.workspace import Workspace

SESSION = {
    "git_commit": "aaaa",
    "packages": {"torch": "2.11"},
    "datasets": {"digits": {"digest": "d1", "num_classes": 10}},
}


def side(contents: Contents, session: Any = SESSION, **changes: Any) -> Side:
    spec = synthetic_spec(**changes)
    return Side(inputs=Inputs(spec=spec, contents=contents, chance={"digits": 0.1}), session=session, where=spec.name)


def changed(num_blocks: int = 8, *, other_keys: bool = False) -> Contents:
    """The planted study with ``mul`` shifted by block, under its own keys or others."""
    contents = Contents()
    old = planted(num_blocks).contents
    for record in [*old.replicates.values(), *old.measures.values()]:
        new: Any = dict(record)
        new["trial_key"] = f"again {record['trial_key']}" if other_keys else record["trial_key"]
        if new["kind"] == "replicate" and new["config"]["merge"] == "mul":
            new["metrics"] = {"test/accuracy": new["metrics"]["test/accuracy"] - 0.01 * (new["block"] % 3) - 0.02}
        contents.add(new)
    return contents


def accuracy(found: TwoStudies) -> dict[str, Any]:
    (row,) = [r for r in found.effects if r["outcome"] == "test/accuracy" and r["arm"] == "merge=mul"]
    return row


def differences(contents: Contents) -> list[float]:
    """``mul`` minus ``add`` by block, over both depths."""
    values = {
        (r["config"]["merge"], r["block"], r["config"]["depth"]): r["metrics"]["test/accuracy"]
        for r in contents.replicates.values()
    }
    blocks = sorted({block for _, block, _ in values})
    return [sum(values["mul", b, d] - values["add", b, d] for d in (8, 14)) / 2 for b in blocks]


def printed(found: TwoStudies, form: str) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    print_comparison(found, form, console)
    return console.export_text()


def test_a_study_and_itself() -> None:
    slower = planted().contents
    for record in slower.replicates.values():
        record["train_seconds"] = 99.0
    found = compare_studies(side(planted().contents), side(slower))
    assert found.identical and found.num_equal == found.num_shared == 48
    assert accuracy(found)["difference"] == 0.0 and accuracy(found)["how"] == "paired"
    assert found.outcomes == [("train seconds", "72", "4,752")]
    assert "identical: the same specification" in printed(found, "text")


def test_the_same_networks_are_paired() -> None:
    a, b = planted().contents, changed()
    found = compare_studies(side(a), side(b))
    assert not found.identical and (found.num_shared, found.num_equal) == (48, 32)
    row = accuracy(found)
    test = stats.ttest_rel(differences(b), differences(a))
    interval = test.confidence_interval(0.95)
    assert (row["how"], row["n"]) == ("paired", 8)
    assert [row["low"], row["high"]] == pytest.approx([interval.low, interval.high], rel=1e-9)
    # an extension: the pairs that both have
    longer = accuracy(compare_studies(side(planted(6).contents, blocks=6), side(b)))
    assert (longer["how"], longer["n"], longer["n_a"], longer["n_b"]) == ("paired", 6, 6, 8)


def test_other_networks_are_independent_samples() -> None:
    a, b = planted().contents, changed(5, other_keys=True)
    found = compare_studies(side(a), side(b, blocks=5))
    assert found.num_shared == 0 and "no replicate is in both" in printed(found, "text")
    row, test = accuracy(found), stats.ttest_ind(differences(b), differences(a), equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (row["how"], row["n_a"], row["n_b"]) == ("independent", 8, 5)
    assert [row["low"], row["high"]] == pytest.approx([interval.low, interval.high], rel=1e-9)
    assert row["difference"] == pytest.approx(row["b"] - row["a"])


def test_what_was_asked_and_run_with() -> None:
    claims = synthetic_spec().model_dump()["claims"]
    other = SESSION | {"git_commit": "bbbb", "packages": {"torch": "2.12"}}
    factors = {"merge": ["add", "add_alias", "mul", "none"], "depth": [8, 14]}
    claims["C4"]["outcomes"][0]["margin"] = 0.05
    b = side(changed(), other, factors=factors, claims={"C4": claims["C4"]}, alpha=0.1, fixed={"dataset": "digits"})
    found = compare_studies(side(planted().contents), b)
    keys = {what: (ours, theirs) for what, ours, theirs in found.specification}
    assert set(keys) == {"alpha", "fixed.epochs", "claims.C3", "claims.C4", "factors.merge", "cells"}
    assert keys["alpha"] == ("0.05", "0.1") and keys["fixed.epochs"] == ("6", "")
    assert keys["factors.merge"] == ("", "none") and keys["cells"][0].startswith("6, 0 of them")
    assert "margin: 0.05" in keys["claims.C4"][1] and keys["claims.C3"][1] == ""
    assert found.provenance == [("git_commit", "aaaa", "bbbb"), ("packages.torch", "2.11", "2.12")]
    (gone,) = [change for change in found.changed_verdicts if change[0] == "C3 on digits"]
    assert gone[1] in ("supported", "refuted", "undecided") and gone[2] == ""
    told = json.loads(printed(found, "json"))
    assert told["identical"] is False and ["alpha", "0.05", "0.1"] in told["specification"]
    assert "| factors.merge | " in printed(found, "md") and "## Effects" in printed(found, "md")


def test_what_cannot_be_compared() -> None:
    images = {"datasets": {"digits": {"digest": "d2", "num_classes": 10}}}
    found = compare_studies(side(planted().contents), side(changed(), images))
    assert accuracy(found)["difference"] is None and "other images" in accuracy(found)["note"]
    assert "not compared: digits (other images are called digits: digest d1, d2)" in printed(found, "text")
    measure = {"statistics": {"path": {}, "input_jacobian": {"num_samples": 7}}}
    found = compare_studies(side(planted().contents), side(changed(), measure=measure))
    (row,) = [r for r in found.effects if r["outcome"] == JACOBIAN and r["arm"] == "merge=mul"]
    assert row["difference"] is None and row["note"] == "statistic input_jacobian has other settings"
    assert accuracy(found)["difference"] is not None
    elsewhere = planted().contents
    for record in elsewhere.replicates.values():
        record["config"]["dataset"] = "fake"
    fixed = {"dataset": "fake", "epochs": 6}
    found = compare_studies(side(planted().contents), side(elsewhere, fixed=fixed))
    assert not found.effects and "no effect can be compared" in printed(found, "text")


def test_where_a_study_may_be(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "synthetic")
    with Ledger(workspace.ledger) as ledger:
        for record in planted(2).contents.replicates.values():
            ledger.append(record)
    workspace.freeze(synthetic_spec())
    for place in (str(workspace.root), "synthetic"):
        assert anywhere(place, tmp_path).spec == synthetic_spec()
    with pytest.raises(UserError, match=r"no folder of a study, .* \(did you mean 'synthetic'\?\)"):
        anywhere("syntetic", tmp_path)
    with pytest.raises(UserError, match="unknown format 'mdd'"):
        check_format("mdd")


def test_a_study_judged_by_earlier_rules_shows_what_changed_and_by_which_rule(tmp_path):
    tables = tmp_path / "tables"
    tables.mkdir()
    contents = full().contents  # two failures of mul at depth 14
    now = side(contents)
    table = build_table(now.inputs, "claims")
    (c3, c4) = table.to_pylist()
    assert (c3["verdict"], c4["verdict"]) == ("undecided", "undecided")
    before = [{"claim": "C4", "dataset": "digits", "verdict": "supported", "reason": "."}]
    pq.write_table(pa.Table.from_pylist(before), tables / "claims.parquet")
    keep_earlier(tables)
    pq.write_table(table, tables / "claims.parquet")
    keep_earlier(tables)  # one of today's rules is not kept
    held = earlier_verdicts(tables)
    assert held["C4", "digits"]["verdict"] == "supported" and len(held) == 1
    judged = compare_studies(dataclasses.replace(now, earlier=held), now).rejudged
    (change,) = judged
    assert change[:4] == ("synthetic", "C4 on digits", "supported", "undecided")
    assert "failures count in accuracy" in change[4] and "no stratum lies below zero" in change[4]
    console = Console(file=(text := io.StringIO()), width=200)
    print_comparison(compare_studies(dataclasses.replace(now, earlier=held), now), "text", console)
    assert "Judged anew" in text.getvalue() and "By earlier rules" in text.getvalue()
    (tables / "claims_earlier.parquet").write_bytes(b"damaged")
    assert earlier_verdicts(tables) == {} == earlier_verdicts(tmp_path / "none")
