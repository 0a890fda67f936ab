"""The front against a search through all pairs; where labels stand."""

import random
from itertools import pairwise

from lorafusion.report.groups import Group, grouped
from lorafusion.report.pareto import Point, front, labelled, paretos
from lorafusion.report.run import load
from tests.report import made_up


def test_the_front_is_what_no_other_point_beats():
    draw = random.Random(0)
    for best in (min, max):
        for _ in range(20):
            points = [Point(k, Group([]), draw.randrange(6), draw.randrange(6), None) for k in range(8)]
            sign = 1 if best is min else -1

            def beaten(p, points=points, sign=sign):
                return any(
                    q.cost <= p.cost and sign * q.value <= sign * p.value and (q.cost, q.value) != (p.cost, p.value)
                    for q in points
                )

            wanted = {(p.cost, p.value) for p in points if not beaten(p)}
            assert {(p.cost, p.value) for p in front(points, best)} == wanted


def test_pictures_of_each_metric_and_cost(tmp_path):
    groups = grouped([load(folder, folder.name) for folder in made_up.sweep(tmp_path)])
    found = dict(paretos(groups))
    assert {*found} == {"validation loss", "classifier Fréchet distance", "recognised"}
    for pictures in found.values():
        assert [picture.title for picture in pictures] == ["against parameters", "against multiply-adds of one image"]
        assert all(picture.svg.count("<circle") == 8 for picture in pictures)


def test_nothing_to_weigh(tmp_path):
    rows = [{"step": 1, "nimg": 1.0, "val_loss": 0.1}]
    groups = grouped([load(made_up.run(tmp_path / a, rows=rows, attn=a), a) for a in ("none", "uc_lora")])
    assert paretos(groups) == []


def test_labels_do_not_cover_each_other_where_there_is_room():
    spots = labelled([(200.0, 100.0, "one of them"), (204.0, 102.0, "another"), (202.0, 106.0, "third")])
    assert len({(round(x), round(y)) for x, y, _ in spots}) == 3
    rows = sorted(y for _, y, _ in spots)
    sides = {anchor for _, _, anchor in spots}
    assert len(sides) > 1 or all(b - a >= 10 for a, b in pairwise(rows))
