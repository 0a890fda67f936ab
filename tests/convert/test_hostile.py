"""Promise 6: hostile files run no code, and are refused in one line, soon and with little memory."""

import io
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch

from lorafusion.convert import safe_pickle
from lorafusion.convert.formats import read
from lorafusion.convert.network_pickle import finder
from lorafusion.errors import UserError
from tests.convert.hostile import RUNS_CODE
from tests.convert.pickles import their_modules
from tests.convert.wasteful import WASTES

ALL = {**RUNS_CODE, **WASTES}


def written(name, folder, marker):
    path = folder / f"network.{name.partition(':')[0]}"
    ALL[name](path, f"touch {marker}")
    return path


def test_enough_kinds():
    assert len(ALL) >= 25
    assert {name.partition(":")[0] for name in ALL} == {"pkl", "pt", "ckpt", "npz", "safetensors"}


@pytest.mark.parametrize("name", ALL)
def test_refused_in_one_line_and_nothing_runs(name, tmp_path):
    marker = tmp_path / "marker"
    path = written(name, tmp_path, marker)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as error:
        read(path)
    said = str(error.value)
    assert said.startswith(f"weights {path} are refused: it")
    assert "\n" not in said
    assert said.isprintable()
    assert len(said) < len(str(path)) + 350
    assert not marker.exists()
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", RUNS_CODE)
def test_the_files_are_loaded_guns(name, tmp_path):
    """A careless reader runs each of them: else the test above shows nothing."""
    marker = tmp_path / "marker"
    path = written(name, tmp_path, marker)
    try:
        with their_modules():
            if path.suffix == ".npz":
                np.load(path, allow_pickle=True)["weights"]
            elif path.suffix == ".pt" or name == "ckpt: with our fields":
                torch.load(path, weights_only=False)
            else:
                pickle.loads(path.read_bytes())
    except (AssertionError, AttributeError, TypeError, pickle.UnpicklingError):
        pass  # after it ran
    assert marker.exists()


def test_a_file_may_ask_for_so_many_operations_and_bytes_and_no_more(tmp_path, monkeypatch):
    """What bounds time and memory: over all pickles of a file, those in its storages too."""
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": torch.ones(2), "b": torch.ones(3)}))
    asked = []
    start = safe_pickle.Budget.__init__

    def noted(budget, size):
        start(budget, size)
        asked.append(budget)

    monkeypatch.setattr(safe_pickle.Budget, "__init__", noted)
    read(path)
    (budget,) = asked  # one for the file
    used = safe_pickle.MAX_OPERATIONS - budget.operations
    inside = sum(len([*pickletools.genops(data)]) for data in pickles_in(path))
    assert used == inside > 100
    assert budget.bytes == path.stat().st_size - 5 * 4
    monkeypatch.setattr(safe_pickle, "MAX_OPERATIONS", used)
    read(path)
    monkeypatch.setattr(safe_pickle, "MAX_OPERATIONS", used - 1)
    with pytest.raises(UserError, match="operations"):
        read(path)


def pickles_in(path):
    """The file's own pickle, and the five in each of its storages."""
    yield path.read_bytes()
    for _, data, _ in pickletools.genops(path.read_bytes()):
        if isinstance(data, bytes):
            stream = io.BytesIO(data)
            for _ in range(5):
                begin = stream.tell()
                [*pickletools.genops(stream)]
                yield data[begin : stream.tell()]


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"),
        ("torch.hub", "load"), ("torch.storage", "_load_from_bytes_"), ("trainings.networks", "SongUNet"),
        ("torch.nn", "Module"), ("numpy.core.multiarray", "_reconstruct"), ("copyreg", "_reconstructor"),
        ("functools", "partial"), ("operator", "attrgetter"), ("torch._utils", "_rebuild_parameter_with_state"),
    ],
)  # fmt: skip
def test_names_that_are_not_on_the_list(module, name):
    with pytest.raises(safe_pickle.Refused, match=f"asks for {module}.{name}"):
        finder(safe_pickle.Budget(0))(module, name)


def test_a_stub_is_inert_whatever_its_name_is():
    """Classes below torch.nn.modules and training are not looked up, so it matters little what hides there."""
    found = finder(safe_pickle.Budget(0))("training.os", "system")("touch somewhere")
    assert found == safe_pickle.Inert("training.os.system")


def test_a_folder_a_pipe_and_a_missing_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "missing"):
        with pytest.raises(UserError, match="is no file"):
            read(path)
