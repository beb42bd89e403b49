"""The page of findings: fresh, each sentence follows from tables by a rule, and published verdicts are in the ledger."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import fmm_study
from rich.console import Console
from synthetic import CONTROL, accuracy_claim, inputs_of, planted_study

from analysis.comparison import Side, compare_studies
from analysis.report.by_study import Study, agreement, claim_table, pooled_rows, pooling_rules, short_answer, study_of
from analysis.stats.pooling import pool
from study.commands.show import in_folder
from study.errors import UserError
from study.printing.comparison import print_by_study
from study.printing.findings import BEGIN, END, FRONT, PAGE, PUBLISHED, REGENERATE, ended_study, front, page, published
from study.results.workspace import Workspace

ENDED = [study.name for study in published(PUBLISHED)[0]]
NUMBERS = ("effect", "ci_low", "ci_high", "margin")


def test_the_page_and_the_front_page_are_what_the_published_tables_say() -> None:
    told = f"not what the tables in published/ say: run `{REGENERATE}`"
    assert PAGE.read_text() == page(), told
    assert FRONT.read_text() == front(FRONT.read_text()), told
    assert "(docs/findings.md)" in FRONT.read_text().splitlines()[2]


@pytest.mark.parametrize("name", ENDED)
def test_published_verdicts_are_found_again_from_the_ledger(name: str) -> None:
    held = in_folder(Workspace(PUBLISHED / name))
    rows = pq.read_table(PUBLISHED / name / "tables/claims.parquet").to_pylist()
    kept = {(row["claim"], row["dataset"]): row for row in rows}
    judged = {(judgement.name, judgement.dataset): judgement for judgement in held.inputs.judgements}
    assert judged.keys() == kept.keys() and {name for name, _ in kept} == set(held.spec.all_claims)
    for key, judgement in judged.items():
        row, part = kept[key], judgement.deciding
        assert (judgement.verdict, judgement.why) == (row["verdict"], row["why"]), key
        assert (part.row["arm"], part.outcome, part.row["n_pairs"]) == (row["arm"], row["outcome"], row["n_pairs"])
        if row["scale"] != "level":
            assert [part.effect, part.low, part.high, part.margin] == [row[name] for name in NUMBERS], key
    # what was claimed was fixed before the first confirmed training
    assert held.registration and held.registration["since"] < held.registration["confirm_began"]
    assert not held.registration["later"]


def study(name: str, shift: float, spread: float = 0.004, dataset: str = "", seed: int = 0, **changes: Any) -> Study:
    """A study of ten blocks whose ``mul`` differs from ``add`` by ``shift`` in accuracy."""
    book = planted_study({("mul", 8): shift}, spread=spread, seed=seed)
    made = study_of(inputs_of(book, **({"control": CONTROL} | changes)))

    def read(table: str) -> Any:
        return [{**row, "dataset": dataset or name} for row in made.read(table)]

    return Study(spec=made.spec.model_copy(update={"name": name}), read=read)


BETTER, WORSE, OPEN = ("a", 0.06), ("b", -0.06), ("c", 0.02, 0.03)
AGREE = {
    "one": ([BETTER], "supported on a.", "C4 is supported"),
    "alike": ([BETTER, ("b", 0.05)], "consistent: supported on a and b.", "C4 is supported everywhere"),
    "against": ([BETTER, WORSE], "not consistent: supported on a; refuted on b.", "on C4 the studies differ"),
    "one open": (
        [WORSE, OPEN],
        "refuted on b; undecided on c; no study contradicts another (the undecided effect points for it on c).",
        "no claim is supported; on C4 the studies differ",
    ),
    "all open": (
        [OPEN, ("d", -0.002, 0.06)],
        "open everywhere: undecided on c and d (the undecided effect points for it on c and against it on d).",
        "no claim is supported; C4 is undecided everywhere",
    ),
}


@pytest.mark.parametrize(("studies", "told", "short"), AGREE.values(), ids=AGREE)
def test_whether_studies_agree_follows_from_their_verdicts(studies: Any, told: str, short: str) -> None:
    made = [study(*each) for each in studies]
    assert agreement(made, "C4") == told and short_answer(made) == short


def test_the_reading_over_datasets_is_a_t_interval_over_their_means() -> None:
    made = [study("a", 0.06), study("b", -0.06), study("c", 0.02)]
    ((claim, comparison, outcome, num, effect, signs),) = pooled_rows(made)
    means = [each.read("claim_parts")[0]["effect"] for each in made]
    expected = pool(means)
    low, high = expected.interval(0.05)
    assert (claim, comparison, outcome, num, signs) == ("C4", "mul minus add", "test accuracy", "3", "2 of 3")
    assert effect == f"{100 * expected.mean:.2f} pp [{100 * low:.2f}, {100 * high:.2f}]"
    # of two studies on one dataset that with more pairs
    fewer = study("d", 0.5, dataset="a", blocks=9)
    rows = [{**row, "n_pairs": 9} for row in fewer.read("claim_parts")]
    twice = Study(spec=fewer.spec, read=lambda name: rows if name == "claim_parts" else fewer.read(name))
    assert pooled_rows([twice, *made]) == pooled_rows(made)
    assert list(claim_table([twice, *made])[0]) == ["Claim", "a (d)", "a (a)", "b", "c"]


NO_POOLING = {
    "too few": (
        [("a", 0.06), ("b", 0.06), ("c", 0.06)],
        {},
        "a verdict over datasets needs 5 of them, and there are 3",
    ),
    "sequential": ([(n, 0.06) for n in "abcde"], {"sequential": {"looks": [8, 10]}}, "f stopped at looks of its own"),
    "margins": (
        [(n, 0.06) for n in "abcde"],
        {"claims": {"C4": accuracy_claim(margin=0.01)}},
        "margins or outcomes are not the same in all of them (C4)",
    ),
    "one dataset twice": ([(n, 0.06) for n in "abcde"], {"dataset": "a"}, "more than one study is on a"),
    "nothing": ([(n, 0.06) for n in "abcde"], {}, ""),
}


@pytest.mark.parametrize(("studies", "changes", "told"), NO_POOLING.values(), ids=NO_POOLING)
def test_the_rules_say_why_there_is_no_verdict_over_datasets(studies: Any, changes: Any, told: str) -> None:
    others = [study("f", 0.06, **changes)] if changes else []
    reasons = pooling_rules([*[study(*each) for each in studies], *others])
    assert ([told in reason for reason in reasons] or [not told]) == [True]


def _inputs(shift: float, seed: int) -> Any:
    """Records that say they are of another dataset each."""
    book = planted_study({("mul", 8): shift}, seed=seed)
    for record in book.contents.replicates.values():
        record["config"] = {**record["config"], "dataset": f"set{seed}"}
    made = inputs_of(book, control=CONTROL, fixed={"dataset": f"set{seed}", "epochs": 6}, name=f"study{seed}")
    return made.__class__(**{**vars_of(made), "chance": {f"set{seed}": 0.1}})


def vars_of(inputs: Any) -> dict[str, Any]:
    return {name: getattr(inputs, name) for name in ("spec", "contents", "registration")}


@pytest.mark.parametrize("num", [3, 5])
def test_compare_gives_a_verdict_over_datasets_where_the_rules_do(num: int, capsys: pytest.CaptureFixture[str]) -> None:
    studies = {f"study{seed}": _inputs(0.06 + seed / 1000, seed) for seed in range(num)}
    print_by_study(studies, "json", Console(width=200))
    found = json.loads(capsys.readouterr().out)
    assert found["agreement"]["C4"].startswith("consistent: supported on set0, set1")
    assert found["claims"][0]["set2"].startswith("supported: test accuracy 6.")
    assert found["pooled"][0]["For the claim"] == f"{num} of {num}"
    verdicts = [each["Verdict"] for each in found["over datasets"]]
    assert verdicts == ([] if num == 3 else ["supported"]) and bool(found["no verdict over datasets"]) == (num == 3)
    for form in ("text", "md"):
        print_by_study(studies, form, Console(width=300))
        shown = capsys.readouterr().out
        assert "Claims by study" in shown and ("needs 5 of them, and there are 3" in shown) == (num == 3)


def test_two_studies_on_another_dataset_each_show_their_verdicts_side_by_side() -> None:
    sides = [Side(inputs=_inputs(shift, seed)) for seed, shift in enumerate((0.06, -0.06))]
    assert compare_studies(*sides).verdicts == [("C4", "supported on set0", "refuted on set1")]
    assert compare_studies(sides[0], sides[0]).verdicts == [("C4 on set0", "supported", "supported")]


def test_studies_of_one_name_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    print_by_study({"here/a": _inputs(0.06, 0), "there/a": _inputs(0.06, 0)}, "json", Console(width=200))
    found = json.loads(capsys.readouterr().out)
    assert list(found["claims"][0]) == ["Claim", "set0 (here/a)", "set0 (there/a)"]


@pytest.mark.parametrize("places", [["one"], []])
def test_compare_of_fewer_than_two_is_one_line(places: list[str]) -> None:
    done = fmm_study("compare", *places)
    assert done.returncode == 2 and done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three published studies, made of one: on another dataset each, one of which has not ended."""
    for name in ("one", "two", "three"):
        root = tmp_path / name
        shutil.copytree(PUBLISHED / ENDED[0], root, ignore=shutil.ignore_patterns("ledger", "measurements", "figures"))
        for path in (root / "tables").glob("*.parquet"):
            table = pq.read_table(path)
            if "dataset" in table.column_names:
                at = table.column_names.index("dataset")
                table = table.set_column(at, "dataset", pa.array([f"set_{name}"] * table.num_rows))
            pq.write_table(table, path)
        text = (root / "study.json").read_text()
        held = json.loads(text)
        held = {key: value for key, value in held.items() if key not in ("format", "checksum")} | {"name": name}
        (root / "study.json").write_text(json.dumps(held))
    shutil.rmtree(tmp_path / "three/tables")
    return tmp_path


