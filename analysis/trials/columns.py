"""What stands in each column of the table of trials: meaning, unit, which way is better, and the statistic it comes from."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from study.config import setting_meanings
from study.schema import FRACTION, SPLITS, Better, Quantity

_IDENTIFIER = "identifier"
# Of each replicate, beside settings and what was measured.
OF_REPLICATE = (
    Quantity(name="study", meaning="the study's name"),
    Quantity(name="trial_key", meaning="names the training: a hash of all settings that change its weights"),
    Quantity(name="cell", meaning="one combination of levels, one from each factor"),
    Quantity(
        name="phase", meaning="search (tuning), confirm (the replicate), short (the winner at a share of the epochs)"
    ),
    Quantity(name="replicate", meaning="replicate r trains the winner of block r", unit=_IDENTIFIER),
    Quantity(name="number", meaning="number of the trial in its search; else that of the winner", unit=_IDENTIFIER),
    Quantity(name="seed", meaning="the root of initial weights, data order and augmentation", unit=_IDENTIFIER),
    Quantity(name="state", meaning="how training ended: completed, collapsed, diverged, pruned, failed"),
    Quantity(name="reason", meaning="why it did not complete; empty if it did"),
    Quantity(name="search_block", meaning="independent repetition with its own split and searches", unit=_IDENTIFIER),
    Quantity(name="depth", meaning="the network's number of layers, as its paper counts them", unit="layers"),
    Quantity(name="width", meaning=setting_meanings()["width"], unit="channels"),
    Quantity(name="epochs", meaning="epochs that were trained", unit="epochs"),
    Quantity(name="params", meaning="parameters that are trained", unit="trained parameters"),
    Quantity(name="flops", meaning="of one forward pass; a multiply-add is two", unit="FLOPs an image"),
    Quantity(name="train_seconds", meaning="time of a worker in training", unit="s"),
    Quantity(name="measure_seconds", meaning="time of a worker in measuring", unit="s"),
    Quantity(name="defaulted", meaning="whether no search trial had completed, so that the default was trained"),
    Quantity(name="boundary", meaning="tuned settings whose value lies in the outer tenth of their range"),
)
_SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}
_NAMES: dict[str, tuple[str, str, Better]] = {
    "accuracy": ("accuracy", FRACTION, "higher"),
    "loss": ("mean cross-entropy", "nat", "lower"),
}
_SUFFIXES = {
    "": "at the last epoch",
    "_best": "at the epoch of the least validation loss",
    "_bn_reestimated": "at the last epoch, batch norm's running statistics estimated anew",
}
METRICS = tuple(
    Quantity(
        name=f"{split}/{name}{suffix}",
        meaning=f"{words} on {_SPLIT_WORDS[split]} images {when}",
        unit=unit,
        better=better,
    )
    for suffix, when in _SUFFIXES.items()
    for split in SPLITS
    for name, (words, unit, better) in _NAMES.items()
)
_LAST = 10
# What others report of a whole training, from a curve: where validation is on the test images, theirs to the letter.
OF_CURVES = (
    Quantity(
        name="val/accuracy_highest",
        meaning="highest accuracy on validation images of any epoch",
        unit=FRACTION,
        better="higher",
    ),
    Quantity(
        name=f"val/accuracy_last{_LAST}",
        meaning=f"mean accuracy on validation images over the last {_LAST} epochs",
        unit=FRACTION,
        better="higher",
    ),
)
CURVE_OUTCOMES: dict[str, Callable[[list[float]], float]] = {
    OF_CURVES[0].name: max,
    OF_CURVES[1].name: lambda curve: sum(curve[-_LAST:]) / len(curve[-_LAST:]),
}
RECORDED = {quantity.name: quantity for quantity in (*OF_REPLICATE, *METRICS, *OF_CURVES)}


def of_setting(column: str, name: str) -> Quantity:
    """The column of a factor or tuned setting; one that is no setting of a training is a keyword of the network."""
    meaning = setting_meanings().get(name, f"{name}, as it is given to the network")
    return Quantity(name=column, meaning=meaning, unit="as configured")


def of_metric(name: str) -> Quantity:
    """A metric that is not among ``RECORDED``: of a training by another version."""
    return Quantity(name=name, meaning="a metric that training recorded")


def of_estimate(name: str, statistic: str, known: Iterable[Quantity]) -> Quantity:
    """An estimate of ``statistic``, whose quantities are ``known``; there are none where its module was not imported."""
    for quantity in known:
        pattern = re.escape(quantity.name).replace(r"\{layer\}", r"(?P<layer>\d+)")
        if found := re.fullmatch(pattern, name):
            meaning = quantity.meaning.format(**found.groupdict()) if found.groupdict() else quantity.meaning
            return replace(quantity, name=name, meaning=meaning)
    unit = "natural logarithm" if name.endswith("_log") else "of the statistic"
    return Quantity(name=name, meaning=f"an estimate of the statistic {statistic}", unit=unit, statistic=statistic)


def with_error(quantity: Quantity) -> dict[str, Quantity]:
    """By column: an estimate, its standard error, and whether its estimator converged."""
    name, statistic = quantity.name, quantity.statistic
    error = Quantity(
        name=f"{name}_stderr", meaning=f"standard error of {name}", unit=quantity.unit, statistic=statistic
    )
    sound = Quantity(
        name=f"{name}_converged", meaning=f"whether the estimator of {name} converged", statistic=statistic
    )
    return {each.name: each for each in (quantity, error, sound)}
