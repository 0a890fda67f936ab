"""The configuration folder as a registry: a group is a folder, an option is a yaml file. Nothing is listed in code."""

import importlib.util
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Registry:
    """folders: configuration folders, the main one first."""

    def __init__(self, *folders: Path):
        self.folders = folders

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Group -> its options. An option may lie deeper: mnist/nano_shift is one of `experiment`."""
        groups: dict[str, set[str]] = {}
        for folder in self.folders:
            for file in sorted(folder.rglob("*.yaml")):
                path = file.relative_to(folder).with_suffix("")
                if path.parts[0] == "hydra":
                    continue  # beside Hydra's own options, which are not files here
                for parent in list(path.parents)[:-1]:
                    if parent != path.parent and self._names(folder / parent, path.parent.as_posix()):
                        continue
                    groups.setdefault(parent.as_posix(), set()).add(path.relative_to(parent).as_posix())
        # `conditioning` is a folder of groups, not a group: the configuration never chooses one of its options
        return {group: sorted(options) for group, options in sorted(groups.items()) if self._is_chosen(group)}

    @cached_property
    def launchers(self) -> list[str]:
        """What runs the jobs of a sweep: Hydra's own, those of its plugins that are installed, and ours."""
        plugins = {"joblib": ["joblib"], "submitit": ["submitit_local", "submitit_slurm"], "ray": ["ray"]}
        found = [
            name
            for plugin, names in plugins.items()
            for name in names
            if importlib.util.find_spec("hydra_plugins")
            and importlib.util.find_spec(f"hydra_plugins.hydra_{plugin}_launcher")
        ]
        ours = sorted(file.stem for folder in self.folders for file in (folder / "hydra" / "launcher").glob("*.yaml"))
        return ["basic", *found, *ours]

    def _is_chosen(self, group: str) -> bool:
        if group in self.defaults:
            return True
        below_or_above = (d for d in self.defaults if d.startswith(f"{group}/") or group.startswith(f"{d}/"))
        return not any(below_or_above)

    def _names(self, folder: Path, group: str) -> bool:
        """Whether an option in ``folder`` chooses from ``group`` below it: its options are then not the folder's."""
        return any(f"- /{group}:" in file.read_text() for file in folder.glob("*.yaml"))

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Group -> what config.yaml chooses: a name, a list of names, or None."""
        entries = self.read(self.folders[0] / "config.yaml").get("defaults", [])
        return {key: value for entry in entries if isinstance(entry, dict) for key, value in entry.items()}

    def takes_list(self, group: str) -> bool:
        return isinstance(self.defaults.get(group), list)

    def file(self, group: str, option: str) -> Path:
        """The yaml of an option. Raises KeyError where there is none."""
        for folder in self.folders:
            if (file := folder / group / f"{option}.yaml").is_file():
                return file
        raise KeyError(f"{group}={option}")

    def comment(self, group: str, option: str, key: str | None = None) -> str:
        """The remark behind ``key:``, or without a key the first line of comment above the settings; '' if none."""
        text = self.file(group, option).read_text()
        if key is not None:
            found = re.search(rf"^\s*{re.escape(key)}:[^#\n]*#\s*(.*)$", text, re.MULTILINE)
        else:
            found = re.search(r"\A(?:# @.*\n|\s*\n)*#\s*(?!@)(.*)$", text, re.MULTILINE)
        return found[1].strip() if found else ""

    def listed_values(self, setting: str) -> list[str]:
        """The values that a remark lists: `variance: small # small large learned`; [] where it lists none."""
        key = re.escape(setting.rpartition(".")[2])
        pattern = rf"^\s*{key}: *([a-z][\w-]*) *# *(?:[^:;#]*: )?((?:[\w.-]+ +)+[\w.-]+) *(?:;.*)?$"
        values: dict[str, None] = {}
        for group, options in self.groups.items():
            for option in options if setting.startswith(group.replace("/", ".")) else ():
                found = re.search(pattern, self.file(group, option).read_text(), re.MULTILINE)
                if found and found[1] in (words := found[2].split()) and setting in self.offers(group, option):
                    values |= dict.fromkeys(words)
        return [*values]

    @staticmethod
    def read(file: Path) -> dict[str, Any]:
        content = yaml.load(file.read_text(), Loader=_Loader)
        return content if isinstance(content, dict) else {}

    def offers(self, group: str, option: str) -> set[str]:
        """The dotted settings that choosing this option brings, and the groups that its defaults list adds."""
        file = self.file(group, option)
        content = self.read(file)
        added = {
            str(key).lstrip("/") for entry in content.pop("defaults", []) if isinstance(entry, dict) for key in entry
        }
        header = re.search(r"^#\s*@package\s+(\S+)", file.read_text(), re.MULTILINE)
        package = header[1] if header else group.replace("/", ".")
        return added | {*flat(content, "" if package == "_global_" else package)}

    def offered_by(self, name: str) -> list[str]:
        """The choices that would bring a setting, or a group, written as on the command line."""
        return [
            self._carried(group) + (f"{group}=[{option}]" if self.takes_list(group) else f"{group}={option}")
            for group, options in self.groups.items()
            for option in options
            if group not in ("experiment", name) and name in self.offers(group, option)
        ]

    def _carried(self, group: str) -> str:
        """What has to be chosen before a group that config.yaml does not choose from, with a space behind it."""
        carriers = [] if group in self.defaults else self.offered_by(group)
        return f"{min(carriers, key=len)} " if carriers else ""


def flat(node: Any, prefix: str = "") -> list[str]:
    """Every dotted key of nested dicts, inner nodes too, without Hydra's own (_target_, ...)."""
    keys = []
    for name, value in node.items() if isinstance(node, dict) else ():
        if not str(name).startswith("_"):
            key = f"{prefix}.{name}" if prefix else str(name)
            keys += [key, *flat(value, key)]
    return keys
