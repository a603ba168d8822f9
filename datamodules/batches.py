"""The batch contracts: one NamedTuple per family, shared by every datamodule and model.

Shape letters: B batch, T and S lengths, D width, K classes, V vocabulary, N nodes, E edges,
F node features, H horizon. Masks are boolean; True marks what is real or may be attended.
"""

from typing import NamedTuple

from torch import Tensor

# The first tokens of every vocabulary that a SequencePairBatch is written in.
PAD, BOS, EOS = 0, 1, 2


class SupervisedBatch(NamedTuple):
    """Features and target of a table.

    Attributes:
        x: Features, ``(B, D)``, in the units of the data.
        y: Target, ``(B, K)`` float for regression or ``(B,)`` long for classification.
        categories: Codes of categories, ``(B, C)``, that a loader turns into columns of ``x``, one
            per category; None in the batches that models see.
        weight: Weight of each row in the loss, ``(B,)`` float64; None where all weigh the same.
    """

    x: Tensor
    y: Tensor
    categories: Tensor | None = None
    weight: Tensor | None = None


class SeriesBatch(NamedTuple):
    """Windows of time series and what follows each; fields of a user's file may be None.

    Of M targets that are forecast together, ``y`` and ``mask`` are ``(B, H, M)`` and
    ``naive_error`` is ``(B, M)``.

    Attributes:
        x: Observed window, ``(B, T, D)``; channel 0 is the series to forecast (channels 0 to M - 1
            of several), the next K are known ahead.
        y: The next values of channel 0, ``(B, H)``.
        mask: True where ``y`` was measured and is scored, ``(B, H)``; None where it is everywhere.
        known: The K channels at the steps to forecast, ``(B, H, K)``.
        series: Number of the series, ``(B,)`` long; negative for one that training did not have.
        time: Place of the first target among the rows of all series, ``(B,)`` long.
        center: Mean of each channel in the series' training rows, ``(B, D)``; None where one scale
            serves all windows.
        scale: Standard deviation, likewise.
        naive_error: Mean absolute error of the naive forecast in the series' training rows,
            ``(B,)``: the unit of the mean absolute scaled error.
    """

    x: Tensor
    y: Tensor
    mask: Tensor | None = None
    known: Tensor | None = None
    series: Tensor | None = None
    time: Tensor | None = None
    center: Tensor | None = None
    scale: Tensor | None = None
    naive_error: Tensor | None = None


class SequencePairBatch(NamedTuple):
    """A source sequence and its target; padding stands at the end of a row.

    Attributes:
        src: Source tokens, ``(B, S)``.
        tgt: Target tokens from BOS to EOS, ``(B, T+1)``; the decoder reads ``[:, :-1]`` and is
            scored on ``[:, 1:]``.
        src_mask: True at real source tokens, ``(B, S)``.
        tgt_mask: True at real target tokens, ``(B, T+1)``.
    """

    src: Tensor
    tgt: Tensor
    src_mask: Tensor
    tgt_mask: Tensor


class TokenBatch(NamedTuple):
    """Tokens with a label at each position; the datamodule has aligned them.

    Attributes:
        tokens: Input tokens, ``(B, T)``.
        labels: Label of each position, ``(B, T)``; -100 carries no loss.
        segments: Segment of each token (0 or 1), ``(B, T)``, for sentence pairs; of next tokens the
            number of its document, where documents are apart.
        is_next: 1 where the second segment follows the first, ``(B,)``.
        mask: True at real tokens, ``(B, T)``; None when nothing is padded.
        y: Class of each text, ``(B,)``, for classifiers.
        group: Group each label is also scored in, ``(B, T)``; -1 for none.
    """

    tokens: Tensor
    labels: Tensor
    segments: Tensor | None = None
    is_next: Tensor | None = None
    mask: Tensor | None = None
    y: Tensor | None = None
    group: Tensor | None = None


class ExamplesBatch(NamedTuple):
    """Examples of a task that a model must find in its context; each row is a task of its own.

    Attributes:
        x: Inputs, ``(B, T, D)``; example t follows t others.
        y: Targets, ``(B, T)``; a forecast of ``y[:, t]`` sees ``x[:, : t + 1]`` and ``y[:, :t]``.
    """

    x: Tensor
    y: Tensor


class GraphBatch(NamedTuple):
    """One graph, or several side by side in one block-diagonal graph.

    Attributes:
        x: Node features, ``(N, F)``; sparse CSR where most of them are zero.
        edge_index: Source and target node of each edge, ``(2, E)``.
        edge_weight: Weight of each edge, ``(E,)``, or None for 1.
        y: Target of each node, edge or graph.
        mask: True where ``y`` is scored.
        graph: Graph each node belongs to, ``(N,)`` ascending, or None for a single graph.
        edge_attr: Features of each edge, ``(E, A)``, or None for none.
        num_graphs: Number of graphs.
        multiplicity: How many edges each edge stands for where messages are gathered, ``(E,)``: 0
            for a candidate, which is scored and carries no message, more than 1 where neighbours
            are sampled. None for 1.
        degree: Weight of all edges into each node of the whole graph and of its self-loop,
            ``(N,)``, where neighbours are sampled.
    """

    x: Tensor
    edge_index: Tensor
    edge_weight: Tensor | None
    y: Tensor
    mask: Tensor
    graph: Tensor | None = None
    edge_attr: Tensor | None = None
    num_graphs: int = 1
    multiplicity: Tensor | None = None
    degree: Tensor | None = None


class GraphSeriesBatch(NamedTuple):
    """Windows of node series on one fixed graph.

    Attributes:
        x: Observed windows, ``(B, T, N, F)``; feature 0 is the series to forecast.
        y: The next values of feature 0, ``(B, H, N)``.
        edge_index: Source and target node of each edge, ``(2, E)``.
        edge_weight: Weight of each edge, ``(E,)``, or None for 1.
    """

    x: Tensor
    y: Tensor
    edge_index: Tensor
    edge_weight: Tensor | None

    @property
    def shared(self) -> tuple[str, ...]:
        """Fields without rows: the one graph that all windows live on."""
        return ("edge_index", "edge_weight")


class SampleBatch(NamedTuple):
    """Samples of a distribution to be learned by a generative model.

    Attributes:
        x0: Samples, ``(B, ...)``, in the units of the data.
        y: Class of each sample, ``(B,)``, for conditional models.
    """

    x0: Tensor
    y: Tensor | None = None
