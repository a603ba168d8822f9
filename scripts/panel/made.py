"""The files that scikit-learn ships, written as a user would have them."""

from pathlib import Path

import pandas as pd
from sklearn import datasets

_SHIPPED = ("breast_cancer", "wine", "digits", "diabetes")


def write_made(folder: Path) -> None:
    """Writes each table once, as a CSV file with its target in the column ``target``.

    Args:
        folder: Where they go; what is there is left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _SHIPPED:
        path = folder / f"{name}.csv"
        if not path.exists():
            getattr(datasets, f"load_{name}")(as_frame=True).frame.to_csv(path, index=False)
    path = folder / "friedman1.csv"
    if not path.exists():
        x, y = datasets.make_friedman1(20_000, noise=1.0, random_state=0)
        frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
        frame.assign(target=y).to_csv(path, index=False)
