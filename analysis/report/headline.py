"""What belongs on the first screen of a report beside the claims: what to trust, what failed, what it cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.claims.findings import Finding
from analysis.effects.compare import FAILURES
from analysis.effects.controls import worst_state
from analysis.effects.readings import POOLED
from analysis.effects.table import shown_strata
from analysis.inputs import Inputs
from analysis.tables.cells import boundary_counts
from analysis.trials.table import rows_of
from analysis.words.rows import Rows, grouped, where
from analysis.words.spending import spent_words
from analysis.words.wording import capitalised, level_text, levels_text, listed

_ACCURACY = "test/accuracy"
# verdict -> its verb for one claim, and for several
_VERDICTS = dict.fromkeys(("supported", "refuted", "undecided"), ("is", "are")) | {"no verdict": ("has", "have")}
# An arm most of whose winners lie at a boundary was searched in the wrong range.
_MOST = 0.5


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One line of the first screen; ``warns`` where it should make a reader doubt."""

    name: str
    text: str
    warns: bool = False


def facts(inputs: Inputs) -> list[Fact]:
    """Progress, A/A control, assay sensitivity, baseline, failures, boundary flags and cost of a study as it stands."""
    columns = ("cell", "phase", "state", "boundary", "epochs", "train_seconds", "measure_seconds")
    rows = rows_of(inputs.trials, columns)
    confirm = where(rows, phase="confirm")
    for row in confirm:
        row["arm"] = inputs.heads[row["cell"]]["arm"]
    return [
        *_progress(inputs, confirm),
        *_claims(inputs),
        *_control(inputs),
        _assay(inputs),
        _baseline(inputs),
        _failures(confirm),
        _boundary(confirm),
        _cost(inputs, rows),
    ]


def answer(claims: Sequence[Finding]) -> str:
    """How the claims ended, in a sentence: ``Of 3 claims 1 is supported (C4) and 2 are undecided (C2, C3).``"""
    several = len({claim.dataset for claim in claims}) > 1
    texts = []
    for verdict, (one, more) in _VERDICTS.items():
        names = [f"{c.name} on {c.dataset}" if several else c.name for c in claims if c.verdict == verdict]
        if names:
            texts.append(f"{len(names)} {one if len(names) == 1 else more} {verdict} ({', '.join(names)})")
    what = f"{len(claims)} claims" + (" and datasets" if several else "")
    if len(claims) > 1 and len(texts) == 1:
        return f"All {what}{texts[0].removeprefix(str(len(claims)))}."
    if len(claims) == 1:
        return f"The one claim{texts[0].removeprefix('1')}."
    return f"Of {what} {listed(texts)}." if texts else ""


def control_word(inputs: Inputs) -> str:
    """How the A/A control ended, in a word or two: the worst of its outcomes."""
    return worst_state(inputs.control) or "not planned"


def total_spent(inputs: Inputs) -> str:
    """All workers' time, ``2.3 h of worker time``, and what it means in GPU hours and money."""
    rows = rows_of(inputs.trials, ("train_seconds", "measure_seconds"))
    seconds = sum(row["train_seconds"] + row["measure_seconds"] for row in rows)
    resources, text = inputs.spec.resources, f"{spent(seconds)} of worker time"
    # one core per trial, without a price: worker time says it all
    told = resources.gpus or inputs.price is not None
    return f"{text}, {spent_words(seconds, resources, inputs.price)}" if told else text


def _progress(inputs: Inputs, confirm: Rows) -> Iterable[Fact]:
    spec = inputs.spec
    if spec.joint:  # how many it confirms depends on what it finds
        return
    planned = len(list(spec.cells())) * spec.looks[0] * spec.replicates
    # a sequential study plans more only for the cells that a look has left needed
    planned += sum(num - spec.looks[0] for num in (inputs.course.further if inputs.course else {}).values())
    if len(confirm) < planned:
        text = f"{len(confirm):,} of {planned:,} confirmed replicates are done; the numbers below will change."
        yield Fact(name="Not finished", text=text, warns=True)


def _claims(inputs: Inputs) -> Iterable[Fact]:
    """Since when the claims stand, whether they were changed since, and at which looks they were decided."""
    held, words = inputs.registration, inputs.amendment.words
    if held and inputs.findings:
        began = f", results since {held['confirm_began']}" if held["confirm_began"] else ""
        fixed = f"As fixed on {held['since']} ({held['digest']}){began}."
        text = f"{capitalised(words)}." if words else fixed
        yield Fact(name="Claims", text=text, warns=bool(words))
    if inputs.spec.sequential:
        looks: dict[int, list[str]] = {}
        for judgement in inputs.judgements:
            looks.setdefault(judgement.look, []).append(f"{judgement.name} {judgement.verdict}")
        texts = [f"after {inputs.spec.looks[look - 1]} blocks {', '.join(looks[look])}" for look in sorted(looks)]
        planned = ", ".join(map(str, inputs.spec.looks))
        yield Fact(name="Looks", text=f"Planned at {planned} blocks; {'; '.join(texts) or 'none taken yet'}.")