def change(folder: Path, name: str, **values: Any) -> None:
    """Put other values into the row of C2 in a study's table of claims."""
    path = folder / name / "tables/claims.parquet"
    table = pq.read_table(path)
    rows = [row | values if row["claim"] == "C2" else row for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def test_numbers_come_from_the_tables_and_studies_that_run_are_named(folder: Path) -> None:
    change(folder, "two", verdict="supported", effect=0.04321, ci_low=0.01, ci_high=0.07)
    text = page(folder)
    assert "[one][one] and [two][two] have ended; [three][three] has not." in text
    assert "| Claim | set_one | set_two |" in text and "**supported**: test accuracy 4.32 pp [1.00, 7.00] |" in text
    assert "not consistent: refuted on set_one; supported on set_two." in text
    assert (
        "**In short: C5 and C6 are refuted everywhere; C1, C3 and C4 are undecided everywhere; on C2 the studies"
        in text
    )
    assert "consistent: refuted on set_one and set_two." in text
    assert (
        "a verdict over datasets needs 5 of them, and there are 2" in text and "| C4 | authors_46 minus add |" in text
    )
    shown = front(f"# x\n{BEGIN}old\n{END}rest\n", folder)
    assert (
        "4.32 pp" in shown and "old" not in shown and shown.endswith(f"{END}rest\n") and "published/one/README" in shown
    )
    # while its claims wait for trainings, a study has not ended
    change(folder, "two", verdict="undecided", why="waiting")
    assert "[one][one] has ended; [three][three] and [two][two] have not." in page(folder)
    shutil.rmtree(folder / "one/tables")
    assert "[one][one], [three][three] and [two][two] have not." in page(folder) and "In short" not in page(folder)


def test_what_is_missing_or_damaged_is_named(folder: Path) -> None:
    with pytest.raises(UserError, match="no place for the findings"):
        front("# x\n", folder)
    (folder / "one/tables/claims.parquet").write_bytes(b"no table")
    with pytest.raises(UserError, match=r"one/tables/claims\.parquet cannot be read"):
        ended_study(folder / "one")
    empty = folder / "nothing"
    empty.mkdir()
    assert "No study is published yet." in page(empty)
