"""The bar appears only where the work takes long."""

import time

from lorafusion.data.progress import Progress


def slow(n: int):
    for k in range(n):
        time.sleep(0.06)
        yield k


def test_it_says_how_many_and_how_fast(capsys):
    with Progress("decoding", 8, delay=0.1) as progress:
        assert list(progress.over(slow(8))) == list(range(8))
    shown = capsys.readouterr().err
    assert "decoding" in shown
    assert "8/8" in shown
    assert 5 <= float(shown.split(" images/s")[0].split()[-1]) <= 17  # at most one in 0.06 s


def test_short_work_shows_nothing(capsys):
    with Progress("decoding", 4) as progress:
        assert list(progress.over(slow(4))) == list(range(4))
    assert capsys.readouterr().err == ""


def test_the_bar_ends_with_the_work_that_fails(capsys):
    progress = Progress("decoding", 8, delay=0.1)
    try:
        with progress:
            for k in progress.over(slow(8)):
                if k == 5:
                    raise ValueError
    except ValueError:
        pass
    assert progress.bar is not None
    assert progress.bar.finished is False
    assert not progress.bar.live.is_started
    assert "decoding" in capsys.readouterr().err
