"""Compare runs: a page, a Markdown table and a csv table of what their folders say."""

from pathlib import Path

from omegaconf import DictConfig, ListConfig
from rich.console import Console
from rich.markup import escape

from lorafusion.report import compare
from lorafusion.report.find import find
from lorafusion.report.page import winners
from lorafusion.report.table import table


def report(cfg: DictConfig) -> None:
    named = cfg.runs if isinstance(cfg.runs, ListConfig) else [cfg.runs]
    groups = compare.read(find(named))
    out = Path(cfg.out).expanduser().absolute()
    compare.write(groups, out)
    runs = [run for group in groups for run in group.runs]
    console = Console()
    console.print(f"{len(runs)} runs of {len(groups)} configurations; [bold]{escape(str(out / 'report.html'))}[/bold]")
    for winner in winners(groups, table(groups)):
        console.print(
            escape(f"best {winner.title}: {winner.group.label}, {winner.text}; next {winner.second}"), soft_wrap=True
        )
    not_read = sum(len(run.problems) for run in runs)
    if not_read:
        console.print(f"{not_read} files or lines were not read: they are listed in the report")
    print(out)
