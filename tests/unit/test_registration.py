"""Claims are fixed before the first confirmed replicate; what is changed later is let through and told everywhere."""

import json

import pytest
from synthetic import CONTROL, MERGES, accuracy_claim, claims_of, inputs_of, planted_study, smoothness_claim

from analysis.report.page import render_report
from analysis.report.summary import summary
from analysis.tables.build import build_table, build_tables
from search_spaces.registered import changes, digest, registered
from study.atomic import write_json
from study.checks.audit import _claims
from study.errors import UserError
from study.results.ledger import Contents
from study.results.workspace import Workspace, note_confirm, read_registration, register

BASE = {"factors": [{"merge": list(MERGES), "depth": [8]}], "blocks": 10, "claims": {"C4": accuracy_claim()}}
MORE = {"C4": accuracy_claim(), "C3": smoothness_claim()}
LEVEL = {"text": "low", "arm": {"merge": "mul"}, "outcome": "x", "below": 0.5, "above": 0.7}


def spec(**given):
    return inputs_of(planted_study({}, blocks=1), **(BASE | given)).spec


def departs(before, now):
    """Texts of the changes, and the claims that they touch."""
    found = changes(registered(before), registered(now))
    return [change.text for change in found], {claim for change in found for claim in change.claims}


@pytest.mark.parametrize(
    ("before", "now", "text", "touched"),
    [
        ({}, {"claims": {"C4": accuracy_claim(margin=0.01)}}, "C4: margin was 0.02, now 0.01 (test/accuracy)", {"C4"}),
        ({}, {"claims": {"C4": accuracy_claim("add_alias")}}, "C4: arm was {'merge': 'mul'}, now {'merge'", {"C4"}),
        ({"claims": MORE}, {}, "C3 was left out", {"C4"}),
        ({}, {"claims": MORE}, "C3 was added", {"C3"}),
        ({}, {"level_claims": {"C1": LEVEL}}, "C1 was added", {"C1"}),
        ({"claims": MORE}, {"claims": MORE, "alpha": 0.1}, "alpha was 0.05, now 0.1", {"C3", "C4"}),
        ({}, {"control": CONTROL | {"arm": {"merge": "mul"}}}, "control was", {"C4"}),
        ({}, {"sequential": {"looks": [5, 10]}}, "looks was None, now [5, 10]", {"C4"}),
        ({}, {"blocks": 12}, "blocks was 10, now 12", set()),
        ({}, {"factors": [{"merge": list(MERGES), "depth": [8, 14]}]}, "C4: read in 2 cells, now in 4", {"C4"}),
        ({"claims": MORE}, {"claims": MORE, "measure": {"statistics": {"path": {"num_pairs": 9}, "input_jacobian": {}}}},
         "settings of path were {}, now {'num_pairs': 9}", {"C3"}),
    ],
)  # fmt: skip
def test_every_kind_of_change_is_named_with_the_claims_it_touches(before, now, text, touched):
    texts, claims = departs(spec(**before), spec(**now))
    assert any(found.startswith(text) for found in texts), texts
    assert claims == touched
    assert digest(registered(spec(**before))) != digest(registered(spec(**now)))


@pytest.mark.parametrize(
    "now",
    [
        {"title": "another", "demonstration": True},
        {"claims": {"C4": accuracy_claim() | {"text": "in other words"}}},
        {"factors": [{"depth": [8], "merge": ["mul", "add", "add_alias"]}]},
        {"measure": {"statistics": {"path": {}, "input_jacobian": {}, "noise_stability": {}}}},
        {"factors": [{"merge": [*MERGES, "sig_bn"], "depth": [8]}]},
        {"contrasts": [{"arm": {"merge": "mul"}, "reference": {"merge": "add_alias"}}]},
    ],
    ids=str,
)
def test_wording_and_what_no_claim_reads_are_no_change(now):
    assert departs(spec(), spec(**now)) == ([], set())


def test_claims_are_free_until_a_replicate_is_confirmed(tmp_path):
    register(tmp_path, spec(), None, 0)
    first = read_registration(tmp_path)
    assert first["digest"] == digest(registered(spec())) and first["confirm_began"] is None and first["later"] == []
    register(tmp_path, spec(alpha=0.01), spec(), 0)
    assert read_registration(tmp_path)["registered"]["alpha"] == 0.01
    note_confirm(tmp_path)
    began = read_registration(tmp_path)["confirm_began"]
    assert began[:2] == "20"
    note_confirm(tmp_path)
    assert read_registration(tmp_path)["confirm_began"] == began


def test_later_changes_are_added_once_and_the_first_claims_stay(tmp_path):
    register(tmp_path, spec(), None, 0)
    for num in (20, 30):
        register(tmp_path, spec(alpha=0.1), spec(), num)
    held = read_registration(tmp_path)
    assert held["registered"] == json.loads(json.dumps(registered(spec())))
    assert [(entry["num_confirmed"], entry["changes"]) for entry in held["later"]] == [
        (20, ["alpha was 0.05, now 0.1"])
    ]
    register(tmp_path, spec(), spec(alpha=0.1), 40)
    assert len(read_registration(tmp_path)["later"]) == 1


