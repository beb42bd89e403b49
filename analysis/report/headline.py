"""What belongs on the first screen of a report beside the claims: what to trust, what failed, what it cost."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.claims.findings import Finding
from analysis.effects.readings import POOLED
from analysis.effects.strata import shown_strata
from analysis.inputs import Inputs
from analysis.tables.cells import boundary_counts
from analysis.trials.arms import arm_name
from analysis.trials.table import rows_of
from analysis.words.spending import spent_words
from analysis.words.wording import level_text, levels_text

_ACCURACY = "test/accuracy"
_VERDICTS = ("supported", "refuted", "undecided", "no verdict")
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
    rows = rows_of(inputs.trials, ("phase", "state", "epochs", "train_seconds", "measure_seconds"))
    confirm = rows_of(inputs.trials, phase="confirm")
    return [
        *_progress(inputs, rows, confirm),
        *_claims(inputs),
        *_control(inputs),
        _assay(inputs),
        _baseline(inputs),
        _failures(inputs, confirm),
        _boundary(inputs, confirm),
        _cost(inputs, rows),
    ]


def answer(claims: Sequence[Finding]) -> str:
    """How the claims ended, in a sentence: ``Of 3 claims 1 is supported (C4) and 2 are undecided (C2, C3).``"""
    ended: dict[str, list[str]] = {}
    several = len({claim.dataset for claim in claims}) > 1
    for claim in claims:
        ended.setdefault(claim.verdict, []).append(f"{claim.name} on {claim.dataset}" if several else claim.name)
    verdicts = [verdict for verdict in _VERDICTS if verdict in ended]
    texts = []
    for verdict in verdicts:
        num = len(ended[verdict])
        have = ("has" if num == 1 else "have") if verdict == "no verdict" else ("is" if num == 1 else "are")
        texts.append(f"{num} {have} {verdict} ({', '.join(ended[verdict])})")
    what = f"{len(claims)} claims" + (" and datasets" if several else "")
    if len(claims) > 1 and len(texts) == 1:
        return f"All {what}{texts[0].removeprefix(str(len(claims)))}."
    if len(claims) == 1:
        return f"The one claim{texts[0].removeprefix('1')}."
    return f"Of {what} {' and '.join(filter(None, [', '.join(texts[:-1]), texts[-1]]))}." if texts else ""


def control_word(inputs: Inputs) -> str:
    """How the A/A control ended, in two words."""
    inside = [result.inside for result in inputs.control]
    if not inside:
        return "not planned"
    if False in inside:
        return "outside its margin"
    return "not run" if None in inside else "inside its margin"


def total_spent(inputs: Inputs) -> str:
    """All workers' time, ``2.3 h of worker time``, and what it means in GPU hours and money."""
    rows = rows_of(inputs.trials, ("train_seconds", "measure_seconds"))
    seconds = sum(row["train_seconds"] + row["measure_seconds"] for row in rows)
    return f"{spent(seconds)} of worker time{_in_devices(inputs, seconds)}"


def _progress(inputs: Inputs, rows: list[dict[str, Any]], confirm: list[dict[str, Any]]) -> Iterable[Fact]:
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
        text = (
            f"{words[:1].upper()}{words[1:]}." if words else f"As fixed on {held['since']} ({held['digest']}){began}."
        )
        yield Fact(name="Claims", text=text, warns=bool(words))
    if inputs.spec.sequential:
        looks: dict[int, list[str]] = {}
        for judgement in inputs.judgements:
            looks.setdefault(judgement.look, []).append(f"{judgement.name} {judgement.verdict}")
        texts = [f"after {inputs.spec.looks[look - 1]} blocks {', '.join(looks[look])}" for look in sorted(looks)]
        planned = ", ".join(map(str, inputs.spec.looks))
        yield Fact(name="Looks", text=f"Planned at {planned} blocks; {'; '.join(texts) or 'none taken yet'}.")


def _control(inputs: Inputs) -> Iterable[Fact]:
    results = inputs.control
    for result in results:
        yield Fact(name="A/A control", text=_after_colon(result.sentence()), warns=not result.inside)
    if not results:
        yield Fact(name="A/A control", text="None in this study: no verdict can rest on it.", warns=True)


