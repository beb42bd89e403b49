"""What a study spends, and the budget at which it stops: counted from its records, in GPU or core hours and money."""

import dataclasses
from pathlib import Path

import pytest
from book import full, inputs_of

from analysis.report.headline import facts, total_spent
from analysis.words.spending import device_hours, spent_words, trial_seconds
from search_spaces import Resources
from study.commands.show import Recorded
from study.commands.start import Purse, allowed_hours
from study.errors import UserError
from study.results.ledger import Contents
from study.results.provenance import note_session
from study.results.sessions import read_sessions

GPU, SHARED, CORES = Resources(gpus=4, data_parallel=4), Resources(gpus=0.25), Resources(cpus=2)


def test_hours_are_of_what_a_trial_holds():
    assert [device_hours(7200, held) for held in (GPU, SHARED, CORES)] == [8, 0.5, 4]
    assert spent_words(7200, GPU, 2.5) == "8.0 GPU hours (20.00 at 2.5 a GPU hour)"
    assert spent_words(900, CORES) == "30.0 core minutes"
    assert trial_seconds([{"train_seconds": 3.0}, {"measure_seconds": 1.5}, {"state": "failed"}]) == 4.5


def test_money_is_hours_at_a_price_and_the_smaller_limit_holds():
    assert allowed_hours(None, max_money=100, price=2.5) == 40
    assert allowed_hours(12, max_money=100, price=2.5) == 12
    assert allowed_hours(None, max_money=None, price=2.5) is None
    for price in (None, 0):
        with pytest.raises(UserError, match="--max-money 5 needs --price"):
            allowed_hours(None, max_money=5, price=price)


def test_a_purse_counts_what_the_ledger_holds_and_what_comes():
    contents = Contents()
    purse = Purse(1, GPU, contents)
    purse.tell({"train_seconds": 800.0})
    assert not purse.is_empty()
    purse.tell({"measure_seconds": 100.0})
    assert purse.is_empty() and purse.words == "1 of 1 GPU hours are spent"
    assert Purse(0, GPU, contents).is_empty()
    endless = Purse(None, GPU, contents)
    endless.tell({"train_seconds": 1e12})
    assert not endless.is_empty()


def test_the_report_tells_hours_of_gpus_and_money():
    inputs = inputs_of(full())
    assert total_spent(inputs) == "1.4 min of worker time"
    priced = dataclasses.replace(inputs, price=60.0)
    assert total_spent(priced) == "1.4 min of worker time, 1.4 core minutes (1.40 at 60 a core hour)"
    (cost,) = (fact for fact in facts(priced) if fact.name == "Cost")
    assert cost.text.startswith(f"{total_spent(priced)}: search")


def test_the_last_price_told_is_the_one(tmp_path: Path):
    for price in (2.0, None, 3.0, None):
        note_session(tmp_path, ["fake"], price=price)
    spec = inputs_of(full()).spec
    held = Recorded(spec=spec, contents=Contents(), sessions=read_sessions(tmp_path), where="")
    assert held.inputs.price == 3.0
    assert "price" not in held.session
