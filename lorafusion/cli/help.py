"""What `python run.py --help` prints: written from the configuration folder, so it cannot be out of date."""

import ast
import re
from pathlib import Path

from lorafusion.cli.mistake import Mistake, suggest
from lorafusion.cli.overrides import check_group, parse
from lorafusion.cli.registry import Registry
from lorafusion.cli.signature import NoSuchTarget, signature

USAGE = """\
lorafusion trains, samples and measures diffusion models whose conditioning is chosen here.

  python run.py [group=option ...] [setting=value ...]

Examples
  python run.py                                            train with the defaults, marked * below
  python run.py experiment=mnist/nano_uc_lora trainer=gpu  a row of the paper's Figure 3
  python run.py process=edm sampler=heun data.batch_size=256 denoiser.optimizer.lr=2e-3 images=500_000
  python run.py 'conditioning/attn=[time_lora,class_lora]' backbone.num_classes=10  two strategies; quotes for the shell
  python run.py logger=wandb tags=[first,try]              also to Weights & Biases
  python run.py paths.run_dir=outputs/mine resume=auto     start, or go on where it stopped
  python run.py debug=fast                                 one step of everything
  python run.py task=sample ckpt=outputs/mine n=64 sampler=ddim sampler.steps=50
  python run.py task=profile 'conditioning/attn=[]'        parameters and operations of a network
  python run.py -m seed=0,1,2 process=ddpm,edm             one run for each combination
  python run.py sweep=conditioning hydra.sweep.dir=multirun/mine resume=auto  a ready sweep: start, or go on with it
"""

MORE = """\
More
  python run.py --help sampler=heun     what an option is and takes
  python run.py --cfg job [...]         every setting as it would be, without running (-p data: of one group)
  +name=value adds an argument that a file does not list; ~group leaves a group out
  HYDRA_FULL_ERROR=1 shows the traceback behind a one-line error
"""


def help_text(conf: Path, words: list[str]) -> str:
    """The help; with words like ``sampler=heun`` or ``sampler``, that of these options. Raises Mistake."""
    registry = Registry(conf)
    if not words:
        return "\n".join([USAGE, _tasks(registry), _groups(registry), _experiments(registry), _settings(conf), MORE])
    return "\n\n".join(_about(word, registry) for word in words if not word.startswith("-"))


def _tasks(registry: Registry) -> str:
    lines = ["Tasks and their settings"]
    for task in registry.groups["task"]:
        lines.append(f"  task={task}")
        lines += [
            f"      {line}" for line in _top_settings(registry.file("task", task)) if not line.startswith("task:")
        ]
    return "\n".join(lines) + "\n"


def _groups(registry: Registry) -> str:
    lines = ["Groups (group=option; * default; [ ] takes a list)"]
    width = max(map(len, registry.groups)) + 3
    for group, options in registry.groups.items():
        if group in ("task", "experiment"):
            continue
        chosen = registry.defaults.get(group)
        chosen = chosen if isinstance(chosen, list) else [chosen]
        marked = " ".join(f"{option}*" if option in chosen else option for option in options)
        lines.append(f"  {group + (' []' if registry.takes_list(group) else ''):<{width}}  {marked}")
    lines.append(f"  {'hydra/launcher':<{width}}  {' '.join(registry.launchers).replace('basic', 'basic*')}")
    return "\n".join(lines) + "\n"


def _experiments(registry: Registry) -> str:
    names = registry.groups.get("experiment", [])
    width = max(map(len, names), default=0)
    return "\n".join(
        ["Experiments (experiment=...)", *(f"  {n:<{width}}  {registry.comment('experiment', n)}" for n in names), ""]
    )


def _settings(conf: Path) -> str:
    return "\n".join(["Settings of every task", *(f"  {line}" for line in _top_settings(conf / "config.yaml")), ""])


def _top_settings(file: Path) -> list[str]:
    """Lines `name: value  # remark` of a yaml's top level."""
    return re.findall(r"^(?!defaults|hydra)\w+: +\S.*$", file.read_text(), re.MULTILINE)


def _about(word: str, registry: Registry) -> str:
    """A yaml, and what the docstring of its class says."""
    group, _, option = word.partition("=")
    if group not in registry.groups:
        raise Mistake(f"{word}: {group} is no group", suggest(group, registry.groups, "--help {}", "groups: {}"))
    if not option:
        return "\n\n".join(_about(f"{group}={name}", registry) for name in registry.groups[group])
    check_group(parse(word, registry), registry)
    text = registry.file(group, option).read_text().strip()
    parts = [f"{group}={option}", *(f"    {line}" for line in text.splitlines())]
    for target in re.findall(r"_target_: (lorafusion\.\S+)", text):
        try:
            call = signature(target)
        except NoSuchTarget:
            continue
        about = ast.get_docstring(call.node) if call else None
        parts += ["", target, *(f"    {line}" for line in (about or "").splitlines())]
    return "\n".join(parts)
