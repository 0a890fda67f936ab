"""Every strategy in every network keeps the contract (contract.py)."""

import pytest

from tests import contract
from tests.cases import backbones, cases, crowded, together

ALWAYS = [
    contract.check_no_leak,
    contract.check_shared_condition,
    contract.check_gradients,
    contract.check_keys,
    contract.check_loading,
    contract.check_deepcopy,
    contract.check_slots,
    contract.check_embedding,
]


def _checks(case):
    yield from ALWAYS
    if case.attn:
        yield contract.check_factored_is_dense
    if not case.conv and ("gate", True) not in case.form:
        yield contract.check_identity_at_init


@pytest.mark.parametrize(
    ("check", "case"),
    [
        pytest.param(check, case, id=f"{case}-{check.__name__.removeprefix('check_')}")
        for case in cases("conv", "attn") + together()
        for check in _checks(case)
    ],
)
def test_contract(check, case):
    check(case)


@pytest.mark.parametrize("backbone", backbones())
def test_compiles(backbone):
    for case in crowded(backbone):
        contract.check_compiles(case)