def _assay(inputs: Inputs) -> Fact:
    if not inputs.assay:
        return Fact(name="Assay sensitivity", text="Not in this study: no cells without skips (merge none) beside add.")
    text = " ".join(result.sentence() for result in inputs.assay)
    return Fact(name="Assay sensitivity", text=text, warns=not all(result.seen for result in inputs.assay))


def _baseline(inputs: Inputs) -> Fact:
    """Test accuracy of what the control's reference is, pooled and by stratum."""
    effects = inputs.effects.to_pylist()
    strata = shown_strata(effects)
    texts = []
    for row in effects:
        shown = strata[row["arm"], row["reference"], row["dataset"]]
        if (row["role"], row["outcome"]) != ("control", _ACCURACY) or row["stratum"] not in shown:
            continue
        if row["mean_reference"] is None:
            continue
        mean = level_text(_ACCURACY, row["mean_reference"])
        if row["stratum"] == POOLED:
            texts.append(
                f"{levels_text(row['reference'])} on {row['dataset']}: {mean} test accuracy, n = {row['n_pairs']}"
            )
        else:
            texts.append(f"{shown[row['stratum']]} {mean}")
    return Fact(name="Baseline", text=f"{'; '.join(texts)}." if texts else "Not measured yet.")


def _failures(inputs: Inputs, confirm: list[dict[str, Any]]) -> Fact:
    failed: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in confirm:
        arm = arm_name(inputs.spec, row)
        total[arm] += 1
        failed[arm] += row["state"] in ("collapsed", "diverged", "failed")
    texts = [f"{arm} {failed[arm]} of {total[arm]}" for arm in total if failed[arm]]
    sound = [arm for arm in total if not failed[arm]]
    none = f"none in {len(sound)} {'other ' if texts else ''}arms ({sum(total[arm] for arm in sound)} trainings)"
    if not total:
        return Fact(name="Failures by arm", text="Nothing confirmed yet.")
    text = "; ".join(texts + ([none] if sound else []))
    return Fact(
        name="Failures by arm", text=f"{text[:1].upper()}{text[1:]}." if not texts else f"{text}.", warns=bool(texts)
    )


def _boundary(inputs: Inputs, confirm: list[dict[str, Any]]) -> Fact:
    counts = boundary_counts(confirm)
    if not counts:
        return Fact(name="Boundary flags", text="No winner lies in the outer tenth of a searched range.")
    texts = [f"{name} {num} of {len(confirm)}" for name, num in counts.most_common()]
    arms: dict[str, list[dict[str, Any]]] = {}
    for row in confirm:
        arms.setdefault(arm_name(inputs.spec, row), []).append(row)
    worst = [
        f"{arm} ({name} {num} of {len(rows)})"
        for arm, rows in arms.items()
        for name, num in boundary_counts(rows).items()
        if num >= _MOST * len(rows)
    ]
    text = f"Winners in the outer tenth of a range: {', '.join(texts)}."
    text += f" Half or more of an arm's: {', '.join(worst)}." if worst else ""
    return Fact(name="Boundary flags", text=text, warns=bool(worst))


def _cost(inputs: Inputs, rows: list[dict[str, Any]]) -> Fact:
    """Time of workers, not of the clock on the wall."""
    measure = sum(row["measure_seconds"] for row in rows)
    train: dict[str, float] = defaultdict(float)
    num = Counter(row["phase"] for row in rows)
    for row in rows:
        train[row["phase"]] += row["train_seconds"]
    short = f"shortened {spent(train['short'])} ({num['short']:,} trainings), " if num["short"] else ""
    epochs = sum(row["epochs"] for row in rows)
    text = (
        f"{total_spent(inputs)}: search {spent(train['search'])} "
        f"({num['search']:,} trials), confirm {spent(train['confirm'])} ({num['confirm']:,} trainings), {short}"
        f"measuring {spent(measure)}; {epochs:,} epochs."
    )
    return Fact(name="Cost", text=text)


def _in_devices(inputs: Inputs, seconds: float) -> str:
    """On one core a trial, without a price, worker time has said it all."""
    told = inputs.spec.resources.gpus or inputs.price is not None
    return f", {spent_words(seconds, inputs.spec.resources, inputs.price)}" if told else ""


def spent(seconds: float) -> str:
    """``2.3 h``, below an hour ``8.4 min``."""
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _after_colon(text: str) -> str:
    head, _, tail = text.partition(": ")
    return f"{head.removeprefix('A/A control ')}: {tail}"
