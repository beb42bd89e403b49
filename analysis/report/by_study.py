"""Claims by study: several studies that make the same claims, side by side, whether they agree, and what they say together.

Rows are those of the tables of claims, as a study's files or its ledger give them. Effects stand in the claim's direction, so
that positive speaks for it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.claims.findings import Finding, findings
from analysis.claims.pooled import pooled_judgements
from analysis.inputs import Inputs
from analysis.stats.pooling import ALL_DATASETS, MIN_DATASETS, pool
from analysis.tables.build import build_table
from analysis.words.rows import Row, Rows, distinct, grouped, where
from analysis.words.wording import effect_text, listed, outcome_text
from search_spaces import Spec

DECIDED = ("supported", "refuted")
LEGEND = (
    "Beside each verdict stands the comparison that it hangs on, with its interval at the claim's own level: positive speaks "
    "for the claim (a level, as in C1, stands for itself). pp: percentage points of images; log: natural logarithm. "
    "*Refuted*: an advantage of the margin or more is ruled out; a smaller one is not."
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that has ended. ``read`` gives a table's rows by its name; ``session``: what it ran with last.

    ``called``: its name here, where that in its specification is another study's too.
    """

    spec: Spec
    read: Callable[[str], Rows]
    session: Mapping[str, Any] = field(default_factory=dict)
    called: str = ""

    @property
    def name(self) -> str:
        """The study's name."""
        return self.called or self.spec.name

    def of(self, name: str, claims: str = "claims") -> dict[str, Rows]:
        """Dataset -> rows of a table of claims on it that are of the claim ``name``, without those over all datasets."""
        rows = [row for row in where(self.read(claims), claim=name) if row["dataset"] != ALL_DATASETS]
        return grouped(rows, "dataset")


def study_of(inputs: Inputs, called: str = "") -> Study:
    """A study from its ledger."""
    return Study(spec=inputs.spec, read=lambda name: build_table(inputs, name).to_pylist(), called=called)


def claim_texts(studies: Iterable[Study]) -> dict[str, str]:
    """Claim -> its text, in the order of their names; the first study that makes it tells."""
    found: dict[str, str] = {}
    for study in studies:
        for name, claim in study.spec.all_claims.items():
            found.setdefault(name, claim.text)
    return dict(sorted(found.items()))


def places(studies: Sequence[Study]) -> dict[tuple[str, str], str]:
    """(study, dataset) -> what its column is called: the dataset, and the study too where two studies share it."""
    found = [(study.name, name) for study in studies for name in datasets_of(study)]
    several = {name for _, name in found if sum(name == other for _, other in found) > 1}
    return {place: f"{place[1]} ({place[0]})" if place[1] in several else place[1] for place in found}


def datasets_of(study: Study) -> list[str]:
    """The datasets that a study makes claims on."""
    return [name for name in distinct(study.read("claims"), "dataset") if name != ALL_DATASETS]


def claim_table(studies: Sequence[Study], strong: str = "") -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a claim a row, a study a column. ``strong`` stands around each verdict."""
    columns = places(studies)
    rows = []
    for name, text in claim_texts(studies).items():
        rows.append([f"{name}: {text}"])
        for study in studies:
            of = study.of(name)
            rows[-1] += [cell_text(of[at][0], strong) if at in of else "" for at in datasets_of(study)]
    return ["Claim", *columns.values()], rows


def cell_text(row: Row, strong: str = "") -> str:
    """``refuted: test accuracy -0.19 pp [-1.11, 0.74]``; where there is no effect, why."""
    effect = effect_of(row)
    told = f"{outcome_text(row['outcome'])} {effect}" if effect and row["scale"] != "level" else effect or row["why"]
    return f"{strong}{row['verdict']}{strong}{f': {told}' if told else ''}"


def comparison_text(row: Row) -> str:
    """``mul minus add``, ``se native minus none``: the levels of both sides, turned round where lower is better."""
    sides = [
        " ".join(dict.fromkeys(item.partition("=")[2] for item in row[side].split(" ")))
        for side in ("arm", "reference")
    ]
    return " minus ".join(sides if row["better"] == "higher" else sides[::-1])


def effect_of(row: Row) -> str:
    """The effect of a claim's row or comparison with its interval; empty where there is none."""
    return effect_text(row["outcome"], row["scale"], row["effect"], row["ci_low"], row["ci_high"])


def short_answer(studies: Sequence[Study]) -> str:
    """How the claims stand over all studies: ``no claim is supported anywhere; C2 and C5 are refuted in every study; ...``."""
    verdicts = {
        name: [rows[0]["verdict"] for study in studies for rows in study.of(name).values()]
        for name in claim_texts(studies)
    }
    verdicts = {name: found for name, found in verdicts.items() if found}
    everywhere = "" if sum(len(datasets_of(study)) for study in studies) == 1 else " everywhere"
    told = [] if any("supported" in found for found in verdicts.values()) else ["no claim is supported"]
    for verdict in (*DECIDED, "undecided", "no verdict"):
        if names := [name for name, found in verdicts.items() if set(found) == {verdict}]:
            verb = (
                ("has" if len(names) == 1 else "have")
                if verdict == "no verdict"
                else "is"
                if len(names) == 1
                else "are"
            )
            told.append(f"{listed(names)} {verb} {verdict}{everywhere}")
    if mixed := [name for name, found in verdicts.items() if len(set(found)) > 1]:
        told.append(f"on {listed(mixed)} the studies differ")
    return "; ".join(told)


