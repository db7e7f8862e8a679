"""SIGKILL at named points of a start, a save and a resume (see `kill_campaign.py`)."""

import pytest
from kill_campaign import CONFIGS, POINTS, Campaign


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("points"))


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_at_a_named_point_becomes_the_same(campaign, point):
    name = next(iter(CONFIGS))
    campaign.point(name, point, campaign.reference(name)[0])
    assert campaign.rejected == 0
