"""Rankings of candidate edges without a network: their neighbours, degrees and features."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datamodules.batches import GraphBatch
from datamodules.own.links import common_neighbours

_MAX_PAIRS = 20_000
_HITS_AT = 50


def link_rivals(
    train: GraphBatch, test: GraphBatch, x: Tensor | None
) -> dict[str, dict[str, float]]:
    """Scores of each ranking, by metric and then by method.

    Args:
        train: Training candidates.
        test: Test candidates and the messages they are scored in.
        x: Features of the nodes, ``(N, F)``; None for none.
    """
    assert test.multiplicity is not None
    pairs, y = test.edge_index[:, test.mask], test.y[test.mask].numpy()
    messages = test.edge_index[:, test.multiplicity > 0]
    scores = {
        name: score.numpy()
        for name, score in common_neighbours(messages, pairs, len(test.x)).items()
    }
    if x is not None:
        known = train.edge_index[:, train.mask]
        scores["logistic regression on the two nodes"] = _by_features(
            x, known, train.y[train.mask].numpy(), pairs
        )
    found: dict[str, dict[str, float]] = {}
    for name, score in scores.items():
        found.setdefault("test/auc", {})[name] = float(roc_auc_score(y, score))
        precision = float(average_precision_score(y, score))
        found.setdefault("test/average_precision", {})[name] = precision
        hits = f"test/hits_at_{_HITS_AT}"
        found.setdefault(hits, {})[name] = _hits(score, y)
    return found


def _by_features(
    x: Tensor, known: Tensor, y: "np.ndarray[tuple[int], np.dtype[np.int64]]", asked: Tensor
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Log-odds of a regression on the product and the distance of two nodes' features."""
    rows = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))[:_MAX_PAIRS]
    told, wanted = (_products(x, pairs) for pairs in (known[:, rows], asked))
    scaler = StandardScaler().fit(told)
    model = LogisticRegression(C=0.1, max_iter=200).fit(scaler.transform(told), y[rows.numpy()])
    odds: np.ndarray[tuple[int], np.dtype[np.float64]] = model.decision_function(
        scaler.transform(wanted)
    )
    return odds


def _products(x: Tensor, pairs: Tensor) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    first, second = x[pairs[0]].double(), x[pairs[1]].double()
    found: np.ndarray[tuple[int, int], np.dtype[np.float64]] = torch.cat(
        [first * second, (first - second).abs()], dim=1
    ).numpy()
    return found


def _hits(
    score: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    y: "np.ndarray[tuple[int], np.dtype[np.int64]]",
) -> float:
    absent = np.sort(score[y == 0])[::-1]
    bar = absent[_HITS_AT - 1] if len(absent) >= _HITS_AT else -np.inf
    return float((score[y == 1] > bar).mean())
