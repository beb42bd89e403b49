"""Two studies side by side: what differs in what was asked, run with, found and spent, and what cannot be compared.

Two studies are independent samples, so the difference of their effects has the variances' sum and Welch's degrees of freedom.
Where both hold the same networks (equal trial keys: one spec run twice, or one study and its extension) the differences are
paired by block and replicate instead, on the pairs that both have.
Source: https://doi.org/10.1093/biomet/34.1-2.28
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.claims.rejudged import changed_verdicts
from analysis.effects.compare import subtract
from analysis.effects.image_variance import t_interval
from analysis.effects.readings import POOLED
from analysis.inputs import Inputs
from analysis.stats.spread import mean_interval, sd
from analysis.trials.table import rows_of
from analysis.words.rows import Rows, grouped, where
from search_spaces.spec import Spec
from study.results.ledger import Contents
from study.schema import STATES, TIMING_COLUMNS

# What changed, and its value in either study; an empty one where a study has no such thing.
Change = tuple[str, str, str]
Key = tuple[str, ...]
_KEY = ("dataset", "arm", "reference", "outcome", "scale")
_TIMING = {*TIMING_COLUMNS, "resumed_from", "host"}
# listed one by one, so that a level or claim that one study adds is told as such
_NAMED = ("claims", "level_claims", "nuisance")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One study: its tables' inputs, what it was run with last (``study/results/provenance.py``), and where it was read.

    ``earlier`` are its claims as earlier rules judged them (``analysis.claims.rejudged``), if they did.
    """

    inputs: Inputs
    session: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""
    earlier: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TwoStudies:
    """Changes from ``a`` to ``b``. ``num_shared`` replicates have one trial key, ``num_equal`` of them the same numbers.

    ``verdicts``: claim and dataset (or claim alone, ``_verdicts``) -> either verdict, empty where a study does not make the
    claim; ``refused``: dataset or outcome -> why it cannot be compared; ``rejudged``: study, claim and dataset, the verdict by
    earlier rules, that by today's, and the rules that make the difference.
    """

    a: str
    b: str
    specification: list[Change]
    provenance: list[Change]
    outcomes: list[Change]
    num_a: int
    num_b: int
    num_shared: int
    num_equal: int
    effects: list[dict[str, Any]]
    verdicts: list[Change]
    refused: dict[str, str]
    rejudged: list[tuple[str, ...]]

    @property
    def identical(self) -> bool:
        """Whether both asked the same and found the same, number by number; time and machine may differ."""
        same_results = self.num_a == self.num_b == self.num_shared == self.num_equal
        return same_results and not self.specification and not self.changed_verdicts

    @property
    def changed_verdicts(self) -> list[Change]:
        """Verdicts that are not the same in both."""
        return [change for change in self.verdicts if change[1] != change[2]]


def compare_studies(a: Side, b: Side) -> TwoStudies:
    """Everything that differs. Other images and other settings of a statistic are named, and nothing of them is subtracted."""
    refused = _refused(a, b)
    ours, theirs = a.inputs.contents, b.inputs.contents
    shared = ours.replicates.keys() & theirs.replicates.keys()
    verdicts = _verdicts(a, b)
    results = _results(ours), _results(theirs)
    return TwoStudies(
        a=a.where,
        b=b.where,
        specification=specification_changes(a.inputs.spec, b.inputs.spec),
        provenance=differing(dict(_leaves(a.session)), dict(_leaves(b.session))),
        outcomes=outcome_changes(a.inputs.trials, b.inputs.trials),
        num_a=len(ours.replicates),
        num_b=len(theirs.replicates),
        num_shared=len(shared),
        num_equal=sum(results[0][key] == results[1][key] for key in shared),
        effects=effect_changes(a.inputs, b.inputs, refused),
        verdicts=side_by_side(*verdicts),
        refused=refused,
        rejudged=[
            (side.where, *change)
            for side in (a, b)
            for change in changed_verdicts(side.inputs.judgements, side.earlier)
        ],
    )


