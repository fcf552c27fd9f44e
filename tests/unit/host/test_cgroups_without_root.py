"""Without root there are no control groups, whatever somebody else's node of the same name has made.

Planted fault: `names` that looks although the version is 0, seen red.
"""

from panal.host.cgroups import Cgroups


def test_groups_of_another_user_are_not_looked_at(tmp_path):
    (tmp_path / "cpu/panal/n1/100").mkdir(parents=True)
    assert Cgroups(0, "panal/n1", "only root can make control groups", tmp_path).names() == set()
    assert Cgroups(1, "panal/n1", "", tmp_path).names() == {"100"}
