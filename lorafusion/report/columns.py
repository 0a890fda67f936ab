"""What is compared: the columns of the table, each a number or a word of every run."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lorafusion.direction import more_is_better
from lorafusion.report.groups import Group
from lorafusion.report.measured import Value
from lorafusion.report.run import Run
from lorafusion.report.settings import MISSING, at, differences, show

PUBLISHED_N = 50_000  # images behind every published FID
SETTINGS = 4  # that differ and are shown in the table; the others are in the list of what differs
TITLES = {
    "loss": "training loss",
    "val_loss": "validation loss",
    "fid": "FID",
    "kid": "KID",
    "bits_per_dim": "bits/dim",
    "images_per_s": "images/s",
    "memory_mib": "memory, MiB",
}


@dataclass(frozen=True)
class Column:
    """of:       the run's value; None where it has none.
    form:     how it is written: word, whole, short, fixed, signed, duration.
    metric:   the measured name whose best value is marked; None = no value is better than another.
    always:   shown even where all runs have the same.
    judged:   the images that the run's value was measured on; None where that is not known.
    """

    key: str
    title: str
    of: Callable[[Run], float | str | None]
    form: str = "fixed"
    metric: str | None = None
    always: bool = True
    hint: str = ""
    judged: Callable[[Run], int | None] = lambda run: None

    @property
    def is_word(self) -> bool:
        return self.form == "word"


def columns(groups: Sequence[Group]) -> list[Column]:
    """In the order of the table."""
    runs = [run for group in groups for run in group.runs]
    return [
        Column("name", "run", lambda run: run.title, "word", always=False),
        Column("conv", "conv", lambda run: run.conditioning("conv"), "word"),
        Column("attn", "attention", lambda run: run.conditioning("attn"), "word"),
        Column("state", "state", lambda run: run.state.name, "word"),
        Column("data", "data", lambda run: run.data, "word", always=False),
        Column("process", "process", lambda run: run.process, "word", always=False),
        *_settings(groups),
        *metrics(runs),
        Column("nfe", "NFE", nfe, "whole", hint="evaluations of the network for a sample"),
        *_published(runs),
        Column("parameters", "parameters", lambda run: run.parameters, "whole"),
        Column("macs_per_image", "multiply-adds", lambda run: run.macs, "short", hint="of one image, forward"),
        Column("images_seen", "images seen", lambda run: run.images_seen, "whole"),
        Column("images_per_s", "images/s", lambda run: run.images_per_s, "whole", hint="while training"),
        Column("memory_mib", "memory, MiB", lambda run: last(run, "memory_mib"), "whole", hint="while training"),
        Column("seconds", "time", lambda run: run.state.seconds, "duration", hint="from start to end"),
    ]


def metrics(runs: Sequence[Run]) -> list[Column]:
    """What was logged while training, at its end, and what metrics.json files hold."""
    logged = dict.fromkeys(name for run in runs for name in run.qualities if name != "loss")
    used = Counter(name for _, name in {(v.entry, v.name) for run in runs for v in run.values})
    stored = dict.fromkeys(_key(value, used) for run in runs for value in run.values)
    names = sorted({**logged, **stored}, key=lambda name: name != "val_loss")
    return [_metric(name, used) for name in names]


def _metric(name: str, used: Counter[str]) -> Column:
    def judged(run: Run) -> int | None:
        found = value_of(run, name, used)
        return found.n if found else None

    return Column(name, title(name), partial(metric, name=name, used=used), metric=name, judged=judged)


def title(name: str) -> str:
    """Of a measured name: frechet_distance_digits -> Fréchet distance digits."""
    return TITLES.get(name, name.replace("_", " ").replace("frechet", "Fréchet"))


def metric(run: Run, name: str, used: Counter[str]) -> float | None:
    """From a metrics.json if there is one, for it says what was judged; else the last that was logged."""
    found = value_of(run, name, used)
    return found.value if found else last(run, name)


def value_of(run: Run, name: str, used: Counter[str]) -> Value | None:
    return next((value for value in run.values if _key(value, used) == name), None)


def _key(value: Value, used: Counter[str]) -> str:
    """A value's name, with that of its metric where several metrics have one so called."""
    return value.name if used[value.name] == 1 or value.name == value.entry else f"{value.entry}.{value.name}"


def nfe(run: Run) -> int | None:
    """Of the first value that says so."""
    return next((value.nfe for value in run.values if value.nfe is not None), None)


def last(run: Run, name: str) -> float | None:
    points = run.history.get(name)
    return points[-1][1] if points else None


def direction(column: Column) -> Callable[[list[float]], float]:
    """max where more is better, else min."""
    return max if more_is_better((column.metric or "").rpartition(".")[2]) else min


def _settings(groups: Sequence[Group]) -> list[Column]:
    """Settings that differ, other than which conditioning there is, and those that go with it."""
    configured = [group for group in groups if group.first.config]
    found = [
        difference
        for difference in differences([group.essence for group in configured])
        if difference.content is None
        and not difference.path.endswith("_target_")
        and not any(isinstance(v, dict) for v in difference.values)
        and MISSING not in difference.values
        and not difference.path.startswith(("data.", "process.", "images"))
    ]
    if len(found) > SETTINGS:
        return []
    return [Column(d.path, d.path.rpartition(".")[2], partial(_setting, path=d.path), "word") for d in found]


def _setting(run: Run, path: str) -> str | None:
    return show(at(run.essence, path)) if run.config else None


def _published(runs: Sequence[Run]) -> list[Column]:
    """The paper's numbers, and how far from them what was measured is, where it is the same thing."""
    found = []
    if any(run.published("fid") is not None for run in runs):
        found.append(Column("paper.fid", "FID in the paper", lambda run: run.published("fid")))
        found.append(Column("fid_difference", "difference", fid_difference, "signed", hint="of FID, at 50,000 images"))
    if any(run.published("parameters") is not None for run in runs):
        found.append(
            Column("paper.parameters", "parameters in the paper", lambda run: run.published("parameters"), "whole")
        )
        found.append(
            Column("parameters_difference", "difference", parameters_difference, "whole", hint="in parameters")
        )
    return found


def fid_difference(run: Run) -> float | None:
    """None unless it was measured as the published one: on as many images, for fewer make it larger, and with as many
    evaluations of the network for each, where both say.
    """
    published = run.published("fid")
    found = next((value for value in run.values if value.name == "fid" and value.entry == "fid"), None)
    if found is None or published is None or (found.n or 0) < PUBLISHED_N:
        return None
    differs = found.nfe is not None and run.published("nfe") not in (None, found.nfe)
    return None if differs else found.value - published


def parameters_difference(run: Run) -> float | None:
    published = run.published("parameters")
    return None if published is None or run.parameters is None else run.parameters - published
