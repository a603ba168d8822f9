"""What the panel fits: real files, each with the documented command of its family."""

from dataclasses import dataclass
from typing import Literal

Better = Literal["smaller", "larger"]


@dataclass(frozen=True)
class Entry:
    """A file and the command for it.

    Attributes:
        name: Name of the row, and of its work folder.
        path: The file under the data folder; ``made/`` holds what scikit-learn ships.
        origin: Where the file comes from and how it is laid out.
        args: Options of ``lit-models fit``; ``{data}`` stands for the data folder.
        metric: What is compared with the rivals.
        better: Whether a smaller or a larger metric wins.
        data_seeds: Whether another seed also makes another split.
        reason: Why it is behind, where it is.
    """

    name: str
    path: str
    origin: str
    args: tuple[str, ...]
    metric: str
    better: Better = "smaller"
    data_seeds: bool = True
    reason: str = ""

    def command(self, seed: int, data: str) -> list[str]:
        """Arguments of ``lit-models`` for a seed."""
        seeds = ["--seed_everything", str(seed)]
        seeds += ["--data.seed", str(seed)] if self.data_seeds else []
        return ["fit", *(word.replace("{data}", data) for word in self.args), *seeds]


def _table(
    path: str, origin: str, target: str, metric: str, *options: str, reason: str = ""
) -> Entry:
    args = ("--config", "table", "--data.path", f"{{data}}/{path}", "--data.target", target)
    better: Better = "larger" if metric == "test/accuracy" else "smaller"
    name = path.rpartition("/")[2].removesuffix(".csv")
    return Entry(name, path, origin, (*args, *options), metric, better, reason=reason)


def _series(path: str, origin: str, target: str, *options: str, metric: str = "test/mse") -> Entry:
    args = ("--config", "lstm", "--config", "real_series", "--data.path", f"{{data}}/{path}")
    name = path.rpartition("/")[2].removesuffix(".csv")
    return Entry(
        name, path, origin, (*args, "--data.target", target, *options), metric, data_seeds=False
    )


def _weekly(path: str, origin: str) -> Entry:
    stem = path.removesuffix(".csv")
    paths = ("--data.path", f"{{data}}/{path}", "--data.edges_path", f"{{data}}/{stem}_edges.csv")
    args = ("--config", "stgnn", "--config", "stgnn_weekly", *paths)
    origin = f"weekly {origin}, from pytorch_geometric_temporal"
    return Entry(stem.rpartition("/")[2], path, origin, args, "test/mse", data_seeds=False)


_SHIPPED = "shipped with scikit-learn"
_PLOTS = "example data of the plotting library seaborn, empty cells and text columns as published"
_UCI = "UCI machine learning repository"
_HEADERLESS = ("--data.header", "none")
ENTRIES: tuple[Entry, ...] = (
    _table(
        *("made/breast_cancer.csv", _SHIPPED, "target", "test/accuracy"),
        reason="One of 342 test rows; over twenty splits the two are equal (tables.md).",
    ),
    _table("made/wine.csv", _SHIPPED, "target", "test/accuracy"),
    _table("made/digits.csv", _SHIPPED, "target", "test/accuracy"),
    _table("made/diabetes.csv", _SHIPPED, "target", "test/mse"),
    _table("made/friedman1.csv", f"{_SHIPPED} (`make_friedman1`)", "target", "test/mse"),
    _table("tables/penguins.csv", _PLOTS, "species", "test/accuracy"),
    _table(
        *("tables/titanic.csv", _PLOTS, "survived", "test/accuracy", "--data.drop", "[alive]"),
        reason="Seven of 534 test rows; over twenty splits the ratio is 1.005 (tables.md).",
    ),
    _table("tables/mpg.csv", _PLOTS, "mpg", "test/mse"),
    _table(
        *("tables/diamonds.csv", _PLOTS, "price", "test/mse"),
        reason="Trees cut where the price jumps: the 18 % of rows near 1, 1.5 and 2 carat make two "
        "fifths of the difference.",
    ),
    _table("tables/wine_semicolon.csv", f"{_UCI}, wine quality, `;`", "quality", "test/accuracy"),
    _table("tables/german.csv", f"{_UCI}, no header", "column_21", "test/accuracy", *_HEADERLESS),
    _table(
        *("tables/breast-cancer-wisconsin.csv", f"{_UCI}, no header, `?` for missing", "column_10"),
        *("test/accuracy", *_HEADERLESS),
    ),
    _table(
        *("tables/pima-indians-diabetes.csv", f"{_UCI}, no header", "column_9", "test/accuracy"),
        *_HEADERLESS,
    ),
    _series(
        *("ett/ETTh1.csv", "electricity transformers, hourly, columns as published", "OT"),
        *("--data.window", "96", "--data.horizon", "24", "--data.season", "24"),
        *("--data.num_train_rows", "8640", "--data.val_rows", "2880", "--data.test_rows", "2880"),
    ),
    _series(
        *("series/m4_hourly_60.csv", "60 of the M4 competition's hourly series, long", "value"),
        *("--data.series", "id", "--data.window", "168", "--data.horizon", "48"),
        *("--data.season", "24"),
        metric="test/smape",
    ),
    _series(
        *("series/daily-min-temperatures.csv", "Melbourne, ten years of days", "Temp"),
        *("--data.window", "60", "--data.horizon", "7", "--data.gaps", "fill"),
    ),
    _series(
        *("series/monthly-sunspots.csv", "Zurich, monthly since 1749", "Sunspots"),
        *("--data.window", "132", "--data.horizon", "12"),
    ),
    _weekly("node_series/pedalme.csv", "deliveries in 15 places of London, with distances"),
    _weekly("made/chickenpox.csv", "cases in 20 counties of Hungary, with neighbours"),
    Entry(
        *("cora", "made/cora.csv"),
        "papers with their words and citations, the text files of the Planetoid authors",
        (
            *("--config", "gcn", "--config", "graph", "--data.path", "{data}/made/cora.csv"),
            *("--data.edges_path", "{data}/made/cora_edges.csv"),
        ),
        "test/accuracy",
        "larger",
    ),
    Entry(
        *("tinyshakespeare", "tinyshakespeare/input.txt"),
        "Karpathy's char-rnn corpus",
        (
            *("--config", "gpt", "--config", "text"),
            *("--data.path", "{data}/tinyshakespeare/input.txt"),
        ),
        "test/cross_entropy",
        data_seeds=False,
    ),
)
