"""Who may be compared with whom: values of one metric, on the same data, judged on as many images."""

import math
from collections.abc import Callable, Sequence

from lorafusion.report.columns import Column, direction
from lorafusion.report.groups import Group, Mean, mean

Cohorts = dict[str, list[Group]]  # what tells these groups from the others, '' where all may be compared


def rivals(column: Column, groups: Sequence[Group]) -> Cohorts:
    """The groups that have a value of a metric."""
    having = [group for group in groups if mean_of(column, group)]
    return _told_apart(having, [*_parts(column.key), lambda group: judged(column, group)])


def alike(name: str, groups: Sequence[Group]) -> Cohorts:
    """All groups, by whether their curves of a logged column may be compared."""
    return _told_apart(groups, _parts(name))


def best(column: Column, groups: Sequence[Group]) -> set[int]:
    """The ids of the groups with a column's best mean among their rivals, where these are not all as good."""
    if column.metric is None:
        return set()
    found = set()
    for members in rivals(column, groups).values():
        means = {id(group): value for group in members if math.isfinite(value := value_of(column, group))}
        if len({*means.values()}) > 1:
            top = direction(column)([*means.values()])
            found |= {key for key, value in means.items() if value == top}
    return found


def mean_of(column: Column, group: Group) -> Mean | None:
    return mean(value for run in group.complete if not isinstance(value := column.of(run), str))


def value_of(column: Column, group: Group) -> float:
    """The mean; nan where there is none."""
    found = mean_of(column, group)
    return found.value if found else math.nan


def judged(column: Column, group: Group) -> str:
    """On how many images: 'N = 50,000', also of the validation loss, whose N is always that of its data."""
    numbers = {column.judged(run) for run in group.complete if column.of(run) is not None}
    return ", ".join(f"N = {n:,}" if n else "N unknown" for n in sorted(numbers, key=lambda n: n or 0))


def _parts(name: str) -> list[Callable[[Group], str]]:
    """A loss is that of a process; what samples are worth is not."""
    of_loss = name.endswith("loss")
    return [_data, lambda group: group.first.process if of_loss and group.first.config else ""]


def _data(group: Group) -> str:
    return group.first.data if group.first.config else "without a config"


def _told_apart(groups: Sequence[Group], parts: Sequence[Callable[[Group], str]]) -> Cohorts:
    keys = [[part(group) for part in parts] for group in groups]
    differing = [k for k in range(len(parts)) if len({key[k] for key in keys}) > 1]
    found: Cohorts = {}
    for group, key in zip(groups, keys, strict=True):
        found.setdefault(", ".join(key[k] for k in differing if key[k]), []).append(group)
    return found
