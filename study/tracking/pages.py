"""Ready pages of MLflow's web interface: cells compared, their replicates in groups and as a table, one block side by side.

The interface restores columns, filter, grouping and charts from an experiment tag ``mlflow.sharedViewState.<key>`` (what
its *Share* button writes) when the address names the key. Read from the interface of MLflow 3.17; where a later one
does not know a part of it, the plain run table opens.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from search_spaces import FloatRange, Spec
from study.tracking.runs import outcomes

CELLS, GROUPS, REPLICATES = "cells", "groups", "replicates"
NOTE = "mlflow.note.content"
_LABEL = "label"
_CURVES = ("epoch/val_accuracy", "epoch/val_loss", "epoch/train_loss")
_SUMMARIES = "tags.phase = 'summary'"
_CONFIRMED = "tags.phase = 'confirm' and tags.superseded = 'no'"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Where a study is in a store, for ``addresses``.

    ``block``: run ids, one per cell. ``has_summaries``: of its cells. ``is_whole``: it was written to its end, by this version
    and of a ledger like this one.
    """

    experiment_id: str
    block: list[str]
    has_summaries: bool
    is_whole: bool


def experiment_tags(spec: Spec) -> dict[str, str]:
    """Tags of a study's experiment: what kind it is, what it is about, and the ready pages."""
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": "test/accuracy",
        NOTE: spec.title or spec.name,
        f"mlflow.sharedViewState.{CELLS}": _packed(_cells_page(spec)),
        f"mlflow.sharedViewState.{GROUPS}": _packed(_groups_page(spec)),
        f"mlflow.sharedViewState.{REPLICATES}": _packed(_replicates_page(spec)),
    }


def addresses(base: str, shown: Shown, token: str = "") -> dict[str, str]:
    """What to show -> its address on the server at ``base``, which answers to ``token`` if it is ours."""
    start = f"{base.rstrip('/')}/{f'?token={token}' if token else ''}#"
    home = f"{start}/experiments/{quote(shown.experiment_id)}/runs?"
    common = {"workflowType": "machine_learning"}

    def page(key: str, mode: str) -> str:
        return home + urlencode({"viewStateShareKey": key, "compareRunsMode": mode} | common)

    runs = {"runs": json.dumps(shown.block), "experiments": json.dumps([shown.experiment_id])}
    return {
        # of a study that runs for the first time there are none
        **({"cells compared": page(CELLS, "CHART")} if shown.has_summaries else {}),
        "replicates by cell": page(GROUPS, "CHART"),
        "confirmed replicates": page(REPLICATES, "TABLE"),
        "one block side by side": f"{start}/compare-runs?{urlencode(runs | common)}",
    }


def _cells_page(spec: Spec) -> dict[str, Any]:
    """Charts of the cells' own runs, among them what tuning chose; as a table, the same beside the factors."""
    ranges = [name for name in spec.nuisance if isinstance(spec.widest(name), FloatRange)]
    tuned = {"Tuned values, median of the winners": [_chart("BAR", f"tuned/{name}") for name in ranges]}
    return {
        "searchFilter": _SUMMARIES,
        "orderByKey": "tags.`order`",
        "orderByAsc": True,
        "groupBy": None,
        **_columns(
            [*outcomes(spec), "num_completed", "num_collapsed", "num_diverged"],
            [*spec.factor_names(), *spec.nuisance],
            tags=(),
        ),
        **_charts(spec, tuned),
    }


def _groups_page(spec: Spec) -> dict[str, Any]:
    """Charts of the means of confirmed replicates, grouped by cell by the interface itself: also while a study runs."""
    return {
        "searchFilter": _CONFIRMED,
        # the interface loads 100 runs at a time: whole blocks, never the best runs
        "orderByKey": "tags.`block`",
        "orderByAsc": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": _LABEL}]},
        **_charts(spec, {}),
    }


def _charts(spec: Spec, further: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Accuracy and what claims are about, ``further`` sections, one outcome against the other, learning curves."""
    accuracy, *others = outcomes(spec)
    against = [{"xaxis": {"key": accuracy, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}} for y in others]
    sections = {
        "Outcomes": [_chart("BAR", name) for name in (accuracy, *others)],
        **further,
        "Accuracy against the other outcomes": [_chart("SCATTER", "") | axes for axes in against],
        "Learning curves": [_line(name) for name in _CURVES],
    }
    return {
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
            for name, charts in sections.items()
            if charts
        ],
        "compareRunCharts": [
            {**chart, "uuid": f"{name} {i}", "metricSectionId": name}
            for name, charts in sections.items()
            for i, chart in enumerate(charts)
        ],
        # so that the interface adds no sections of its own
        "isAccordionReordered": True,
    }


def _replicates_page(spec: Spec) -> dict[str, Any]:
    metrics, settings = [*outcomes(spec), "val/accuracy", "train_seconds"], [*spec.factor_names(), *spec.nuisance]
    return {
        "searchFilter": _CONFIRMED,
        # by name, so that the replicates of a cell stand together
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "groupBy": None,
        **_columns(metrics, settings, tags=["state", "boundary"]),
    }


def _columns(metrics: Iterable[str], params: Iterable[str], tags: Iterable[str]) -> dict[str, Any]:
    kinds = {"metrics": metrics, "params": params, "tags": tags}
    columns = [f"{kind}.`{name}`" for kind, names in kinds.items() for name in names]
    widths = {column: min(150, max(90, 8 * len(column) - 60)) for column in columns}
    return {"selectedColumns": columns, "columnOrder": columns, "columnWidths": widths}


def _line(metric: str) -> dict[str, Any]:
    scale = "log" if metric.endswith("loss") else "linear"
    scales = {"xAxisScaleType": "linear", "scaleType": scale, "range": {}, "xAxisKey": "step"}
    smoothing = {"lineSmoothness": 0, "useGlobalLineSmoothing": True, "useGlobalXaxisKey": True}
    axes = {"yAxisKey": "metric", "yAxisExpressions": [], "selectedXAxisMetricKey": "", "ignoreOutliers": False}
    return _chart("LINE", metric) | {"selectedMetricKeys": [metric]} | scales | smoothing | axes


def _chart(kind: str, metric: str, num_runs: int = 100) -> dict[str, Any]:
    return {"type": kind, "metricKey": metric, "runsCountToCompare": num_runs, "deleted": False, "isGenerated": False}


def _packed(state: Mapping[str, Any]) -> str:
    """As the interface packs it: zlib, base64, a prefix."""
    data = zlib.compress(json.dumps(state).encode(), 9)
    return "deflate;" + base64.b64encode(data).decode()