def _verdicts(a: Side, b: Side) -> list[dict[str, str]]:
    """Claim and dataset -> verdict on either side; the claim alone where each is on one dataset, and not on the same."""
    datasets = [{finding.dataset for finding in side.inputs.findings} for side in (a, b)]
    if all(len(names) == 1 for names in datasets) and not datasets[0] & datasets[1]:
        return [{f.name: f"{f.verdict} on {f.dataset}" for f in side.inputs.findings} for side in (a, b)]
    return [{f"{f.name} on {f.dataset}": str(f.verdict) for f in side.inputs.findings} for side in (a, b)]


def _results(contents: Contents) -> dict[str, str]:
    """Trial key -> everything found on it but the time it took, as text: exact, and NaN is equal to itself."""
    texts = {key: [repr(_untimed(record))] for key, record in contents.replicates.items()}
    for key, measure in sorted(contents.measures.items()):
        if measure["trial_key"] in texts:
            texts[measure["trial_key"]].append(repr(_untimed(measure)) + key)
    return {key: "\n".join(parts) for key, parts in texts.items()}


def _untimed(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in _TIMING}


def _refused(a: Side, b: Side) -> dict[str, str]:
    refused = {}
    known, others = (side.session.get("datasets", {}) for side in (a, b))
    for name in known.keys() & others.keys():
        if known[name]["digest"] != others[name]["digest"]:
            refused[name] = f"other images are called {name}: digest {known[name]['digest']}, {others[name]['digest']}"
    ours, theirs = (side.inputs.spec.measure.statistics for side in (a, b))
    for statistic in ours.keys() & theirs.keys():
        if ours[statistic] != theirs[statistic]:
            for outcome in _estimates(a.inputs.contents, statistic) & _estimates(b.inputs.contents, statistic):
                refused[outcome] = f"statistic {statistic} has other settings"
    return dict(sorted(refused.items()))


def _estimates(contents: Contents, statistic: str) -> set[str]:
    measures = (measure for measure in contents.measures.values() if measure["statistic"] == statistic)
    return {name for measure in measures for name in measure["estimates"]}


def specification_changes(a: Spec, b: Spec) -> list[Change]:
    """Key by key, levels of factors one by one; whether ``name`` and ``title`` differ counts as nothing."""
    changes = differing(_flat(a), _flat(b))
    for factor in dict.fromkeys([*a.factor_names(), *b.factor_names()]):
        mine, yours = (list(dict.fromkeys(map(str, spec.levels_of(factor)))) for spec in (a, b))
        gone, new = ([x for x in one if x not in two] for one, two in ((mine, yours), (yours, mine)))
        if gone or new:
            changes.append((f"factors.{factor}", ", ".join(gone), ", ".join(new)))
    cells, more = (Counter(map(repr, map(sorted, (cell.items() for cell in spec.cells())))) for spec in (a, b))
    if cells != more:
        changes.append(
            ("cells", f"{len(cells)}, {len(cells - more)} of them here alone", f"{len(more)}, {len(more - cells)}")
        )
    return changes


def outcome_changes(a: pa.Table, b: pa.Table) -> list[Change]:
    """Numbers of networks by phase and state, epochs and seconds of worker time, from two trials tables."""
    ours, theirs = _totals(a), _totals(b)
    return [(key, f"{ours[key]:,.6g}", f"{theirs[key]:,.6g}") for key in ours if ours[key] != theirs[key]]


def side_by_side(a: Mapping[str, str], b: Mapping[str, str]) -> list[Change]:
    """Each key of either mapping with both values."""
    return [(key, a.get(key, ""), b.get(key, "")) for key in dict.fromkeys([*a, *b])]


def differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[Change]:
    """The keys whose values differ, with both values."""
    return [change for change in side_by_side(a, b) if change[1] != change[2]]


def _totals(trials: pa.Table) -> dict[str, float]:
    rows = rows_of(trials, ("phase", "state", "epochs", "train_seconds", "measure_seconds"))
    totals: dict[str, float] = {}
    for phase in ("search", "short", "confirm"):
        states = Counter(row["state"] for row in rows if row["phase"] == phase)
        totals |= {f"{phase}, {state}": states[state] for state in STATES}
    totals["epochs"] = sum(row["epochs"] for row in rows)
    for name in ("train_seconds", "measure_seconds"):
        totals[name.replace("_", " ")] = sum(row[name] for row in rows)
    return totals


