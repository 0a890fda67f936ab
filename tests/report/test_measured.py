"""Which numbers metrics.json files hold, and which of several is shown."""

import json

from lorafusion.report.measured import measured

DIGITS = {
    "samples": {"file": "samples.npz", "n": 256},
    "classifier_frechet_distance": 37.5,
    "recognised": 0.75,
    "agreement": None,
    "extractor": {"held_out_accuracy": 0.97},
    "recognised_above": 0.9,
    "rows": {"samples": {"recognised": 0.75}},
}


def put(folder, place, content):
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text(content if isinstance(content, str) else json.dumps(content))


def test_numbers_without_settings_and_parts(tmp_path):
    bpd = {"checkpoint": {"images_seen": 9}, "bits_per_dim": 3.5, "n": 10, "total": 3.5, "error": 0.1, "steps": 1000}
    put(tmp_path, "samples/000000001000/metrics.json", {"digits": DIGITS})
    put(tmp_path, "metrics/000000000009/metrics.json", {"bpd": bpd})
    values, problems = measured(tmp_path)
    assert problems == []
    found = {(v.entry, v.name): (v.value, v.n, v.nimg) for v in values}
    assert found == {
        ("digits", "classifier_frechet_distance"): (37.5, 256, 1000),
        ("digits", "recognised"): (0.75, 256, 1000),
        ("bpd", "bits_per_dim"): (3.5, 10, 9),
    }


def test_the_newest_weights_then_the_most_images(tmp_path):
    def fid(value, n):
        return {"fid": {"fid": value, "n": n}}

    put(tmp_path, "samples/000000001000/metrics.json", fid(9.0, 50_000))
    put(tmp_path, "samples/000000002000/metrics.json", fid(8.0, 1_000))
    put(tmp_path, "metrics/000000002000/metrics.json", fid(7.0, 50_000))
    put(tmp_path, "metrics.json", fid(1.0, 100))
    (value,) = measured(tmp_path)[0]
    assert (value.value, value.origin) == (7.0, "metrics/000000002000/metrics.json")


def test_samples_say_what_drew_them(tmp_path):
    made = {"checkpoint": {"images_seen": 777}, "n": 4}
    put(tmp_path, "samples/final/metrics.json", {"fid": {"fid": 2.0, "samples": {"n": 9}, "made": made}})
    put(tmp_path, "metrics.json", {"kid": {"kid": 0.5, "std": 0.1, "best": 0.4, "images_seen": 640, "made": [made]}})
    found = {v.name: (v.value, v.n, v.nimg) for v in measured(tmp_path)[0]}
    assert found == {"fid": (2.0, 9, 777), "kid": (0.5, 4, 640)}


def test_of_several_sets_the_least_distance_and_the_mean_share(tmp_path):
    less, more = {"fid": 1.9, "recall": 0.5}, {"fid": 2.0, "recall": 0.6}
    put(tmp_path, "samples/metrics.json", {"fid": {"samples": [{"n": 50_000}] * 3, "minimum": less, "mean": more}})
    put(tmp_path, "metrics/7/metrics.json", {"kid": {"minimum": {"kid": 1.0}, "mean": {"kid": 2.0}, "all": [{"n": 9}]}})
    found = {v.name: (v.value, v.n) for v in measured(tmp_path)[0]}
    assert found == {"fid": (1.9, 50_000), "recall": (0.6, 50_000), "kid": (1.0, 9)}


def test_numbers_that_are_none(tmp_path):
    put(tmp_path, "metrics.json", '{"fid": {"fid": NaN, "n": NaN, "images_seen": Infinity, "nfe": -Infinity}}')
    (value,) = measured(tmp_path)[0]
    assert (value.n, value.nimg, value.nfe) == (None, None, None)
    assert value.value != value.value


def test_damaged_files_are_named(tmp_path):
    put(tmp_path, "metrics.json", '{"fid": {"fid": 1.')
    put(tmp_path, "samples/1/metrics.json", {"fid": 3, "odd": [1], "kid": {"kid": "low", "samples": []}})
    assert measured(tmp_path) == ([], ["metrics.json is not JSON"])
