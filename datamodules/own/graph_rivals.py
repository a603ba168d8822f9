"""Cheap rivals of a graph model on the same targets: features alone, and neighbours alone."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from datamodules.batches import GraphBatch
from datamodules.graph_base import Level
from datamodules.own.graph_targets import Targets
from datamodules.own.known_labels import LabelSpread

Scores = dict[str, dict[str, float]]
_MAX_ROWS = 20_000


def graph_rivals(
    graphs: Sequence[GraphBatch], targets: Targets, level: Level, train: Tensor, test: Tensor
) -> Scores:
    """Scores of regression on the features, and of label propagation on one graph.

    Args:
        graphs: All graphs.
        targets: Their targets.
        level: What a target belongs to; of a graph, means and sums of its features count.
        train: Numbers of the targets to fit on.
        test: Numbers of those to score.
    """
    if targets.task == "multilabel" or bool(targets.y.isnan().any()):
        return {}
    classification, width = targets.task == "classification", len(targets.names)
    one = len(graphs) == 1
    if level == "graph":
        x = torch.stack([_pooled(graph) for graph in graphs])
    else:
        x = graphs[0].x if one else torch.cat([graph.x for graph in graphs])
    found = features_alone(x, targets.y, train, test, classification, width)
    if one and classification:
        return together(found, label_propagation(graphs[0], targets.y, train, test, width))
    return found


def _pooled(graph: GraphBatch) -> Tensor:
    """Means and sums of a graph's features, and its numbers of nodes and edges."""
    size = torch.tensor([float(len(graph.x)), float(graph.edge_index.shape[1])])
    return torch.cat([graph.x.mean(0), graph.x.sum(0), size])


def _dense(x: Tensor) -> Tensor:
    return x.to_dense() if x.layout != torch.strided else x


def features_alone(
    x: Tensor, y: Tensor, train: Tensor, test: Tensor, classification: bool, num_classes: int
) -> Scores:
    """Logistic or ridge regression on the features of each target.

    Args:
        x: Features, ``(M, F)``.
        y: Targets, ``(M,)`` classes or ``(M, 1)`` numbers.
        train: Rows to fit on.
        test: Rows to score.
        classification: Whether targets are classes.
        num_classes: Number of classes.
    """
    rows = train[:_MAX_ROWS]
    features = _dense(x).double().numpy()
    scaler = StandardScaler().fit(features[rows])
    fitted, asked = scaler.transform(features[rows]), scaler.transform(features[test])
    if not classification:
        error = Ridge(1.0).fit(fitted, y[rows].numpy()).predict(asked) - y[test].numpy().squeeze()
        error = error.reshape(len(test), -1)
        name = "ridge regression on the features"
        mse, mae = float((error**2).mean()), float(abs(error).mean())
        return {"test/mse": {name: mse}, "test/mae": {name: mae}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(max_iter=300).fit(fitted, y[rows].numpy())
    probability = np.full((len(test), num_classes), 1e-12)
    probability[:, model.classes_] = model.predict_proba(asked).clip(1e-12)
    truth = y[test].numpy()
    name = "logistic regression on the features"
    loss = -np.log(probability[np.arange(len(test)), truth]).mean()
    accuracy = (probability.argmax(1) == truth).mean()
    return {
        "test/accuracy": {name: float(accuracy)},
        "test/cross_entropy": {name: float(loss)},
    }


def label_propagation(
    graph: GraphBatch, y: Tensor, train: Tensor, test: Tensor, num_classes: int
) -> Scores:
    """Labels of the training nodes, spread along the edges without any features.

    Zhou et al., "Learning with Local and Global Consistency" (2004), 50 steps.

    Args:
        graph: The one graph.
        y: Class of each node, ``(N,)``.
        train: Nodes whose class is given.
        test: Nodes to score.
        num_classes: Number of classes.
    """
    state = LabelSpread(graph, y, num_classes)(train)
    prior = torch.bincount(y[train], minlength=num_classes) / len(train)
    state = torch.where(state.sum(1, keepdim=True) > 0, state, prior)
    accuracy = (state[test].argmax(1) == y[test]).double().mean().item()
    return {"test/accuracy": {"label propagation": accuracy}}


def together(*scores: Scores) -> Scores:
    """Rivals by metric, then by method."""
    found: Scores = {}
    for part in scores:
        for metric, methods in part.items():
            found.setdefault(metric, {}).update(methods)
    return found
