"""task=evaluate by features, with a user's own network on gratings: what it reads, prints, writes and refuses."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lorafusion.data import edm_zip
from lorafusion.data.synthetic import Synthetic
from lorafusion.errors import UserError
from lorafusion.tasks.evaluate import evaluate
from lorafusion.tasks.sample_sets import read_set
from tests.tasks.runs import composed

DATA = ("data=synthetic", "data.resolution=16", "data.source.n=200", "data.source.n_test=100", "data.channels=3")
OWN = ("metric/extractor=module", "metric.extractor.module=tests.metrics.extractor.brightness.Brightness")
FID = "frechet_distance_module"


def gratings(split: str = "test") -> np.ndarray:
    """uint8 (N, 16, 16, 3)"""
    return np.stack([r.image for r in Synthetic(16, 3, n=200, n_test=100, seed=0).records(split)])  # pyright: ignore


def written(file: Path, images: np.ndarray | None = None, **more: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(file, images=gratings() if images is None else images, **more)  # pyright: ignore[reportArgumentType]
    return file


def settings(folder: Path, samples: object, *overrides: str) -> tuple[str, ...]:
    base = ("task=evaluate", f"samples={samples}", f"paths.data_dir={folder / 'data'}", *DATA)
    return (*base, *([] if any(o.startswith("metric=") for o in overrides) else ["metric=fid"]), *overrides, *OWN)


def run(folder: Path, samples: object, *overrides: str) -> dict:
    """The entry that it writes."""
    evaluate(composed(*settings(folder, samples, f"out={folder / 'out'}", *overrides)))
    return json.loads((folder / "out" / "metrics.json").read_text())


class TestSets:
    def write_all(self, folder: Path) -> dict[str, Path]:
        images = gratings()
        written(folder / "npz/samples.npz", images)
        (folder / "npy").mkdir()
        np.save(folder / "npy/samples.npy", images)
        (folder / "png").mkdir()
        for k, image in enumerate(images):
            Image.fromarray(image).save(folder / f"png/{k:03d}.png")
        edm_zip.write(images.transpose(0, 3, 1, 2), np.arange(100) % 4, folder / "edm.zip", lambda *_: None)
        return {kind: folder / kind for kind in ("npz", "npy", "png", "edm.zip")}

    def test_the_same_images_in_any_file_give_the_same_number(self, tmp_path):
        paths = self.write_all(tmp_path)
        found = {kind: run(tmp_path, path)[FID] for kind, path in paths.items()}
        assert len({entry[FID] for entry in found.values()}) == 1
        assert {entry["samples"]["n"] for entry in found.values()} == {100}
        labels = read_set(paths["edm.zip"]).labels
        assert labels is not None
        assert labels.tolist() == (np.arange(100) % 4).tolist()
        assert read_set(paths["png"]).labels is None

    def test_images_of_mixed_sizes_are_refused(self, tmp_path):
        for k, side in enumerate((16, 16, 8)):
            Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(tmp_path / f"{k}.png")
        with pytest.raises(UserError, match=r"2\.png: 8 x 8 pixels; .*0\.png has 16"):
            read_set(tmp_path)

    @pytest.mark.parametrize("images", [np.zeros((4, 8, 8, 3), np.float32), np.zeros((4, 8), np.uint8)])
    def test_other_arrays_are_refused(self, images, tmp_path):
        np.save(tmp_path / "samples.npy", images)
        with pytest.raises(UserError, match="not uint8"):
            read_set(tmp_path)

    def test_what_holds_none_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="no images in it"):
            read_set(tmp_path)
        with pytest.raises(UserError, match="there is no"):
            read_set(tmp_path / "gone")
        (tmp_path / "samples.npy").write_bytes(b"text")
        with pytest.raises(UserError, match="no npy of images"):
            read_set(tmp_path)


class TestFid:
    def test_writes_what_it_measured_and_what_that_depends_on(self, tmp_path, capsys):
        entry = run(tmp_path, written(tmp_path / "s.npz"), "controls=true")[FID]
        assert entry["n"] == 100
        assert entry["samples"]["file"] == "s.npz"
        assert {"name", "weights_sha256", "resize", "block"} == entry["extractor"].keys()
        assert entry["reference"]["n"] == 200
        assert entry["reference"]["dataset"] == "synthetic train"
        assert len(entry["reference"]["sha256"]) == 64
        assert {"torch", "lorafusion", "git"} <= entry["versions"].keys()
        out = capsys.readouterr().out
        assert "reference: synthetic train, N = 200" in out
        assert out.splitlines()[-1] == str(tmp_path / "out")

    def test_real_is_near_and_noise_is_far(self, tmp_path):
        entry = run(tmp_path, written(tmp_path / "s.npz"), "controls=true")[FID]
        real, noise = (entry["controls"][name][FID] for name in ("real test images", "uniform noise"))
        assert entry[FID] == real  # these samples are the test images
        assert 0 < real < 0.05 * noise

    def test_the_same_set_is_at_0(self, tmp_path):
        assert run(tmp_path, written(tmp_path / "s.npz", gratings("train")))[FID][FID] == pytest.approx(0, abs=1e-12)

    def test_statistics_are_kept_and_may_be_given(self, tmp_path):
        samples = written(tmp_path / "s.npz")
        made = run(tmp_path, samples)[FID]
        kept = tmp_path / "data/statistics" / made["reference"]["file"]
        before = kept.stat().st_mtime_ns
        assert run(tmp_path, samples)[FID][FID] == made[FID]
        assert kept.stat().st_mtime_ns == before
        given = run(tmp_path, samples, f"reference={kept}", "data.resolution=64")[FID]  # data is not looked at
        assert given[FID] == made[FID]
        assert given["reference"]["sha256"] == made["reference"]["sha256"]
        kept.write_bytes(b"damaged")
        assert run(tmp_path, samples)[FID][FID] == made[FID]
        assert kept.stat().st_size > 100

    def test_statistics_that_do_not_fit_are_refused_by_name(self, tmp_path):
        samples = written(tmp_path / "s.npz")
        kept = tmp_path / "data/statistics" / run(tmp_path, samples)[FID]["reference"]["file"]
        small = written(tmp_path / "small.npz", gratings()[:, :8, :8])
        with pytest.raises(UserError, match="resolution is 16, not 8"):
            run(tmp_path, small, f"reference={kept}")
        with pytest.raises(UserError, match="weights_sha256 is"):
            run(tmp_path, samples, f"reference={kept}", "+metric.extractor.arguments.gain=2.0")
        with pytest.raises(UserError, match="extractor is module, not mine"):
            run(tmp_path, samples, f"reference={kept}", "metric.extractor.name=mine")
        bare = tmp_path / "bare.npz"
        np.savez(bare, mu=np.zeros(3), sigma=np.eye(3))
        with pytest.warns(UserWarning, match="does not say"), pytest.raises(UserError, match="has 3 features"):
            run(tmp_path, samples, f"reference={bare}")

    def test_samples_of_another_size_than_the_data_are_refused(self, tmp_path):
        with pytest.raises(UserError, match="8 x 8 pixels, 3 channels; data synthetic has 16 x 16"):
            run(tmp_path, written(tmp_path / "s.npz", gratings()[:, :8, :8]))

    def test_three_sets_give_the_minimum_the_mean_and_all(self, tmp_path):
        images = gratings()
        files = [written(tmp_path / f"{k}.npz", images[k::3][:33]) for k in range(3)]
        alone = [run(tmp_path, file)[FID][FID] for file in files]
        entry = run(tmp_path, f"[{','.join(map(str, files))}]")[FID]
        assert [found[FID] for found in entry["all"]] == alone
        assert entry["minimum"][FID] == min(alone)
        assert entry["mean"][FID] == pytest.approx(sum(alone) / 3)
        assert [subject["file"] for subject in entry["samples"]] == ["0.npz", "1.npz", "2.npz"]
        other = written(tmp_path / "other.npz", images[:20])
        with pytest.raises(UserError, match="equal in number and shape"):
            run(tmp_path, f"[{files[0]},{other}]")

    def test_agreement_with_the_classes_asked_for(self, tmp_path):
        images = gratings()
        brightest = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(images).float().mean(-1), 2).flatten(1)
        labels = brightest.argmax(1).numpy()
        labels[:25] = (labels[:25] + 1) % 4
        labels[90:] = -1
        samples = written(tmp_path / "s.npz", images, labels=labels)
        assert "agreement" not in run(tmp_path, samples)[FID]
        found = run(tmp_path, samples, "metric.extractor.num_classes=4")[FID]["agreement"]
        assert found == pytest.approx(65 / 90, abs=0.03)  # ties are broken by rounding


def _one_of(rank: int, port: int, arguments: tuple[str, ...]) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    evaluate(composed(*arguments))


def test_two_processes_write_what_one_writes(tmp_path):
    samples, more = written(tmp_path / "s.npz"), ("metric=fid", "metric.extractor.block=8")
    alone = run(tmp_path / "one", samples, *more)
    arguments = settings(tmp_path / "two", samples, f"out={tmp_path / 'two'}", *more)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=_one_of, args=(rank, port, arguments)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(100)
        assert process.exitcode == 0
    assert json.loads((tmp_path / "two/metrics.json").read_text()) == alone


class TestOthers:
    def test_kid_and_precision_recall(self, tmp_path):
        samples = written(tmp_path / "s.npz")
        kid = run(tmp_path, samples, "metric=kid", "metric.subset_size=50")["kernel_distance_module"]
        assert abs(kid["kernel_distance_module"]) < 4 * kid["std"]
        assert kid["subset_size"] == 50
        found = run(tmp_path, samples, "metric=precision_recall")["precision_recall_module"]
        assert found["precision"] > 0.6
        assert found["recall"] > 0.6

    def test_inception_score_needs_no_data(self, tmp_path):
        samples = written(tmp_path / "s.npz")
        found = run(tmp_path, samples, "metric=inception_score", "metric.splits=2", "data.resolution=64")
        assert 1 <= found["classifier_score_module"]["classifier_score_module"] <= 4
        assert found["classifier_score_module"]["reference"] is None

    def test_settings_that_do_not_suit_the_samples_are_one_line(self, tmp_path):
        with pytest.raises(UserError, match="subset_size=1000"):
            run(tmp_path, written(tmp_path / "s.npz"), "metric=kid")
