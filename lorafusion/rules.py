"""Rules that a class states as data, `{"num_steps is None": "why not, and what instead"}`: one table, read twice.

The class applies its rules when it is used. The command line reads the same table out of its source, where nothing may
be imported, and refuses a run, or one of many jobs, before any begins. A condition is made of names, constants,
comparisons, `and`, `or`, `not`; nothing else is understood, and nothing is ever executed.
"""

import ast
import operator
from collections.abc import Mapping
from functools import cache
from typing import Any

_COMPARE = {
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def broken(rules: Mapping[str, str], facts: Mapping[str, Any]) -> str | None:
    """The reason of the first rule whose condition holds of ``facts``; None if none does.

    Raises ValueError for a condition that is not understood, KeyError for a name that ``facts`` lacks.
    """
    return next((reason for condition, reason in rules.items() if holds(_parsed(condition), facts)), None)


@cache
def _parsed(condition: str) -> ast.expr:
    return ast.parse(condition, mode="eval").body


def holds(node: ast.expr, facts: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return facts[name]
        case ast.Constant(value=value):
            return value
        case ast.BoolOp(op=op, values=values):
            every = (holds(value, facts) for value in values)  # one after another: the first may guard the next
            return all(every) if isinstance(op, ast.And) else any(every)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not holds(operand, facts)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            return _COMPARE[type(op)](holds(left, facts), holds(right, facts))
    raise ValueError(f"a rule is made of names, constants, comparisons, and, or, not; got {ast.unparse(node)!r}")
