"""The rules of the house, read from the source: who imports whom, sizes, names and calls that are not used."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lorafusion"
FILES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "run.py"]
EVERYWHERE = [
    *FILES,
    *(
        f
        for folder in ("tests", "bench", "docs", "demo", "examples")
        if (ROOT / folder).is_dir()
        for f in (ROOT / folder).rglob("*.py")
    ),
]

# Each part of the package may import the parts below it in its chain, and LEAVES_FOR_ALL.
CHAINS = (
    ("sites", "lora", "conditioning", "dropin"),
    ("sites", "backbones"),
    ("processes", "samplers", "denoisers", "analysis", "tasks"),
    ("processes", "samplers", "denoisers", "callbacks", "tasks"),
)
# They import nothing of it.
LEAVES_FOR_ALL = {"files", "errors", "draws", "progress", "direction", "rules", "versions", "run_name"}
LEAVES = {"ema", "metrics", "data", "convert", "report", "checkpoint", "pictures", "logger", "cli"}
UPPER = {"denoisers", "analysis", "callbacks", "tasks"}  # where everything else meets

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "model", "models"}


def ids(files: list[Path]) -> list[str]:
    return [str(f.relative_to(ROOT)) for f in files]


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def part(module: str) -> str | None:
    """lorafusion.samplers.heun -> samplers; None for other packages and for the package itself."""
    names = module.split(".")
    return names[1] if names[0] == "lorafusion" and len(names) > 1 else None


def imported(file: Path) -> set[str]:
    """The parts of the package that a file imports, anywhere in it."""
    found: set[str | None] = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {part(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno}: imports are absolute"
            module = node.module or ""
            found |= (
                {part(f"{module}.{alias.name}") for alias in node.names} if module == "lorafusion" else {part(module)}
            )
    return {name for name in found if name is not None}


def allowed(name: str) -> set[str]:
    """The parts that a part may import, itself among them."""
    if name in LEAVES_FOR_ALL:
        return {name}
    below = {other for chain in CHAINS if name in chain for other in chain[: chain.index(name)]}
    if name in UPPER:
        lower = {other for chain in CHAINS for other in chain} - UPPER - {"dropin"}
        below |= lower | (LEAVES - {"cli"})
    return below | LEAVES_FOR_ALL | {name}


@pytest.mark.parametrize("file", FILES, ids=ids(FILES))
def test_imports_point_one_way(file):
    if file == ROOT / "run.py":
        assert imported(file) <= {"cli"}
        return
    relative = file.relative_to(PACKAGE)
    name = relative.parts[0].removesuffix(".py")
    if name == "__init__":
        assert imported(file) <= {"torchvision_cure", "conditioning", "dropin"}  # the latter two are lazy
        return
    assert imported(file) <= allowed(name), f"{relative} imports {sorted(imported(file) - allowed(name))}"


def test_importing_the_package_imports_no_torch():
    program = "import lorafusion, sys; assert not {'torch', 'numpy'} & {*sys.modules}; lorafusion.UCLoRA; import torch"
    subprocess.run([sys.executable, "-c", program], check=True)


def packages(file: Path) -> set[str]:
    """The top-level names that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(tree(file)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {name.split(".")[0] for name in names}
    return found


def test_the_command_line_imports_no_torch():
    for file in [*(PACKAGE / "cli").rglob("*.py"), PACKAGE / "__init__.py", PACKAGE / "errors.py", ROOT / "run.py"]:
        assert not packages(file) & {"torch", "lightning", "torchvision", "numpy", "rich"}, file


def test_the_report_imports_no_torch():
    for file in [*(PACKAGE / "report").rglob("*.py"), PACKAGE / "tasks" / "report.py"]:
        assert not packages(file) & {"torch", "lightning", "torchvision", "numpy", "matplotlib"}, file


@pytest.mark.parametrize("file", EVERYWHERE, ids=ids(EVERYWHERE))
def test_sizes(file):
    lines = file.read_text().splitlines()
    assert len(lines) <= 300
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, f"{node.name} is too long"


def test_names():
    """A name says what is inside. An attribute of another library may be called what it likes."""
    for file in EVERYWHERE:
        assert not {*file.relative_to(ROOT).with_suffix("").parts} & FORBIDDEN_NAMES, file
    for folder in (ROOT / "conf").rglob("*"):
        assert not {*folder.relative_to(ROOT).with_suffix("").parts} & FORBIDDEN_NAMES, folder


def calls(file: Path) -> list[tuple[str, ast.Call]]:
    """(name as it is written, node) of every call: `pickle.load`, `eval`."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree(file)) if isinstance(node, ast.Call)]


def code_from_data(file: Path) -> list[str]:
    """Calls by which data could run code."""
    found = []
    for name, node in calls(file):
        keywords = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
        bare = {"eval", "exec", "pickle.load", "pickle.loads", "dill.load", "joblib.load", "marshal.loads", "yaml.load"}
        if name == "yaml.load" and any(k.arg == "Loader" for k in node.keywords):
            continue
        if name in bare or keywords.get("weights_only") is False or keywords.get("allow_pickle") is True:
            found.append(f"{file}:{node.lineno}: {ast.unparse(node)}")
        if name == "torch.load" and keywords.get("weights_only") is not True:
            found.append(f"{file}:{node.lineno}: torch.load without weights_only=True")
    for node in ast.walk(tree(file)):
        names = {alias.name for alias in node.names} if isinstance(node, ast.ImportFrom) else set()
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal") and names & {"load", "loads"}:
            found.append(f"{file}:{node.lineno}: from {node.module} import load")
    return found


@pytest.mark.parametrize("file", FILES, ids=ids(FILES))
def test_data_runs_no_code(file):
    assert code_from_data(file) == []


def test_the_rule_finds_what_it_forbids(tmp_path):
    bad = (
        "eval('1')",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "pickle.load(f)",
        "np.load(f, allow_pickle=True)",
        "from pickle import load",
        "yaml.load(f)",
    )
    for k, line in enumerate(bad):
        file = tmp_path / f"{k}.py"
        file.write_text(line)
        assert code_from_data(file), line
    file = tmp_path / "good.py"
    file.write_text("torch.load(f, weights_only=True); np.load(f); net.eval(); yaml.load(f, Loader=L)")
    assert not code_from_data(file)


def test_strategies_are_named_nowhere_else():
    """Adding a strategy needs no edit outside its own files: no other file of the package names one."""
    strategies = {f.stem for kind in ("conv", "attn") for f in (PACKAGE / "conditioning" / kind).glob("*.py")} - {
        "__init__"
    }
    for file in FILES:
        if "conditioning" in file.parts or file == PACKAGE / "__init__.py":  # which names what is public
            continue
        modules = {node.module or "" for node in ast.walk(tree(file)) if isinstance(node, ast.ImportFrom)}
        assert not {m for m in modules if m.startswith("lorafusion.conditioning.")}, file
        named = {n.value for n in ast.walk(tree(file)) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert not named & strategies, f"{file} names {named & strategies}"
