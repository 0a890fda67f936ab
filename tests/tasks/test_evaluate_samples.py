"""task=evaluate of samples, on gratings and a classifier of a few steps: what it reads, prints, writes and refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from lorafusion.data.module import ImageData
from lorafusion.data.synthetic import Synthetic
from lorafusion.errors import UserError
from lorafusion.metrics import digit_classifier
from lorafusion.metrics.digits import Digits
from lorafusion.tasks.evaluate import evaluate
from lorafusion.tasks.evaluate_samples import find_samples, noise_like, read_samples
from tests.tasks.runs import composed

DATA = ("data=synthetic", "data.resolution=16", "data.channels=1", "data.source.n=60", "data.source.n_test=40")


@pytest.fixture(autouse=True)
def quick_classifier(monkeypatch):
    train = digit_classifier.train
    monkeypatch.setattr(digit_classifier, "train", lambda *a, **k: train(*a, **{**k, "steps": 3}))


def gratings(split: str = "test", channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (N, 16, 16, C), labels."""
    records = list(Synthetic(16, channels, n=60, n_test=40, seed=1).records(split))
    images = np.stack([r.image for r in records])
    return images.reshape(*images.shape[:3], channels), np.array([r.label for r in records])


def write(file: Path, images: np.ndarray | None = None, **more: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    images = gratings()[0] if images is None else images
    np.savez_compressed(file, images=images, seeds=np.arange(len(images)), **more)  # pyright: ignore
    return file


def run(folder: Path, samples: Path, *overrides: str, judge: bool = True) -> None:
    bar = ["metric.min_accuracy=0.0"] if judge else []
    evaluate(composed("task=evaluate", f"samples={samples}", f"paths.data_dir={folder / 'data'}", *bar, *overrides))


def entry(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())["digits"]


class TestARun:
    @pytest.fixture
    def folder(self, tmp_path) -> Path:
        """A run's folder with samples of two checkpoints, class-conditional."""
        images, labels = gratings()
        saved = composed(*DATA, "paths.data_dir=/nowhere")
        write(tmp_path / "run/samples/000100/samples.npz", images[:30], labels=labels[:30])
        old = write(tmp_path / "run/samples/000050/samples.npz", images[:3])
        os.utime(old, (1, 1))
        (tmp_path / "run/config.yaml").write_text(OmegaConf.to_yaml(saved, resolve=True))
        return tmp_path / "run"

    def test_takes_the_dataset_from_the_run_and_the_newest_samples(self, folder, tmp_path, capsys):
        run(tmp_path, folder, "data=mnist_5k", "data.resolution=32")
        out = capsys.readouterr().out.splitlines()
        assert out[-1] == str(folder / "samples/000100")
        table = "\n".join(out)
        assert "beside synthetic at 16 px" in table
        for row in ("samples", "held-out real digits", "uniform noise"):
            assert any(line.startswith(f"│ {row} ") and " 30 " in line for line in out), table

    def test_writes_what_the_metric_says(self, folder, tmp_path):
        run(tmp_path, folder)
        images, labels = gratings()
        data = ImageData("synthetic", Synthetic(16, 1, n=60, n_test=40), 16, 1, 10, 1, 0, 0, tmp_path / "other")
        metric = Digits(tmp_path / "data", min_accuracy=0.0)
        metric.prepare(*data.arrays("train"), *data.arrays("test"))
        expected = metric.measure(images[:30].transpose(0, 3, 1, 2), labels[:30])
        found = entry(folder / "samples/000100")
        assert found["classifier_frechet_distance"] == expected.distance
        assert found["recognised"] == expected.recognised
        assert found["agreement"] == expected.agreement
        assert found["samples"]["n"] == 30
        assert found["reference"]["fingerprint"] == digit_classifier.fingerprint(*data.arrays("train"))
        assert found["extractor"]["held_out_accuracy"] == metric.accuracy
        assert {"torch", "numpy", "lorafusion"} <= set(found["versions"])
        assert {row["n"] for row in found["rows"].values()} == {30}

    def test_agreement_is_shown_only_where_classes_were_asked_for(self, folder, tmp_path, capsys):
        run(tmp_path, folder)
        assert "its class" in capsys.readouterr().out
        run(tmp_path, folder / "samples/000050")
        assert "its class" not in capsys.readouterr().out
        assert entry(folder / "samples/000050")["agreement"] is None


class TestAFile:
    def test_outside_a_run_the_command_line_names_the_data(self, tmp_path, capsys):
        file = write(tmp_path / "elsewhere/mine.npz", gratings()[0][..., 0])  # (N, H, W)
        run(tmp_path, file, *DATA)
        assert capsys.readouterr().out.splitlines()[-1] == str(file.parent)
        assert sorted(p.name for p in file.parent.iterdir()) == ["metrics.json", "mine.npz"]

    def test_colour(self, tmp_path):
        file = write(tmp_path / "samples.npz", gratings(channels=3)[0])
        run(tmp_path, file, *DATA, "data.channels=3")
        assert read_samples(file).images.shape == (40, 3, 16, 16)

    def test_another_size_is_refused_with_the_setting_that_mends_it(self, tmp_path):
        with pytest.raises(UserError, match=r"16 x 16 pixels, 1 .* 32 x 32, 1: .*data\.resolution=16"):
            run(tmp_path, write(tmp_path / "samples.npz"), *DATA, "data.resolution=32")

    def test_refuses_to_judge_with_a_bad_classifier(self, tmp_path):
        file = write(tmp_path / "samples.npz")
        with pytest.raises(UserError, match="no judge"):
            run(tmp_path, file, *DATA, judge=False)
        assert not (tmp_path / "metrics.json").exists()

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UserError, match=r"no samples\.npz in"):
            find_samples(tmp_path)
        with pytest.raises(UserError, match=r"there is no .*gone"):
            find_samples(tmp_path / "gone")

    @pytest.mark.parametrize(
        "images",
        [
            np.zeros((4, 8, 8), np.float32),
            np.zeros((4, 8), np.uint8),
            np.zeros((1, 8, 8), np.uint8),
            np.array([{}] * 4),  # pickled
        ],
    )
    def test_other_arrays_are_refused(self, tmp_path, images):
        with pytest.raises(UserError, match=r"samples\.npz"):
            read_samples(write(tmp_path / "samples.npz", images))

    @pytest.mark.parametrize("labels", [np.zeros(3, np.int64), np.zeros(40), np.zeros((40, 10), np.int64)])
    def test_labels_that_do_not_fit_are_refused(self, tmp_path, labels):
        with pytest.raises(UserError, match=r"labels .* for 40 images"):
            read_samples(write(tmp_path / "samples.npz", labels=labels))

    def test_damaged_files_are_refused(self, tmp_path):
        whole = write(tmp_path / "samples.npz").read_bytes()
        file = tmp_path / "damaged.npz"
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 0x10
        for content in (b"", b"no zip", whole[:500], whole[: len(whole) // 2], bytes(flipped)):
            file.write_bytes(content)
            with pytest.raises(UserError, match="no npz of images"):
                read_samples(file)
        np.save(tmp_path / "plain.npy", np.zeros((4, 8, 8), np.uint8))
        with pytest.raises(UserError, match="no npz of images"):
            read_samples(tmp_path / "plain.npy")


class TestMetricsFile:
    def test_keeps_other_metrics_of_the_same_samples_only(self, tmp_path):
        file = write(tmp_path / "samples.npz")
        run(tmp_path, file, *DATA)
        path = tmp_path / "metrics.json"
        content = json.loads(path.read_text())
        path.write_text(json.dumps({"other": content["digits"]}))
        run(tmp_path, file, *DATA)
        assert json.loads(path.read_text()) == {"other": content["digits"], **content}
        write(file, gratings()[0][:20])
        run(tmp_path, file, *DATA)
        assert set(json.loads(path.read_text())) == {"digits"}

    @pytest.mark.parametrize("content", ["", "[]", '{"digits": 3}'])
    def test_a_file_that_is_not_ours_is_replaced(self, tmp_path, content):
        file = write(tmp_path / "samples.npz")
        (tmp_path / "metrics.json").write_text(content)
        run(tmp_path, file, *DATA)
        assert entry(tmp_path)["samples"]["n"] == 40


class TestControls:
    def test_noise_is_uniform(self):
        noise = noise_like((50, 1, 16, 16))
        counts = np.bincount(noise.ravel(), minlength=256)
        assert noise.dtype == np.uint8
        assert abs(counts - 50).max() < 6 * 50**0.5
