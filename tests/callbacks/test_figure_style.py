"""Every figure names its model and data, counts in whole numbers, and shows what is known."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from torch import nn

import callbacks.figures
from callbacks.figures.base import FigureCallback
from callbacks.figures.loss_curves import LossCurves
from callbacks.figures.style import finish, part_of, subject
from datamodules import Reference, SineDataModule


class LitThing(nn.Module):
    def __init__(self):
        super().__init__()
        self.rivals, self.scores = {}, {}


def trainer(folder, datamodule):
    return SimpleNamespace(
        default_root_dir=str(folder),
        datamodule=datamodule,
        lightning_module=LitThing(),
        loggers=[],
        global_step=3,
        is_global_zero=True,
        fast_dev_run=False,
    )


def test_a_title_names_model_and_data():
    assert subject(LitThing(), SineDataModule()) == "LitThing on SineDataModule"
    assert subject(LitThing(), SimpleNamespace(path="/a/b/c.csv")) == "LitThing on c.csv"


@pytest.mark.parametrize("own", ["", "four of 90 rows"])
def test_what_a_figure_says_itself_stays(own):
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1, 2], [1, 2, 3])
    axes.set(xlabel="steps ahead", ylabel="step size")
    if own:
        figure.suptitle(own)
    finish(figure, "LitThing on c.csv")
    assert figure.get_suptitle().splitlines() == ["LitThing on c.csv", *([own] if own else [])]
    figure.draw_without_rendering()
    assert all(tick == int(tick) for tick in axes.get_xticks())


def test_how_many_of_how_many():
    assert part_of(1000, 4000, "test rows") == "1,000 of 4,000 test rows"
    assert part_of(4000, 4000, "test rows") == "4,000 test rows"
    assert part_of(300, 0, "rows") == "300 rows"  # of an unknown number


def test_no_figure_has_a_size_of_text_of_its_own():
    folder = Path(callbacks.figures.__file__).parent
    sources = {path.name: path.read_text() for path in folder.glob("*.py")}
    assert len(sources) > 10
    assert [name for name, source in sources.items() if "fontsize=" in source] == []


def test_ticks_that_a_figure_places_stay():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([1, 100], [1, 2])
    axes.set(xscale="log", xlabel="steps")
    axes.set_xticks([1, 30], ["1", "30"])
    finish(figure, "a")
    assert list(axes.get_xticks()) == [1, 30]


def test_every_drawn_figure_passes_by(tmp_path, monkeypatch):
    finished = []
    monkeypatch.setattr(
        "callbacks.figures.base.finish", lambda figure, title: finished.append(title)
    )

    class Two(FigureCallback):
        def draw(self, trainer, pl_module):
            return {"a": Figure(), "b": Figure()}

    Two().on_test_end(trainer(tmp_path, SineDataModule()), LitThing())
    assert finished == ["LitThing on SineDataModule"] * 2
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"a.png", "b.png"}


def curves(tmp_path, losses, **published):
    rows = [f"{loss},{index},{loss}" for index, loss in enumerate(losses)]
    (tmp_path / "metrics.csv").write_text("\n".join(["train/loss,step,val/loss", *rows]) + "\n")
    data = SimpleNamespace(**published)
    model = LitThing()
    model.scores = {"test/loss": 0.5, "test/mse": 0.5, "test/mae": 0.7}
    axes = LossCurves().draw(trainer(tmp_path, data), model)["loss_curves"].axes[0]
    return axes, [line.get_label() for line in axes.get_lines()]


def test_losses_are_linear_within_a_decade(tmp_path):
    assert curves(tmp_path, [3.2, 2.7])[0].get_yscale() == "linear"
    assert curves(tmp_path, [3.2, 0.1])[0].get_yscale() == "log"


def test_no_logarithm_hides_the_optimum(tmp_path):
    nll = {"test/mse": Reference(-0.2, "known")}
    axes, labels = curves(tmp_path, [3.2, 0.1], optimum=nll)
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < -0.2
    nothing = {"test/mse": Reference(0.0, "known")}
    axes, labels = curves(tmp_path, [3.2, 0.1], optimum=nothing)
    assert axes.get_yscale() == "log"
    assert labels[-1] == "optimum 0 (below the axis)"


def test_the_optimum_of_the_loss_is_a_line(tmp_path):
    optimum = {"test/mse": Reference(0.4, "known"), "test/mae": Reference(0.1, "known")}
    axes, labels = curves(tmp_path, [3.0, 1.0], optimum=optimum)
    assert labels == ["train/loss", "val/loss", "optimum 0.4"]
    assert axes.get_lines()[-1].get_ydata()[0] == 0.4


def test_without_an_optimum_the_best_rival_is(tmp_path):
    rivals = {"test/mse": {"ridge": 0.6, "forest": 0.45}}
    assert curves(tmp_path, [3.0, 1.0], rivals=rivals)[1][-1] == "forest 0.45"
    assert len(curves(tmp_path, [3.0, 1.0], rivals={"test/mae": {"ridge": 0.6}})[1]) == 2
