"""Two studies side by side: what differs in what was asked, run with, found and spent, and what cannot be compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analysis.comparison.changes import Change, outcome_changes, provenance_changes, side_by_side, specification_changes
from analysis.comparison.effect_changes import effect_changes
from analysis.inputs import Inputs
from study.results.ledger import Contents
from study.schema import TIMING_COLUMNS

_TIMING = {*TIMING_COLUMNS, "resumed_from", "host"}


@dataclass(frozen=True, kw_only=True)
class Side:
    """One study: its tables' inputs, what it was run with last (``study/results/provenance.py``), and where it was read."""

    inputs: Inputs
    session: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class TwoStudies:
    """Changes from ``a`` to ``b``. ``num_shared`` replicates have one trial key, ``num_equal`` of them the same numbers.

    ``verdicts``: claim and dataset -> either verdict, empty where a study does not make the claim; ``refused``: dataset or
    outcome -> why it cannot be compared.
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
    verdicts = [{f"{f.name} on {f.dataset}": f.verdict for f in side.inputs.findings} for side in (a, b)]
    results = _results(ours), _results(theirs)
    return TwoStudies(
        a=a.where,
        b=b.where,
        specification=specification_changes(a.inputs.spec, b.inputs.spec),
        provenance=provenance_changes(a.session, b.session),
        outcomes=outcome_changes(a.inputs.trials, b.inputs.trials),
        num_a=len(ours.replicates),
        num_b=len(theirs.replicates),
        num_shared=len(shared),
        num_equal=sum(results[0][key] == results[1][key] for key in shared),
        effects=effect_changes(a.inputs, b.inputs, refused),
        verdicts=side_by_side(*verdicts),
        refused=refused,
    )


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
