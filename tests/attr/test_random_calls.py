"""Random calls of every front end; each is drawn from one number, by which ``tests.attr.random_calls`` runs it again."""

import pytest

from tests.attr.random_calls import FRONT_ENDS, draw
from tests.attr.random_checks import faults_of

pytestmark = pytest.mark.usefixtures("unchecked")
"""Types are not checked: beartype draws which items it looks at, and Python's random numbers must stay as they are."""
FEW, MANY, AT_ONCE = 40, 5000, 500
ONCE_BROKEN = {
    "MetaKernelShap": (1846, 2293, 2846, 3184, 3728),
    "MetaShapleyValueSampling": (442, 2293),
    "MetaIntegratedGradients": (565, 3259, 3308, 3670),
}


def broken(front_end: str, numbers: range) -> str:
    """What does not hold of the calls of these numbers."""
    found = []
    for number in numbers:
        call = draw(front_end, number)
        faults = faults_of(call)
        if faults:
            found.append("\n    ".join([str(call), *faults]))
    return "\n".join(found)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_some_random_calls(front_end: str) -> None:
    assert not broken(front_end, range(FEW))


@pytest.mark.parametrize("front_end", ONCE_BROKEN)
def test_random_calls_that_once_were_broken(front_end: str) -> None:
    assert not "".join(broken(front_end, range(number, number + 1)) for number in ONCE_BROKEN[front_end])


@pytest.mark.slow
@pytest.mark.parametrize("start", range(FEW, MANY, AT_ONCE))
@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_many_random_calls(front_end: str, start: int) -> None:
    assert not broken(front_end, range(start, min(start + AT_ONCE, MANY)))