def _flat(spec: Spec) -> dict[str, str]:
    """Claims and hyperparameters whole; other values by dotted key."""
    flat: dict[str, str] = {}
    for key, value in spec.model_dump(mode="json", exclude={"name", "title", "factors"}).items():
        if key in _NAMED:
            flat |= {f"{key}.{name}": _text(item) for name, item in value.items()}
        else:
            flat |= dict(_leaves({key: value}))
    return flat


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _text(value)


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return "; ".join(map(_text, value))
    return "" if value is None else str(value)


def effect_changes(a: Inputs, b: Inputs, refused: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per contrast and outcome of both: either effect and its number of pairs, B minus A with its interval.

    ``low`` and ``high`` hold at 1 - alpha of ``a``; ``how`` is ``paired`` or ``independent``. ``refused`` maps a dataset or an
    outcome to why it cannot be compared, which then stands under ``note``, and nothing is subtracted. ``main``: whether either
    study makes claims about it, or it is test accuracy.
    """
    ours, theirs = _pooled(a.effects), _pooled(b.effects)
    pairs = _pairs(a.differences), _pairs(b.differences)
    same = _same_networks(a.trials, b.trials)
    rows = []
    for key in ours:
        if key not in theirs:
            continue
        named = dict(zip(_KEY, key, strict=True))
        one, two = ours[key][0], theirs[key][0]
        row: dict[str, Any] = {**named, "a": one["mean_difference"], "b": two["mean_difference"]}
        row |= {"n_a": one["n_pairs"], "n_b": two["n_pairs"], "main": key in pairs[0] or key in pairs[1]}
        row |= {"how": "", "n": 0, **dict.fromkeys(("difference", "low", "high"))}
        row["note"] = refused.get(named["dataset"], "") or refused.get(named["outcome"], "")
        if not row["note"] and row["a"] is not None and row["b"] is not None:
            shared = sorted(pairs[0].get(key, {}).keys() & pairs[1].get(key, {}).keys()) if same else []
            if shared:
                row |= _paired(pairs[0][key], pairs[1][key], shared, a.spec.alpha)
            else:
                row |= _welch(one, two, a.spec.alpha)
        rows.append(row)
    return rows


def _paired(a: Mapping[Any, float], b: Mapping[Any, float], shared: list[Any], alpha: float) -> dict[str, Any]:
    d = subtract(np.array([b[pair] for pair in shared]), np.array([a[pair] for pair in shared]))
    mean, spread = float(d.mean()), sd(d)
    low, high = (None, None) if spread is None else mean_interval(mean, spread, len(d), alpha)
    return {"difference": mean, "low": low, "high": high, "how": "paired", "n": len(d)}


def _welch(one: Mapping[str, Any], two: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    mean = two["mean_difference"] - one["mean_difference"]
    found = {"difference": mean, "low": None, "high": None}
    if one["sd_difference"] is not None and two["sd_difference"] is not None:
        squares = [row["sd_difference"] ** 2 / row["n_pairs"] for row in (one, two)]
        terms = [square**2 / (row["n_pairs"] - 1) for square, row in zip(squares, (one, two), strict=True)]
        degrees = sum(squares) ** 2 / sum(terms) if sum(terms) else np.inf
        low, high = t_interval(mean, float(np.sqrt(sum(squares))), degrees, alpha)
        found |= {"low": low, "high": high}
    return found | {"how": "independent", "n": min(one["n_pairs"], two["n_pairs"])}


def _pooled(table: pa.Table) -> dict[Key, Rows]:
    return grouped(where(table.to_pylist(), stratum=POOLED), *_KEY)


def _pairs(differences: pa.Table) -> dict[Key, dict[tuple[int, int], float]]:
    return {
        key: {(row["block"], row["replicate"]): row["difference"] for row in rows}
        for key, rows in _pooled(differences).items()
    }


def _same_networks(a: pa.Table, b: pa.Table) -> bool:
    """Whether the confirmed networks of one study are all among those of the other."""
    ours, theirs = ({row["trial_key"] for row in rows_of(t, ["trial_key"], phase="confirm")} for t in (a, b))
    return bool(ours) and bool(theirs) and (ours <= theirs or theirs <= ours)