def agreement(studies: Sequence[Study], name: str) -> str:
    """Whether the studies agree on a claim, in a sentence; empty for one study alone."""
    columns = places(studies)
    verdicts = {
        columns[study.name, dataset]: rows[0]
        for study in studies
        for dataset, rows in study.of(name).items()
        if (study.name, dataset) in columns
    }
    by_verdict: dict[str, list[str]] = {}
    for place, row in verdicts.items():
        by_verdict.setdefault(row["verdict"], []).append(place)
    told = "; ".join(f"{verdict} on {listed(where_)}" for verdict, where_ in by_verdict.items())
    decided = [verdict for verdict in DECIDED if verdict in by_verdict]
    if len(verdicts) < 2:
        return f"{told}." if told else ""
    if len(decided) == 2:
        return f"not consistent: {told}."
    if len(by_verdict) == 1:
        return f"consistent: {told}." if decided else f"open everywhere: {told}{_leanings(verdicts)}."
    others = {place: row for place, row in verdicts.items() if row["verdict"] not in DECIDED}
    return f"{told}; no study contradicts another{_leanings(others)}."


def _leanings(rows: Mapping[str, Row]) -> str:
    """Where the effects of undecided claims point."""
    points: dict[str, list[str]] = {}
    for place, row in rows.items():
        if row["effect"] is not None and row["scale"] != "level":
            points.setdefault("for" if row["effect"] > 0 else "against", []).append(place)
    told = [f"{side} it on {listed(found)}" for side, found in points.items()]
    return f" (the undecided effect points {' and '.join(told)})" if told else ""


def pooling_rules(studies: Sequence[Study]) -> list[str]:
    """Why the project's rules give no verdict over these studies' datasets, in words; empty where they would."""
    names = list(dict.fromkeys(name for study in studies for name in datasets_of(study)))
    reasons = []
    if len(names) < MIN_DATASETS:
        verb = "is" if len(names) == 1 else "are"
        reasons.append(f"a verdict over datasets needs {MIN_DATASETS} of them, and there {verb} {len(names)}")
    if shared := [name for name in names if sum(name in datasets_of(study) for study in studies) > 1]:
        reasons.append(f"more than one study is on {listed(shared)}")
    if sequential := [study.name for study in studies if study.spec.sequential]:
        reasons.append(
            f"{listed(sequential)} stopped at looks of its own, which an interval over datasets knows nothing of"
        )
    differing = [name for name in claim_texts(studies) if len({_asked(study.spec, name) for study in studies}) > 1]
    if differing:
        reasons.append(f"margins or outcomes are not the same in all of them ({listed(differing)})")
    return reasons


def findings_over(inputs: Sequence[Inputs]) -> list[Finding]:
    """Claims over the datasets of several studies, judged as those of one study; for studies that ``pooling_rules`` lets."""
    spec = inputs[0].spec
    judgements = [j for each in inputs for j in each.judgements if j.dataset != ALL_DATASETS]
    return findings(spec, pooled_judgements(spec, judgements))


def _asked(spec: Spec, name: str) -> str:
    return spec.all_claims[name].model_dump_json() if name in spec.all_claims else ""


def pooled_rows(studies: Sequence[Study]) -> list[list[str]]:
    """Each comparison of a claim that two datasets or more have: claim, comparison, outcome, datasets, mean, signs.

    The mean of the dataset means with its t interval, each dataset counting once: of two studies on one, that with more pairs.
    """
    found: dict[tuple[str, ...], dict[str, tuple[Row, Study]]] = {}
    for study in studies:
        for row in study.read("claim_parts"):
            if row["effect"] is None or row["dataset"] == ALL_DATASETS:
                continue
            of = found.setdefault(tuple(row[name] for name in ("claim", "arm", "reference", "outcome")), {})
            held = of.get(row["dataset"])
            if held is None or held[0]["n_pairs"] < row["n_pairs"]:
                of[row["dataset"]] = row, study
    return [_pooled(key[0], list(of.values())) for key, of in sorted(found.items()) if len(of) > 1]


def _pooled(claim: str, found: Sequence[tuple[Row, Study]]) -> list[str]:
    rows, (first, study) = [row for row, _ in found], found[0]
    pooled = pool([row["effect"] for row in rows])
    effect = effect_text(first["outcome"], first["scale"], pooled.mean, *pooled.interval(study.spec.alpha))
    signs = f"{sum(row['effect'] > 0 for row in rows)} of {len(rows)}"
    return [claim, comparison_text(first), outcome_text(first["outcome"]), str(len(rows)), effect, signs]


POOLED_HEADINGS = ("Claim", "Comparison", "Outcome", "Datasets", "Mean of datasets [t interval]", "For the claim")
