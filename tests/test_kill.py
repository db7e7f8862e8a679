"""SIGKILL at random moments (see `kill_campaign.py`, which does more of it)."""

from pathlib import Path

import kill_campaign
import pytest
from kill_campaign import CONFIGS, Campaign


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("kills"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_that_is_killed_again_and_again_becomes_the_same(campaign, name):
    campaign.run(name, kills=2)
    assert campaign.rejected == 0


def test_the_campaign_can_fail(tmp_path):
    """Two digests that differ are told apart by name."""
    assert kill_campaign.differing({"a": "1", "b": "2"}, {"a": "1", "c": "2"}) == ["b", "c"]
    assert Path(kill_campaign.__file__).parent == Path(__file__).parent
