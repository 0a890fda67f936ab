"""What the dashboard of task=dashboard shows, by the names under which runs log."""

from collections.abc import Iterator
from typing import Any

import wandb_workspaces.reports.v2 as wr
import wandb_workspaces.workspaces as ws

from lorafusion.direction import more_is_better

COSTS = ("images_per_s", "memory_mib", "parameters", "macs_per_image")  # in a run's summary


def workspace(entity: str, project: str, title: str, group_by: list[str], measured: list[str]) -> ws.Workspace:
    """group_by: of the choices of lorafusion.run_name; measured: names of metrics, the most important one first."""
    return ws.Workspace(
        entity=entity,
        project=project,
        name=title,
        sections=[
            section("Loss", losses(), is_open=True),
            section("Distance to real images", distances(measured), is_open=True),
            section("Cost", costs(measured), is_open=True),
            section("Samples of equal seeds", samples(), is_open=True),
            section("What was chosen", settings(measured)),
        ],
        settings=ws.WorkspaceSettings(x_axis="nimg", max_runs=50),
        runset_settings=ws.RunsetSettings(
            filters="Metric('JobType') = 'train'",
            groupby=[ws.Config(f"choices.{key}") for key in group_by],
            pinned_columns=["summary:val_loss", *(f"summary:{name}" for name in (*measured, *COSTS))],
        ),
    )


def section(name: str, panels: Iterator, is_open: bool = False) -> ws.Section:
    return ws.Section(
        name=name, panels=[*panels], is_open=is_open, panel_settings=ws.SectionPanelSettings(x_axis="nimg")
    )


def losses() -> Iterator[wr.LinePlot]:
    """A group's line is the mean of its runs, between the least and the largest."""
    yield over_images("loss", log_y=True, smoothing_type="exponentialTimeWeighted", smoothing_factor=0.8)
    yield over_images("val_loss", log_y=True)
    yield over_images("lr")


def distances(measured: list[str]) -> Iterator[wr.LinePlot | wr.BarPlot]:
    """How each value goes, and where it ends."""
    for name in measured:
        yield over_images(name, title_y=f"{name} ({'more' if more_is_better(name) else 'less'} is better)")
    yield from (last(name) for name in measured)


def costs(measured: list[str]) -> Iterator[wr.BarPlot | wr.LinePlot | wr.ScatterPlot]:
    yield from (last(name) for name in COSTS)
    yield over_images("images_per_s")
    for cost in ("parameters", "macs_per_image", "images_per_s"):
        for name in ("val_loss", *measured[:1]):
            yield wr.ScatterPlot(title=f"{name} by {cost}", x=wr.SummaryMetric(cost), y=wr.SummaryMetric(name))


def samples() -> Iterator[wr.MediaBrowser]:
    """Rows are runs, columns are times: equal seeds, so pictures in one row and in one column are alike."""
    yield wr.MediaBrowser(
        title="samples", media_keys=["samples"], mode="grid", grid_x_axis="step", grid_y_axis="run", num_columns=4
    )


def settings(measured: list[str]) -> Iterator[wr.RunComparer | wr.ParallelCoordinatesPlot]:
    yield wr.RunComparer(diff_only="split")
    columns = [wr.Config("choices.conditioning"), wr.Config("choices.rank"), wr.SummaryMetric("parameters")]
    columns += [wr.SummaryMetric(name) for name in ("images_per_s", "val_loss", *measured[:1])]
    yield wr.ParallelCoordinatesPlot(columns=[wr.ParallelCoordinatesPlotColumn(metric=c) for c in columns])


def over_images(name: str, **more: Any) -> wr.LinePlot:
    return wr.LinePlot(
        title=name,
        x="nimg",
        y=[name],
        title_x="images seen",
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        **more,
    )


def last(name: str) -> wr.BarPlot:
    """The value in the summary: of a group, the mean and its standard deviation."""
    return wr.BarPlot(
        title=f"{name}, at the end",
        metrics=[name],
        groupby_aggfunc="mean",
        groupby_rangefunc="stddev",
    )
