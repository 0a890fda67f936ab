"""The three files: what is in them, that nothing of a run's is markup, that nothing is asked of a network."""

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from lorafusion.report import compare
from lorafusion.report.find import find
from lorafusion.report.page import winners
from lorafusion.report.table import table
from tests.report import made_up

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    made_up.sweep(folder / "runs")
    compare.write(compare.read(find([str(folder / "runs")])), folder / "report")
    return folder / "report"


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"


def elements(file):
    found = Elements(file.read_text())
    assert found.open == []
    return found.found


def test_well_formed_and_whole(sweep):
    found = elements(sweep / "report.html")
    assert sum(tag == "tbody" and "data-group" in a for tag, a in found) == 8
    assert sum(tag == "tr" and a.get("class") == "run" for tag, a in found) == 16
    assert sum(tag == "details" and a.get("class") == "each" for tag, a in found) == 16
    ids = [a["id"] for _, a in found if "id" in a]
    assert len(ids) == len({*ids})
    for _, attributes in found:
        target = attributes.get("href") or ""
        assert not target or target[1:] in ids


def test_nothing_is_asked_of_a_network(sweep):
    found = elements(sweep / "report.html")
    policy = next(a["content"] for tag, a in found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert "http:" not in policy
    for tag, attributes in found:
        assert tag not in ("link", "iframe", "object", "base", "form")
        assert not any(name.startswith("on") or name == "style" for name in attributes), attributes
        assert attributes.get("src", "data:").startswith("data:")
    text = (sweep / "report.html").read_text()
    assert not re.search(r"url\((?!#)|@import|fetch\(|XMLHttpRequest|sendBeacon", text)


def test_markdown_is_a_table(sweep):
    text = (sweep / "report.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| conv | attention | seeds | state | validation loss |")
    assert len({line.count("|") - line.count("\\|") for line in rows[:10]}) == 1
    assert "**0.03" in text
    assert "loss is not finite at 46,080 images seen" in text
    assert "<" not in text.replace("&lt;", "")


def test_a_win_within_the_spread_is_said_to_be_so(tmp_path):
    values = {"none": (0.30, 0.40), "ada_ln": (0.36, 0.38), "uc_lora": (0.10, 0.10)}
    for attn, seeds in values.items():
        for seed, value in enumerate(seeds):
            rows = [{"step": 1, "nimg": 9.0, "val_loss": value, "fid": 10 * value if attn != "uc_lora" else ""}]
            made_up.run(tmp_path / "runs" / f"{attn}{seed}", rows=rows, attn=attn, seed=seed)
    groups = compare.read(find([str(tmp_path / "runs")]))
    loss, fid = winners(groups, table(groups))
    assert (loss.group.label, loss.text, loss.close) == ("shift + uc_lora", "0.1000", False)
    assert (fid.group.label, fid.second, fid.close) == ("shift", "shift + ada_ln 3.700", True)  # 3.5 ± 0.7, 3.7 ± 0.1
    compare.write(groups, tmp_path)
    assert (tmp_path / "report.html").read_text().count("within the spread") == 1


def test_csv_has_a_row_for_each_run(sweep):
    rows = [*csv.DictReader(io.StringIO((sweep / "report.csv").read_text()))]
    assert [row["folder"] for row in rows[:3]] == ["0", "1", "2"]
    assert len(rows) == 16
    assert float(rows[0]["val_loss"]) == pytest.approx(0.0437, rel=0.02)
    assert {row["state"] for row in rows} == {"finished", "failed", "killed"}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Everything that a run's files can say is a script, a Markdown cell or a formula."""
    folder = tmp_path_factory.mktemp("hostile")
    evil = EVIL + "|`[x](javascript:alert(1))"
    for k, name in enumerate(("<script>alert(1)", '"><img src=x onerror=alert(1)>', "=1+1")):
        run = made_up.run(
            folder / "runs" / name,
            rows=[{"step": n, "nimg": n * 1e4, "val_loss": 1 / n, f"{evil}": 2.0, "</script>": n} for n in (1, 2, 3)],
            status={"state": "failed", "error": evil},
            model={"parameters": 5 + k},
            metrics={"metrics.json": {evil: {evil: 1.5 + k}}},
            name=evil,
            data__name=evil,
            conditioning={"conv": {evil: {evil: k}}, "attn": {}},
        )
        (run / "overrides.txt").write_text(evil)
        (run / "versions.json").write_text('{"torch": "<script>alert(1)</script>"}')
    compare.write(compare.read(find([str(folder / "runs")])), folder / "report")
    return folder / "report"


def test_nothing_of_a_run_is_markup(hostile):
    found = elements(hostile / "report.html")
    scripts = [a for tag, a in found if tag == "script"]
    assert [a for a in scripts if a.get("type") != "application/json"] == [{}]  # ours
    assert not any("onerror" in a for _, a in found)
    assert not any((a.get("src") or "data:") != "x" and tag == "x" for tag, a in found)
    text = (hostile / "report.html").read_text()
    assert "alert(1)" in text
    assert EVIL not in text
    assert "<img src=x" not in text


def test_nothing_of_a_run_is_markdown_or_a_formula(hostile):
    text = (hostile / "report.md").read_text()
    assert "<script" not in text
    assert "](javascript" not in text.replace("\\]", "")
    rows = [*csv.reader(io.StringIO((hostile / "report.csv").read_text()))]
    assert len({len(row) for row in rows}) == 1
    assert not any(cell.startswith(("=", "@", "+")) for row in rows for cell in row)


def test_half_finished_runs(tmp_path):
    whole = made_up.run(tmp_path / "runs/whole", rows=made_up.curve(0.03, 0), grids=(20_000,))
    for name in ("torn", "bare", "empty", "damaged"):
        (tmp_path / "runs" / name).mkdir()
    text = (whole / "metrics.csv").read_text()
    (tmp_path / "runs/torn/metrics.csv").write_text(text[:-3])
    (tmp_path / "runs/bare/metrics.csv").write_text(text)
    (tmp_path / "runs/empty/metrics.csv").write_text("")
    (tmp_path / "runs/damaged/config.yaml").write_text("a: [")
    (tmp_path / "runs/damaged/status.json").write_text('{"state": "run')
    (tmp_path / "runs/damaged/samples").mkdir()
    (tmp_path / "runs/damaged/samples/grid_000000020000.png").write_bytes(b"\x89PNG")
    compare.write(compare.read(find([str(tmp_path / "runs")])), tmp_path / "report")
    elements(tmp_path / "report/report.html")
    page, table = ((tmp_path / "report" / name).read_text() for name in ("report.html", "report.md"))
    assert 'id="not-read"' in page
    for said in ("config.yaml is not YAML", "status.json is not JSON", "is cut off", "is no whole PNG"):
        assert said in page
        assert said in table.replace("\\", "")


def test_one_error_of_many_runs_is_said_once(tmp_path):
    for seed, said in enumerate(("no images", "no images", "no room")):
        made_up.run(tmp_path / "runs" / "abc"[seed], status={"state": "failed", "error": said}, seed=seed)
    compare.write(compare.read(find([str(tmp_path / "runs")])), tmp_path / "report")
    assert "- a, b failed: no images\n- c failed: no room\n" in (tmp_path / "report/report.md").read_text()
    assert (tmp_path / "report/report.html").read_text().count('<p class="error">') == 2


def test_one_run_alone(tmp_path):
    made_up.run(tmp_path / "only", rows=[{"step": 1, "nimg": 1.0, "loss": 1.0}])
    compare.write(compare.read(find([str(tmp_path / "only")])), tmp_path / "report")
    elements(tmp_path / "report/report.html")
    assert (tmp_path / "report/report.md").read_text().startswith("# 1 run\n")
