"""Two tenants on one CPU: the quiet one keeps its share, because weights say so, whatever the loud one does."""

import pytest

from pytest_infra import CheckFailed, assert_accounted, assert_shares, workload

pytestmark = pytest.mark.infra_requires("cgroup-cpu")


@pytest.fixture
def tenants(infra_cgroup):
    machine = infra_cgroup("tenants")
    return machine.nest("gold", cpu_weight=300), machine.nest("basic", cpu_weight=100)


def test_three_to_one(tenants):
    gold, basic = tenants
    assert_shares({gold: 3, basic: 1})


def test_a_wrong_expectation_is_told_by_its_figures(tenants):
    gold, basic = tenants
    with pytest.raises(CheckFailed, match="gold : basic do not share CPU"):
        assert_shares({gold: 1, basic: 1})


def test_each_pays_for_what_it_used(tenants):
    gold, basic = tenants
    for tenant, cpu_s in ((gold, 0.2), (basic, 0.1)):
        used = workload.result(tenant.run(workload.burn(cpu_s)))["cpu_s"]
        assert_accounted(tenant, cpu_s=used)
