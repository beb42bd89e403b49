"""Parts of the page of findings that stand behind the claims: failures, smoothness at matched accuracy, datasets, limits."""

from collections.abc import Iterable, Iterator, Sequence

from analysis.report.by_study import (
    DECIDED,
    POOLED_HEADINGS,
    Study,
    datasets_of,
    places,
    pooled_rows,
    pooling_rules,
)
from analysis.report.headline import spent
from analysis.report.readme import data_texts, machine_text, networks_text
from analysis.words.export import markdown_text
from analysis.words.rows import Row, Rows, distinct, grouped, where
from analysis.words.wording import effect_text, listed, outcome_text

# an operator that fails more often is named
MANY = 0.1


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, marked: bool = False) -> list[str]:
    """Lines of a Markdown table without padding. ``marked``: cells hold marks of their own."""
    shown = [row if marked else [markdown_text(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *shown)]


def failed_cells(studies: Sequence[Study]) -> Rows:
    """Rows of the tables of cells, with their place and how many networks failed."""
    columns = places(studies)
    return [
        {**row, "place": columns[study.name, row["dataset"]], "failed": row["n_collapsed"] + row["n_diverged"]}
        for study in studies
        for row in study.read("cells")
        if (study.name, row["dataset"]) in columns
    ]


def size_of(study: Study) -> str:
    """What a study trains, and on how many images of which shape."""
    sizes = {
        name: f" ({held['num_pool'] + held['num_test']:,} images of {'x'.join(map(str, held['image_shape']))})"
        for name, held in study.session.get("datasets", {}).items()
    }
    return f"{networks_text(study.spec)}, on {listed(name + sizes.get(name, '') for name in datasets_of(study))}"


def failures(studies: Sequence[Study]) -> Iterator[str]:
    """Confirmed networks that collapsed or diverged, by operator, depth and study."""
    yield "## Failures by operator and depth"
    yield ""
    columns, cells = places(studies), failed_cells(studies)
    by_arm = {
        key: rows for key, rows in grouped(cells, "arm", "depth").items() if any(row["n_confirm"] for row in rows)
    }
    for (arm, depth), rows in by_arm.items():
        for row in rows:
            if row["failed"] > MANY * row["n_confirm"]:
                yield (
                    f"- `{arm}` at depth {depth} on {row['place']}: {row['failed']} of {row['n_confirm']} trainings fail "
                    f"({row['n_collapsed']} collapse, {row['n_diverged']} diverge)."
                )
    rest = [row for row in cells if row["failed"] <= MANY * row["n_confirm"]]
    failed, trained = (sum(row[name] for row in rest) for name in ("failed", "n_confirm"))
    yield f"- Everywhere else {failed} of {trained} trainings fail."
    yield ""
    yield "A network that fails counts in accuracy with what it reaches; smoothness is that of networks that train."
    yield ""
    shown = []
    for (arm, depth), rows in by_arm.items():
        of = {row["place"]: f"{row['failed']} of {row['n_confirm']}" for row in rows}
        shown.append([arm, str(depth), *(of.get(column, "") for column in columns.values())])
    yield from table(("Arm", "Depth", *columns.values()), shown)


def matched(studies: Sequence[Study]) -> Iterator[str]:
    """Smoothness of the operators less that of addition, where both are equally accurate."""
    yield "## Smoothness at matched accuracy"
    yield ""
    yield (
        "An operator may look smoother because its network is less far trained. Here both networks of a pair are read at one "
        "validation accuracy, the lower one's last minus a point: along trainings of a share and all of the epochs "
        "(*annealed*), or along the one training (*not annealed*). Operator minus addition, so negative is smoother. These "
        "are associations."
    )
    yield ""
    columns = places(studies)
    rows: Rows = []
    for study in studies:
        asked = {
            outcome.name
            for claim in study.spec.claims.values()
            for outcome in claim.outcomes
            if outcome.better == "lower"
        }
        wanted = _merges(study)
        for row in where(study.read("matched_accuracy"), matched_on="val/accuracy", stratum="all"):
            if row["outcome"] in asked and (row["arm"], row["reference"]) in wanted:
                rows.append({**row, "place": columns[study.name, row["dataset"]]})
    if not rows:
        yield "No study has measured it."
        return
    yield f"{_matched_sentence(rows)}"
    yield ""
    shown = []
    for (arm, outcome, place), same in grouped(rows, "arm", "outcome", "place").items():
        by_path = {row["along"].partition(", ")[2]: row for row in same}
        cells = [_matched_cell(by_path.get(path)) for path in ("annealed", "not annealed")]
        shown.append([arm.partition("=")[2], outcome_text(outcome), place, *cells])
    yield from table(("Operator", "Outcome", "On", "Matched, annealed", "Matched, not annealed"), shown)


def _merges(study: Study) -> set[tuple[str, str]]:
    """Arm and reference of the claims that compare operators by a smoothness statistic."""
    rows = study.read("claim_parts")
    return {(row["arm"], row["reference"]) for row in rows if "/" not in row["outcome"] and "merge=" in row["arm"]}


def _matched_sentence(rows: Rows) -> str:
    told = [row for row in rows if row["ci_low"] is not None and row["status"] == "estimated"]
    smoother, less = sum(row["ci_high"] < 0 for row in told), sum(row["ci_low"] > 0 for row in told)
    if not told:
        return (
            f"Of {len(rows)} readings none can be estimated in nine of ten pairs: the arms do not meet at one accuracy."
        )
    return (
        f"Of {len(rows)} readings {len(told)} can be estimated in nine of ten pairs. The operator is surely smoother than "
        f"addition in {smoother or 'none'} of them, surely less smooth in {less or 'none'}, and "
        f"{len(told) - smoother - less or 'none'} leave it open."
    )


def _matched_cell(row: Row | None) -> str:
    if row is None:
        return ""
    if not row["n_pairs"]:
        return f"none of {row['n_not_estimable'] + row['n_excluded']} pairs"
    effect = effect_text(row["outcome"], row["scale"], row["mean"], row["ci_low"], row["ci_high"])
    pairs = row["n_pairs"], row["n_pairs"] + row["n_not_estimable"] + row["n_excluded"]
    return f"{effect}, {pairs[0]} of {pairs[1]} pairs"


def pooled(studies: Sequence[Study]) -> Iterator[str]:
    """What the project's rules say over the datasets, and the reading that they do not let decide."""
    yield "## Over the datasets"
    yield ""
    reasons, rows = pooling_rules(studies), pooled_rows(studies)
    if reasons:
        yield f"By the project's rules there is no verdict over datasets: {'; '.join(reasons)}."
    else:
        names = " ".join(study.name for study in studies)
        yield f"The project's rules judge the claims over these datasets too: `fmm-study compare {names}`."
    if rows:
        yield ""
        yield (
            "The reading, exploratory: the mean of the dataset means, each dataset counting once, with its t "
            "interval, which is wide with so few. Positive speaks for the claim."
        )
        yield ""
        yield from table(POOLED_HEADINGS, rows)
    elif len(studies) == 1:
        yield "There is one dataset so far, and nothing to read together."


def trust(studies: Sequence[Study]) -> Iterator[str]:
    """What each study must show before its claims are believed, and what it cost."""
    yield "## How far to trust it"
    yield ""
    headings = (
        "Study",
        "Trained on",
        "A/A control",
        "Known difference",
        "Claims fixed",
        "Trainings",
        "Worker time",
        "Machine",
    )
    rows = []
    for study in studies:
        claims, trials = study.read("claims"), study.read("trials")
        fixed = study.read("registered")[0]["fixed"].partition(" ")[0].partition("T")[0]
        seconds = sum(row["train_seconds"] + row["measure_seconds"] for row in trials)
        controls = [f"{state} ({listed(distinct(same, 'claim'))})" for state, same in grouped(claims, "aa").items()]
        rows.append(
            [
                study.name,
                "; ".join(data_texts(study.session)),
                "; ".join(controls),
                "; ".join(distinct(claims, "assay")),
                fixed,
                f"{len(trials):,}",
                spent(seconds),
                machine_text(study.session),
            ]
        )
    yield from table(headings, rows)
    yield ""
    yield (
        "The A/A control is addition under another name, tuned apart: *inside* means that it differs by less than the margin, "
        "*inconclusive* that so many pairs cannot tell. The known difference is that of fewer epochs, which a study must see. "
        "Claims were fixed before the first confirmed training (claims.json in each folder)."
    )


def limits(studies: Sequence[Study]) -> Iterator[str]:
    """What the studies cannot say, for their size, tuning, power and data."""
    yield "## Limits"
    yield ""
    specs = [study.spec for study in studies]
    yield (
        f"- **Size**: {'; '.join(dict.fromkeys(size_of(study) for study in studies))}. Nothing here speaks of larger "
        "networks, longer training or other data."
    )
    attentions = sorted({str(level) for spec in specs for level in spec.levels_of("attention")} - {"none"})
    yield f"- **Attention** is {listed(attentions) or 'in none of them'} alone."
    searched = sorted({spec.budget.search_trials for spec in specs})
    winners = [row for study in studies for row in study.read("trials") if row["phase"] == "confirm"]
    flagged = sum(bool(row["boundary"]) for row in winners)
    yield (
        f"- **Tuning**: {listed(map(str, searched))} trials a cell and block. {flagged} of {len(winners)} winners lie in the "
        "outer tenth of a searched range, so a wider search might find better ones."
    )
    blind = [
        f"{row['claim']} on {row['dataset']}"
        for study in studies
        for row in study.read("claims")
        if row["smallest_detectable"] is not None
        and row["margin"] is not None
        and row["smallest_detectable"] > row["margin"]
        and row["verdict"] not in DECIDED
    ]
    if blind:
        yield f"- **Power**: the smallest detectable effect is larger than the margin in {listed(blind)}."
    for study in studies:
        missing = [
            row["claim"]
            for row in study.read("claims")
            if row["verdict"] == "undecided" and row["why"] == "not estimable"
        ]
        if missing:
            on = listed(datasets_of(study))
            yield f"- **Not estimable** on {on}: {listed(missing)}; more blocks alone do not mend that."
        if study.spec.demonstration:
            yield f"- **{study.name} is a demonstration**: images this small are no benchmark of networks."
    if jpeg := [name for study in studies for name in datasets_of(study) if name.endswith("_jpeg")]:
        yield f"- **{listed(jpeg)}**: images encoded anew as JPEG, so accuracies are not those of the original files."
