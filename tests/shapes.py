"""What checks the types and shapes of annotations in tests, at ever fewer calls; installed by ``tests/conftest.py``."""

from collections import Counter
from collections.abc import Callable
from functools import cache, partial, wraps
from inspect import isfunction
from re import sub
from types import CodeType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import _decorator, config

checked: Callable[..., Any] = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""A whole number passes for a float, as for other type checkers."""

_whole, _calls, _test = jaxtyping.jaxtyped, Counter[CodeType](), [""]


def begin(test: str) -> None:
    """Count calls anew where ``test`` is another one than before."""
    if test != _test[0]:
        _test[0] = test
        _calls.clear()


def _jaxtyped(function: Any = None, *, typechecker: Any) -> Any:
    """As jaxtyping's own, but of a function's calls within a test the first, second, fourth, eighth and so on are checked.

    A check takes longer than most functions.
    """
    if function is None:
        return partial(_jaxtyped, typechecker=typechecker)
    if not isfunction(function):
        return _whole(function, typechecker=typechecker)  # which comes back here with the functions within
    # beartype knows Self only in classes that it decorates, and fails on a variable whose default is Any (Python 3.13).
    for name, hint in function.__annotations__.items():
        function.__annotations__[name] = sub(r"\b(Self|StateT)\b", "object", hint) if isinstance(hint, str) else hint
    checking = cache(lambda: _whole(function, typechecker=typechecker))  # made when it is needed: most functions are not

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if config.jaxtyping_disable:
            return function(*args, **kwargs)
        _calls[function.__code__] += 1
        count = _calls[function.__code__]
        if count & (count - 1):
            return function(*args, **kwargs)
        return checking()(*args, **kwargs)

    return call


jaxtyping.jaxtyped = _decorator.jaxtyped = _jaxtyped
