"""The README of a published study, ten lines: what was asked, what was found, hours, hardware, how to run it again."""

from collections.abc import Mapping
from typing import Any

from analysis.inputs import Inputs
from analysis.report.by_study import effect_of
from analysis.report.headline import answer, control_word, facts
from analysis.tables.build import build_table
from analysis.words.rows import Row
from analysis.words.wording import listed, outcome_text
from search_spaces import Spec


def readme(inputs: Inputs, session: Mapping[str, Any], folder: str, progress: str = "") -> str:
    """Markdown. ``session``: what the study ran with last; ``folder``: where it is published, as commands name it.

    ``progress``: how far a study is that has not ended, which then has no verdict here; empty for one that has.
    """
    spec = inputs.spec
    known = {fact.name: fact.text for fact in facts(inputs)}
    if progress:
        found = f"nothing yet: {progress} are done, and a verdict is given at the end."
        controls = "judged at the end."
        here = "The ledger (compressed)"
    else:
        told = "; ".join(map(_found, build_table(inputs, "claims").to_pylist()))
        found = f"{answer(inputs.findings)} {told}. Positive speaks for a claim; each in a sentence: report.html."
        controls = f"A/A control {control_word(inputs)}; {_assay(inputs)}."
        here = (
            "[report.html](report.html), [tables](tables) (Parquet; those that are not large as CSV too), "
            "[figures](figures), the ledger (compressed)"
        )
    lines = {
        "Asked": _asked(spec),
        "Of": f"{networks_text(spec)}, on {'; '.join(data_texts(session)) or 'data of which nothing is known'}.",
        "Design": design_text(spec),
        "Found": found,
        "Controls": controls,
        "Claims": known.get("Claims", "none fixed.").replace("As fixed on", "fixed on"),
        "Spent": f"{known['Cost'].rstrip('.')}. {machine_text(session)}.",
        "Again": f"`fmm-study run {folder}/specification.yaml` trains it anew; `fmm-study report {folder}` makes tables, "
        f"figures and report from what is here, without data. {here}, claims.json, provenance.json; no weights, no images.",
    }
    return f"# {spec.title or spec.name}\n\n" + "".join(f"- **{name}**: {text}\n" for name, text in lines.items())


def networks_text(spec: Spec) -> str:
    """``ResNet of depth 8 and 14, width 8, 8 epochs``: what a specification trains."""
    network = (_levels(spec, "network") or "cifar_resnet").replace("cifar_resnet", "ResNet")
    parts = [f"{name} {told}" for name in ("depth", "width") if (told := _levels(spec, name))]
    epochs = _levels(spec, "epochs")
    return f"{network} of {', '.join([*parts, f'{epochs} epochs'] if epochs else parts)}"


def data_texts(session: Mapping[str, Any]) -> list[str]:
    """Each dataset of a session: ``digits (1,437 images to train and validate on, 360 to test, 1x8x8, 10 classes)``."""
    return [
        f"{name} ({held['num_pool']:,} images to train and validate on, {held['num_test']:,} to test, "
        f"{'x'.join(map(str, held['image_shape']))}, {held['num_classes']} classes)"
        for name, held in session.get("datasets", {}).items()
    ]


def design_text(spec: Spec) -> str:
    """Cells, blocks and search of a study, and the level of its claims."""
    blocks = (
        f"{listed(spec.looks)} blocks, as far as a claim needs them" if spec.sequential else f"{spec.blocks} blocks"
    )
    return (
        f"{len(list(spec.cells()))} cells x {blocks}; each cell is tuned in each block by "
        f"{spec.budget.search_trials} trials; claims at {spec.alpha:g} together."
    )


def machine_text(session: Mapping[str, Any]) -> str:
    """What a session ran on: processor or GPU, Python, torch."""
    device, cpu = session.get("device", "cpu"), session.get("cpu", "an unknown processor")
    versions = [f"Python {session['python']}"] if "python" in session else []
    versions += [f"{name} {version}" for name, version in session.get("packages", {}).items() if name == "torch"]
    return ", ".join([cpu if device == "cpu" else f"{device} ({cpu})", *versions])


def _found(row: Row) -> str:
    """``C2 refuted (test accuracy -0.19 pp [-1.11, 0.74])``: a row of the claims table, by the comparison that decides."""
    effect = effect_of(row)
    shown = f"{outcome_text(row['outcome'])} {effect}" if effect else row["why"]
    return f"{row['claim']} {row['verdict']} ({shown})"


def _asked(spec: Spec) -> str:
    claims = [f"{name}, {claim.text}" for name, claim in sorted(spec.all_claims.items())]
    return f"{'; '.join(claims) or 'effects alone, no claim'}."


def _assay(inputs: Inputs) -> str:
    if not inputs.assay:
        return "no difference is declared that must be seen"
    seen = [result.seen for result in inputs.assay]
    return f"the known difference is {'seen' if all(seen) else 'not seen'}"


def _levels(spec: Spec, name: str) -> str:
    levels = spec.levels_of(name) if name in spec.factor_names() else [spec.fixed.get(name)]
    return listed(dict.fromkeys(level for level in levels if level is not None))