def test_a_study_begun_without_registration_is_held_to_its_last_specification(tmp_path):
    register(tmp_path, spec(alpha=0.1), spec(), 12)
    held = read_registration(tmp_path)
    assert held["registered"]["alpha"] == 0.05 and held["later"][0]["num_confirmed"] == 12


def test_an_edited_registration_is_a_fault(tmp_path):
    register(tmp_path, spec(), None, 0)
    assert list(_claims(Workspace(tmp_path))) == []
    path = tmp_path / "claims.json"
    held = path.read_text().replace('"margin": 0.02', '"margin": 0.01')
    path.write_text(held)
    with pytest.raises(UserError, match=r"claims\.json is damaged \(its checksum is wrong\)"):
        read_registration(tmp_path)
    # one who mends the checksum too is found by the digest of the claims
    write_json(path, {name: value for name, value in json.loads(held).items() if name not in ("format", "checksum")})
    with pytest.raises(UserError, match=r"claims\.json: what is registered has another digest than .*: it was edited"):
        read_registration(tmp_path)
    (fault,) = _claims(Workspace(tmp_path))
    assert fault.startswith("claims: claims.json: what is registered has another digest")


def registration(tmp_path, **given):
    register(tmp_path, spec(**given), None, 0)
    return read_registration(tmp_path)


BOOK = planted_study({("mul", 8): 0.03}, smooth={"mul": -0.5})
WORDS = "claims changed after 30 confirmed replicates: C4: margin was 0.02, now 0.001 (test/accuracy)"


def test_a_changed_claim_has_no_verdict_and_says_so_everywhere(tmp_path):
    held = registration(tmp_path, claims=MORE)
    now = BASE | {"claims": MORE | {"C4": accuracy_claim(margin=0.001)}}
    rows = claims_of(BOOK, held, **now)
    assert (rows["C4"]["verdict"], rows["C3"]["verdict"]) == ("no verdict", "supported")
    assert rows["C4"]["qualifier"] == f"post hoc, {WORDS}" and rows["C3"]["qualifier"] == WORDS
    assert all(WORDS in row["qualifier"] for row in rows.values())
    assert rows["C4"]["reason"] == "It was made, or made anew, after results were known: it is exploratory."
    assert rows["C4"]["change"] == "A new study with these claims, under another name and seed."
    inputs = inputs_of(BOOK, held, **now)
    assert all(WORDS in row["label"] for row in inputs.effects.to_pylist())
    parts = {row["claim"]: row for row in build_table(inputs, "claim_parts").to_pylist()}
    assert parts["C4"]["verdict"] == "no verdict" and WORDS in parts["C3"]["obstacles"]
    fixed = {row["claim"]: row["fixed"] for row in build_table(inputs, "registered").to_pylist()}
    assert fixed["C4"] == f"post hoc, {WORDS}" and fixed["C3"] == f"{held['since']} ({held['digest']})"
    assert summary(inputs).notes[0] == f"C{WORDS[1:]}."
    assert render_report(inputs, {}, {}).count(WORDS) >= 4
    build_tables(inputs, tmp_path, ["cells"])
    assert (tmp_path / "cells.md").read_text().rstrip().endswith(WORDS)
    assert WORDS in (tmp_path / "cells.tex").read_text()
    import pyarrow.parquet as pq

    assert pq.read_schema(tmp_path / "cells.parquet").metadata[b"note"].decode() == WORDS


def test_the_number_known_is_that_of_the_run_that_made_the_change(tmp_path):
    registration(tmp_path)
    register(tmp_path, spec(alpha=0.1), spec(), 7)
    held = read_registration(tmp_path)
    assert inputs_of(BOOK, held, alpha=0.1).amendment.words == (
        "claims changed after 7 confirmed replicates: alpha was 0.05, now 0.1"
    )
    assert inputs_of(BOOK, held, alpha=0.2).amendment.num_known == 30  # only looked at, now


def test_more_blocks_are_told_and_keep_the_verdict(tmp_path):
    held = registration(tmp_path, blocks=8)
    row = claims_of(BOOK, held)["C4"]
    assert (row["verdict"], row["qualifier"]) == (
        "supported", "blocks added after 30 confirmed replicates: blocks was 8, now 10",
    )  # fmt: skip


def test_as_registered_nothing_is_said(tmp_path):
    held = registration(tmp_path)
    assert claims_of(BOOK, held) == claims_of(BOOK)
    empty = inputs_of(planted_study({}, blocks=0), held, alpha=0.2)
    assert empty.contents == Contents() and empty.amendment.words == ""
    assert held["digest"] in render_report(inputs_of(BOOK, held), {}, {})