def _control(inputs: Inputs) -> Iterable[Fact]:
    if not inputs.control:
        yield Fact(name="A/A control", text="None in this study: no verdict can rest on it.", warns=True)
        return
    text = " ".join(capitalised(result.sentence().removeprefix("A/A control ")) for result in inputs.control)
    yield Fact(name="A/A control", text=text, warns=any(result.state != "inside" for result in inputs.control))


def _assay(inputs: Inputs) -> Fact:
    if not inputs.assay:
        return Fact(name="Assay sensitivity", text="This study declares no difference that it must see.")
    text = " ".join(result.sentence() for result in inputs.assay)
    return Fact(name="Assay sensitivity", text=text, warns=not all(result.seen for result in inputs.assay))


def _baseline(inputs: Inputs) -> Fact:
    """Test accuracy of what the control's reference is, pooled and by stratum."""
    effects = inputs.effects.to_pylist()
    strata = shown_strata(effects)
    texts = []
    for row in where(effects, role="control", outcome=_ACCURACY):
        shown = strata[row["arm"], row["reference"], row["dataset"]]
        if row["stratum"] not in shown or row["mean_reference"] is None:
            continue
        mean, where_read = level_text(_ACCURACY, row["mean_reference"]), shown[row["stratum"]]
        if row["stratum"] == POOLED:
            mean = f"{mean} test accuracy, n = {row['n_pairs']}"
            where_read = f"{levels_text(row['reference'])} on {row['dataset']}:"
        texts.append(f"{where_read} {mean}")
    return Fact(name="Baseline", text=f"{'; '.join(texts)}." if texts else "Not measured yet.")


def _failures(confirm: Rows) -> Fact:
    arms = grouped(confirm, "arm")
    failed = {arm: sum(row["state"] in (*FAILURES, "failed") for row in rows) for arm, rows in arms.items()}
    if not arms:
        return Fact(name="Failures by arm", text="Nothing confirmed yet.")
    texts = [f"{arm} {num} of {len(arms[arm])}" for arm, num in failed.items() if num]
    sound = [len(arms[arm]) for arm, num in failed.items() if not num]
    none = f"none in {len(sound)} {'other ' if texts else ''}arms ({sum(sound)} trainings)"
    text = "; ".join(texts + ([none] if sound else []))
    return Fact(name="Failures by arm", text=f"{text if texts else capitalised(text)}.", warns=bool(texts))


def _boundary(confirm: Rows) -> Fact:
    counts = boundary_counts(confirm)
    if not counts:
        return Fact(name="Boundary flags", text="No winner lies in the outer tenth of a searched range.")
    texts = [f"{name} {num} of {len(confirm)}" for name, num in counts.most_common()]
    worst = [
        f"{arm} ({name} {num} of {len(rows)})"
        for arm, rows in grouped(confirm, "arm").items()
        for name, num in boundary_counts(rows).items()
        if num >= _MOST * len(rows)
    ]
    text = f"Winners in the outer tenth of a range: {', '.join(texts)}."
    text += f" Half or more of an arm's: {', '.join(worst)}." if worst else ""
    return Fact(name="Boundary flags", text=text, warns=bool(worst))


def _cost(inputs: Inputs, rows: Rows) -> Fact:
    """Time of workers, not of the clock on the wall."""

    def trained(phase: str, name: str, what: str) -> str:
        held = where(rows, phase=phase)
        return f"{name} {spent(sum(row['train_seconds'] for row in held))} ({len(held):,} {what})"

    parts = [trained("search", "search", "trials"), trained("confirm", "confirm", "trainings")]
    if where(rows, phase="short"):
        parts.append(trained("short", "shortened", "trainings"))
    parts.append(f"measuring {spent(sum(row['measure_seconds'] for row in rows))}")
    epochs = sum(row["epochs"] for row in rows)
    return Fact(name="Cost", text=f"{total_spent(inputs)}: {', '.join(parts)}; {epochs:,} epochs.")


def spent(seconds: float) -> str:
    """``2.3 h``, below an hour ``8.4 min``."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
