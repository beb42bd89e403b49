"""A study that was judged by earlier rules: which of its verdicts are others today, and by which rule.

A table of claims says in its metadata by which rules it was made. One of earlier rules is kept when a report writes the table
anew, so that ``compare`` can still show both.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from analysis.claims.judgement import Judgement
from search_spaces import Claim
from study.atomic import replacing

# 2: failures count in accuracy, refutation at a fixed level, families, a control of three results, a declared assay.
RULES = "2"
CLAIMS, EARLIER = "claims.parquet", "claims_earlier.parquet"
Change = tuple[str, str, str, str]


def keep_earlier(tables: Path) -> None:
    """Keep the claims table of a study's ``tables`` if earlier rules made it. Call it before the tables are written."""
    if _is_earlier(tables / CLAIMS):
        with replacing(tables / EARLIER) as partial:
            shutil.copyfile(tables / CLAIMS, partial)


def earlier_verdicts(tables: Path) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Claim and dataset -> its row in the claims table of earlier rules; empty where there is none."""
    path = next((tables / name for name in (CLAIMS, EARLIER) if _is_earlier(tables / name)), None)
    rows = pq.read_table(path).to_pylist() if path else []
    return {(row["claim"], row["dataset"]): row for row in rows}


def changed_verdicts(
    judgements: Sequence[Judgement], earlier: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[Change]:
    """Claim and dataset, verdict then, verdict now, and the rules that make the difference; equal verdicts are left out."""
    found: list[Change] = []
    for judgement in judgements:
        row = earlier.get((judgement.name, judgement.dataset))
        if row and row["verdict"] != judgement.verdict:
            rules = "; ".join(dict.fromkeys(_rules(judgement, row))) or "refutation is tested at a fixed level"
            found.append((f"{judgement.name} on {judgement.dataset}", row["verdict"], str(judgement.verdict), rules))
    return found


def _rules(judgement: Judgement, earlier: Mapping[str, Any]) -> Iterator[str]:
    """The rules that bear on this judgement and did not on the earlier one."""
    parts, reason = judgement.parts, earlier.get("reason") or ""
    if any(part.failures and "/accuracy" in part.outcome for part in parts):
        yield "failures count in accuracy"
    if isinstance(judgement.claim, Claim) and judgement.claim.arms:
        yield "any arm of a family supports, every one must fall to refute"
    if "opposite sign" in reason:
        yield "another scale bars only support, and only if its own interval excludes zero"
    if any(o.kind == "contradiction" and "lies below zero at" in o.text for part in parts for o in part.obstacles):
        yield "support needs that no stratum lies below zero"
    if any("known difference" in text or "assay" in text for text in (reason, *judgement.controls)):
        yield "assay sensitivity is declared"
    if any("A/A control" in text for text in (reason, *judgement.controls)):
        yield "the A/A control is read on every outcome, and has three results"
    if any(o.kind == "control" for part in parts for o in part.obstacles):
        yield "a claim on a level needs its positive control"
    if any(
        part.images and part.sign_flip and (part.low, part.high) not in (part.images, part.sign_flip) for part in parts
    ):
        yield "the hull of both intervals decides"


def _is_earlier(path: Path) -> bool:
    """Whether ``path`` is a table of claims by other rules than today's; a damaged one is none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return bool(metadata.get(b"rules", b"1") != RULES.encode())
