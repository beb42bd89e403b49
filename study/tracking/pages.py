"""Ready pages of MLflow's web interface: a comparison of cells, the table of confirmed replicates, one block side by side.

The interface restores columns, filter, grouping and charts from an experiment tag ``mlflow.sharedViewState.<key>`` (what
its *Share* button writes) when the address names the key. Read from the interface of MLflow 3.17; where a later one
does not know a part of it, the plain run table opens.
"""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from search_spaces import Spec
from study.tracking.runs import outcomes

CELLS, REPLICATES = "cells", "replicates"
_LABEL = "label"
_CURVES = ("epoch/val_accuracy", "epoch/val_loss", "epoch/train_loss")
_CONFIRMED = "tags.phase = 'confirm' and tags.superseded = 'no'"


def experiment_tags(spec: Spec, labels: Iterable[str]) -> dict[str, str]:
    """Tags of a study's experiment: what kind it is, what it is about, and the ready pages. ``labels``: its cells'."""
    return {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.experiment.primaryMetric.name": "test/accuracy",
        "mlflow.note.content": spec.title or spec.name,
        f"mlflow.sharedViewState.{CELLS}": _packed(_cells_page(spec, labels)),
        f"mlflow.sharedViewState.{REPLICATES}": _packed(_replicates_page(spec)),
    }


def addresses(base: str, experiment_id: str, run_ids: Sequence[str], token: str = "") -> dict[str, str]:
    """What to show -> its address on the server at ``base``, which answers to ``token`` if it is ours.

    ``run_ids``: what the side-by-side page compares.
    """
    start = f"{base.rstrip('/')}/{f'?token={token}' if token else ''}#"
    home = f"{start}/experiments/{quote(experiment_id)}/runs?"
    common = {"workflowType": "machine_learning"}
    cells = {"viewStateShareKey": CELLS, "compareRunsMode": "CHART"}
    replicates = {"viewStateShareKey": REPLICATES, "compareRunsMode": "TABLE"}
    runs = {"runs": json.dumps(list(run_ids)), "experiments": json.dumps([experiment_id])}
    return {
        "cells compared": home + urlencode(cells | common),
        "confirmed replicates": home + urlencode(replicates | common),
        "one block side by side": f"{start}/compare-runs?{urlencode(runs | common)}",
    }


def _cells_page(spec: Spec, labels: Iterable[str]) -> dict[str, Any]:
    """Charts of means by cell: accuracy and what claims are about, one against the other, then learning curves."""
    accuracy, *others = outcomes(spec)
    against = [{"xaxis": {"key": accuracy, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}} for y in others]
    sections = {
        "Outcomes": [_chart("BAR", name) for name in (accuracy, *others)],
        "Accuracy against the other outcomes": [_chart("SCATTER", "", num_runs=100) | axes for axes in against],
        "Learning curves": [_line(name) for name in _CURVES],
    }
    return {
        "searchFilter": _CONFIRMED,
        # the interface loads 100 runs at a time: whole blocks, never the best runs
        "orderByKey": "tags.`block`",
        "orderByAsc": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": _LABEL}]},
        "groupsExpanded": {f"tag.{_LABEL}.{label}": False for label in labels},
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
    metrics = [f"metrics.`{name}`" for name in (*outcomes(spec), "val/accuracy", "train_seconds")]
    settings = [f"params.`{name}`" for name in (*spec.factor_names(), *spec.nuisance)]
    columns = [*metrics, *settings, "tags.`state`", "tags.`boundary`"]
    return {
        "searchFilter": _CONFIRMED,
        # by name, so that the replicates of a cell stand together
        "orderByKey": "tags.`mlflow.runName`",
        "orderByAsc": True,
        "groupBy": None,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {column: max(90, 8 * len(column) - 60) for column in columns},
    }


def _line(metric: str) -> dict[str, Any]:
    scale = "log" if metric.endswith("loss") else "linear"
    scales = {"xAxisScaleType": "linear", "scaleType": scale, "range": {}, "xAxisKey": "step"}
    smoothing = {"lineSmoothness": 0, "useGlobalLineSmoothing": True, "useGlobalXaxisKey": True}
    axes = {"yAxisKey": "metric", "yAxisExpressions": [], "selectedXAxisMetricKey": "", "ignoreOutliers": False}
    return _chart("LINE", metric) | {"selectedMetricKeys": [metric]} | scales | smoothing | axes


def _chart(kind: str, metric: str, num_runs: int = 20) -> dict[str, Any]:
    return {"type": kind, "metricKey": metric, "runsCountToCompare": num_runs, "deleted": False, "isGenerated": False}


def _packed(state: Mapping[str, Any]) -> str:
    """As the interface packs it: zlib, base64, a prefix."""
    data = zlib.compress(json.dumps(state).encode(), 9)
    return "deflate;" + base64.b64encode(data).decode()
