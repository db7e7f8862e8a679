"""The list of mutants fits the source: each fault can still be planted, each test still exists."""

import re
from pathlib import Path

import pytest
from mutants import MUTANTS, ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_planted(mutant):
    source = (ROOT / "jaxrl_cb" / mutant.file).read_text()
    assert source.count(mutant.old) == 1
    assert mutant.new not in source or mutant.new in mutant.old
    test_file, _, words = mutant.tests.partition(" ")
    names = re.findall(r"def (test_\w+)", (Path(__file__).parent / test_file).read_text())
    for word in words.split(" or "):
        assert any(word in name for name in names), word
