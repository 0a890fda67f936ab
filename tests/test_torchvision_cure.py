"""The cure for a torchvision whose library cannot be loaded: when it acts, and when it keeps out.

Each case is a new interpreter that sees no packages but ours and two stand-ins: a torch that notes which operators
are declared, and a torchvision that notes whether they were there when it was imported. The last ones use the real two.
"""

import _ctypes
import json
import shutil
import subprocess
import sys
from importlib import machinery
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCHEMAS = [f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms")]

TORCH = """
import types
declared = []
class Library:
    def __init__(self, name, kind): assert name == "torchvision"
    def define(self, schema): declared.append(schema)
library = types.SimpleNamespace(Library=Library)
ops = types.SimpleNamespace(torchvision=types.SimpleNamespace())
"""
TORCHVISION = """
import torch
seen = [*torch.declared]
"""
REPORT = """
import json
torch = sys.modules.get("torch")
print(json.dumps({
    "torch": torch is not None,
    "declared": torch and torch.declared,
    "seen": getattr(sys.modules.get("torchvision"), "seen", None),
    "finders": sum("Torchvision" in type(f).__name__ for f in sys.meta_path),
}))
"""


def _python(folder, code):
    """What an interpreter saw after ``code`` that can import from ``folder`` and our package, and nothing installed."""
    code = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder / 'ours')!r}]\n{code}\n{REPORT}"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def packages(tmp_path):
    """A folder with a torch, and the package (alone: the repository has other folders on its level)."""
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "lorafusion").symlink_to(ROOT / "lorafusion")
    return tmp_path


def _torchvision(packages, *, library):
    folder = packages / "torchvision"
    folder.mkdir()
    (folder / "__init__.py").write_text(TORCHVISION)
    (folder / "ops.py").touch()
    if library == "broken":
        (folder / "_C.so").write_bytes(b"\x7fELF but no library")
    elif library == "healthy":
        shutil.copy(_ctypes.__file__, folder / "_C.so")  # any library that loads


@pytest.mark.parametrize("first", ["torchvision", "torchvision.ops"])
def test_a_broken_library_is_cured_before_torchvision_runs(packages, first):
    _torchvision(packages, library="broken")
    saw = _python(packages, f"import lorafusion, {first}")
    assert saw == {"torch": True, "declared": SCHEMAS, "seen": SCHEMAS, "finders": 0}


@pytest.mark.parametrize("library", ["healthy", None])
def test_nothing_is_done_where_it_is_healthy(packages, library):
    _torchvision(packages, library=library)
    saw = _python(packages, "import lorafusion, torchvision")
    assert saw == {"torch": True, "declared": [], "seen": [], "finders": 0}


def test_nothing_is_done_where_it_is_absent(packages):
    code = "import lorafusion, contextlib\nwith contextlib.suppress(ModuleNotFoundError): import torchvision"
    assert _python(packages, code) == {"torch": False, "declared": None, "seen": None, "finders": 0}


def test_our_first_import_waits(packages):
    """Neither torch nor torchvision is imported until somebody asks for torchvision."""
    _torchvision(packages, library="broken")
    assert _python(packages, "import lorafusion") == {"torch": False, "declared": None, "seen": None, "finders": 1}


def test_it_comes_too_late_after_torchvision(packages):
    """A torchvision that is there already has got through its own import: nothing is declared beside it."""
    _torchvision(packages, library="broken")
    saw = _python(packages, "import torchvision, lorafusion")
    assert saw == {"torch": True, "declared": [], "seen": [], "finders": 0}


def test_a_probe_for_torchvision_cures_too(packages):
    """Libraries ask ``find_spec("torchvision")`` before they import it."""
    _torchvision(packages, library="broken")
    saw = _python(
        packages, "import lorafusion, importlib.util; importlib.util.find_spec('torchvision')\nimport torchvision"
    )
    assert saw == {"torch": True, "declared": SCHEMAS, "seen": SCHEMAS, "finders": 0}


def test_only_what_is_missing_is_declared(packages):
    """The program took the same cure before us: a second declaration of one operator is an error in torch."""
    _torchvision(packages, library="broken")
    saw = _python(packages, "import torch; torch.ops.torchvision.nms = 1\nimport lorafusion, torchvision")
    assert saw["declared"] == SCHEMAS[1:]


REAL = "import torch, torchvision; print(torchvision.__version__, hasattr(torch.ops.torchvision, 'nms'))"
TAKEN = f"""
import torch
library = torch.library.Library("torchvision", "DEF")
for schema in {SCHEMAS}:
    library.define(schema)
"""


def _real_is_broken():
    spec = machinery.PathFinder.find_spec("torchvision")
    from lorafusion.torchvision_cure import _loads

    return spec is not None and spec.origin is not None and not _loads(Path(spec.origin).parent)


@pytest.mark.parametrize("before", ["", TAKEN], ids=["alone", "after-the-same-cure"])
def test_the_real_torchvision(before):
    if before and not _real_is_broken():
        pytest.skip("this torchvision is healthy: nobody cures it")
    code = f"{before}\nimport lorafusion\n{REAL}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "True"
