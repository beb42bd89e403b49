"""A training of a network on its splits, as tests of one replicate take it."""

from study.training import Member
from study.training import train as train_member


def train(model, train_split, val_split, config, checkpoint):
    """Train ``model`` in place; yields a ``Progress`` per epoch and at the end the ``Trained``."""
    member = Member(model=model, train_split=train_split, val_split=val_split, config=config, checkpoint=checkpoint)
    yield from train_member(member)
    yield member.trained
