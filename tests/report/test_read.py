"""Files that are torn, damaged or hostile are said to be so, and what is whole in them is read."""

import pytest

from lorafusion.report.read import Damaged, history, json_object, yaml_object


def test_history_by_images_seen(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,loss,nimg,val_loss\r\n1,0.5,128.0,\r\n2,0.25,256.0,\r\n2,,256.0,0.3\r\n")
    assert history(file) == ({"loss": [(128.0, 0.5), (256.0, 0.25)], "val_loss": [(256.0, 0.3)]}, [])


def test_a_torn_last_line_is_left_out_even_where_it_would_parse(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,nimg,loss\n1,128.0,0.5\n2,256.0,0.04")  # 0.0415, cut off
    columns, left_out = history(file)
    assert columns == {"loss": [(128.0, 0.5)]}
    assert left_out == ["line 3 is cut off"]


def test_lines_that_do_not_fit_are_left_out(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,nimg,loss\n1,128.0,0.5\n2,256.0\n3,x,0.1\n4,,0.1\n5,640.0,nan\n")
    columns, left_out = history(file)
    assert [x for x, _ in columns["loss"]] == [128.0, 640.0]
    assert [line.split()[1] for line in left_out] == ["3", "4", "5"]


def test_of_others_the_steps(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,0.5\n")
    assert history(tmp_path / "metrics.csv") == ({"loss": [(1.0, 0.5)]}, [])


def test_a_resumed_runs_later_value_counts(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("step,nimg,loss\n2,256.0,9\n1,128.0,8\n1,128.0,7\n")
    assert history(file)[0] == {"loss": [(128.0, 7.0), (256.0, 9.0)]}


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe\x00", b"step,nimg\n", b'"', b"a\x00b,c\n1,2\n"])
def test_csv_of_nothing(tmp_path, content):
    file = tmp_path / "metrics.csv"
    file.write_bytes(content)
    try:
        assert history(file)[0] == {}
    except Damaged as damage:
        assert str(damage) == "is not text"  # noqa: PT017


def test_there_is_no_file(tmp_path):
    assert history(tmp_path / "metrics.csv") == ({}, [])
    assert json_object(tmp_path / "status.json") == {}


@pytest.mark.parametrize("content", ['{"state": "fin', "[1, 2]", "[" * 100_000, '{"a":' * 100_000, "\0"])
def test_damaged_json(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(Damaged):
        json_object(tmp_path / "a.json")


@pytest.mark.parametrize(
    "content",
    [
        "a: [1,",
        "- 1",
        "just words",
        "a: !!python/object/apply:os.system ['true']",
        "a: &a [1]\nb: [*a, *a]",
        "a: " + "[" * 30_000 + "]" * 30_000,  # crashes the fast reader
        "\n".join(f"{' ' * k}a:" for k in range(60)),
        "[1]: 2",
        "a: 2001-99-99",
    ],
)
def test_damaged_or_hostile_yaml(content):
    with pytest.raises(Damaged):
        yaml_object(content)


def test_too_large(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(Damaged, match="larger than 4 MiB"):
        json_object(tmp_path / "a.json")
