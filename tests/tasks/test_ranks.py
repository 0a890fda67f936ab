"""Several processes, or several micro-batches, compute what one computes: gradients, order, noise, rate, averages."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lorafusion.denoisers.timesteps import LossSecondMoment
from tests.tasks.ranks import BATCH, DENOISERS, Step, Training, settings, train

STEPS = 3
SHAPES = [  # float64, processes, micro-batches of each; one of each is what the others are compared with
    *((True, 1, 1), (True, 1, 4), (True, 2, 2)),
    *((False, 1, 1), (False, 2, 2)),
]
FURTHER = [(True, 1, 2), (True, 2, 1), (True, 4, 1), (False, 1, 4)]  # with one denoiser: each takes a second
CASES = [(name, *shape) for shape in SHAPES for name in DENOISERS] + [("nano", *shape) for shape in FURTHER]


def called(*key: object) -> str:
    return "-".join(map(str, key))


def assert_close(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float) -> None:
    """|a - b| <= tolerance |a| for each parameter, and for all together.

    A gradient's rounding is that of what cancels in it (a bias before a norm has no other gradient), so one that is
    less than a thousandth of all together is compared with a thousandth; in float32 each may be 5 times farther off.
    """
    assert a.keys() == b.keys()
    total = torch.stack([g.norm() for g in a.values()]).norm()
    errors = {name: (b[name] - g).norm() for name, g in a.items()}
    assert torch.stack([*errors.values()]).norm() < tolerance * total
    each = tolerance if total.dtype == torch.float64 else 5 * tolerance
    sizes = {name: torch.maximum(g.norm(), total / 1000) for name, g in a.items()}
    assert {name: float(e / sizes[name]) for name, e in errors.items() if not e < each * sizes[name]} == {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def trained(folder) -> dict[str, list[list[Step]]]:
    """denoiser-float64-processes-micro-batches -> the steps of each rank."""
    found = {}
    for world_size in (1, 2, 4):
        here = [case for case in CASES if case[2] == world_size]
        trainings = [
            Training(
                called(*case),
                settings(folder / "run", case[0], f"images={STEPS * BATCH}"),
                accumulate=case[3],
                double=case[1],
            )
            for case in here
        ]
        found |= train(world_size, trainings, folder / str(world_size))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES if c[2:] != (1, 1)], ids=lambda case: called(*case))
class TestAreOne:
    @pytest.fixture
    def pair(self, trained, case) -> tuple[list[Step], list[list[Step]]]:
        return trained[called(*case[:2], 1, 1)][0], trained[called(*case)]

    @pytest.fixture
    def double(self, case) -> bool:
        return case[1]

    def test_gradients(self, pair, double):
        """Of every parameter in every step, on every rank."""
        one, ranks = pair
        for steps in ranks:
            for a, b in zip(one, steps, strict=True):
                assert {g.dtype for g in a.gradients.values()} == {torch.float64 if double else torch.float32}
                assert_close(a.gradients, b.gradients, 1e-12 if double else 1e-5)

    def test_order_and_noise(self, pair, double):
        """An image's loss says which image it was, at which noise level, with which noise."""
        one, ranks = pair
        for k, a in enumerate(one):
            index, loss = (torch.cat([getattr(steps[k], part) for steps in ranks]) for part in ("index", "loss"))
            order = index.argsort()
            assert torch.equal(index[order], torch.arange(k * BATCH, (k + 1) * BATCH))
            tolerance = 1e-12 if double else 1e-5
            torch.testing.assert_close(loss[order], a.loss[a.index.argsort()], rtol=tolerance, atol=0)

    def test_rate_and_averages(self, pair, double):
        one, ranks = pair
        assert [step.lr for step in one] == pytest.approx([0.01 * k * BATCH / 60 for k in range(STEPS)])
        for steps in ranks:
            for a, b in zip(one, steps, strict=True):
                assert a.lr == b.lr
                for parameter, average in a.ema.items():
                    near = {"rtol": 1e-11, "atol": 1e-13} if double else {"rtol": 1e-5, "atol": 1e-8}
                    torch.testing.assert_close(b.ema[parameter], average, **near)


RESUMED = [(2, 1), (3, 1), (1, 2)]  # processes, micro-batches


@pytest.fixture(scope="module")
def resumed(folder) -> dict[str, list[list[Step]]]:
    """A run of five steps, then from its third checkpoint cut in other ways; IDDPM with importance sampling."""
    found: dict[str, list[list[Step]]] = {}
    more = ("images=60", "process.objective=vlb", "denoiser.timesteps=loss_second_moment", "process.num_steps=3")
    own = settings(folder / "run", "iddpm", *more)
    checkpoints = folder / "checkpoints"
    found |= train(1, [Training("whole", own, double=True, save=str(checkpoints))], folder / "whole")
    third = str(checkpoints / f"{3 * BATCH:012d}.ckpt")
    for world_size, cuts in RESUMED:
        name = called("resumed", world_size, cuts)
        trainings = [Training(name, own, cuts, double=True, resume=third)]
        if world_size > 1:
            trainings.append(Training(called("fresh", world_size), own, double=True))
        found |= train(world_size, trainings, folder / name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("world_size", "cuts"), RESUMED)
class TestResumed:
    def test_on_another_number_it_repeats_and_loses_no_image(self, resumed, world_size, cuts):
        ranks = resumed[called("resumed", world_size, cuts)]
        for k, a in enumerate(resumed["whole"][0][3:], start=3):
            here = [steps[k - 3] for steps in ranks]
            index = torch.cat([step.index for step in here])
            assert torch.equal(index.sort().values, torch.arange(k * BATCH, (k + 1) * BATCH))
            for step in here:
                assert step.lr == a.lr
                assert_close(a.gradients, step.gradients, 1e-11)
        assert {len(steps) for steps in ranks} == {2}

    def test_timesteps_state_goes_on(self, resumed, world_size, cuts):
        whole = resumed["whole"][0]
        for steps in resumed[called("resumed", world_size, cuts)]:
            for a, b in zip(whole[3:], steps, strict=True):
                assert torch.equal(a.timesteps["counts"], b.timesteps["counts"])
                torch.testing.assert_close(a.timesteps["losses"], b.timesteps["losses"], rtol=1e-11, atol=0)
        assert whole[-1].timesteps["counts"].sum() == 5 * BATCH
        assert whole[-1].timesteps["counts"].min() >= 10  # it draws by importance


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_timesteps_state_is_that_of_one_process_given_the_same_losses(resumed, world_size):
    ranks = resumed[called("fresh", world_size)]
    alone = LossSecondMoment(3).double()
    for k in range(5):
        given = [steps[k].given for steps in ranks]
        assert [len(part[0]) for part in given] == [BATCH // world_size] * world_size
        alone.update(*(torch.cat(parts) for parts in zip(*given, strict=True)))
        for steps in ranks:
            assert torch.equal(steps[k].timesteps["losses"], alone.losses)
            assert torch.equal(steps[k].timesteps["counts"], alone.counts)
    for a, b in zip(resumed["whole"][0], ranks[0], strict=True):  # and so of the run on one
        torch.testing.assert_close(a.timesteps["losses"], b.timesteps["losses"], rtol=1e-11, atol=0)
