"""A Weights & Biases workspace that compares conditioning: runs grouped by it; losses, distances, costs and samples.

What it looks like is tasks/dashboard_panels.py's. Here it is checked, and saved: as JSON, or to a project.
"""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lorafusion.errors import UserError
from lorafusion.files import write_text
from lorafusion.run_name import choices

PATIENCE_S = 10.0  # seconds that W&B has to answer


def dashboard(cfg: DictConfig) -> None:
    known = [*choices({})]
    for key in cfg.group_by:
        if key not in known:
            raise UserError(f"group_by={key}: no choice that runs log; these are {', '.join(known)}")
    try:
        from lorafusion.tasks.dashboard_panels import workspace
    except ImportError as error:
        if not str(error.name).startswith("wandb_workspaces"):
            raise
        raise UserError("task=dashboard needs wandb-workspaces: pip install 'lorafusion[dashboard]'") from None
    view = workspace(cfg.entity or "", cfg.project, cfg.title, [*cfg.group_by], [*cfg.measured])
    out = Path(cfg.out).expanduser().absolute()
    if cfg.dry_run:
        write_text(out, as_json(view) + "\n")
        print(f"{len(view.sections)} sections, {sum(len(s.panels) for s in view.sections)} panels; nothing was sent")
        print(out)
        return
    print(save(view, out.parent))


def as_json(view: Any) -> str:
    """What would be sent, after the library's own models have checked it."""
    model = view._to_model()
    spec = model.spec.model_dump_json(by_alias=True, exclude_none=True)
    type(model.spec).model_validate_json(spec)
    content = {"entity": view.entity, "project": view.project, "name": view.name, "spec": json.loads(spec)}
    return json.dumps(content, indent=2)


def save(view: Any, folder: Path) -> str:
    """The address of the saved workspace. Raises UserError where W&B is out of reach, or refuses.

    folder: what W&B writes meanwhile stays in it.
    """
    import wandb

    from lorafusion.logger.wandb_start import environment, obstacle, one_line

    with environment(folder):
        if reason := obstacle(PATIENCE_S):
            raise UserError(f"the dashboard was not saved: {reason}; dry_run=true writes it without W&B")
        try:
            view.entity = view.entity or wandb.Api(timeout=int(PATIENCE_S)).default_entity
            return view.save().url
        except Exception as error:  # a key that is refused, a project that is not ours
            raise UserError(
                f"the dashboard was not saved to {view.entity or 'your'}/{view.project}: {one_line(error)}"
            ) from error
