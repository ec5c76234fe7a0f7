"""The fast part of the torture list against a whole server; scripts/torture runs all of it."""
import importlib

import pytest

from conftest import FRUGAL
from torture import FILES
from torture.cases import CASES, Bench

for name in FILES:
    importlib.import_module(f"torture.{name}")


@pytest.fixture(scope="module")
def bench(smollm2):
    running = Bench(FRUGAL, smollm2, full=False)
    yield running
    running.close()


@pytest.mark.parametrize("one", [pytest.param(one, id=f"{one.id}-{one.run.__name__}") for one in CASES if one.fast])
def test_torture(bench, one):
    bench.run(one)
