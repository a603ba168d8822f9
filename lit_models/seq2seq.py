r"""Recurrent sequence to sequence: a fixed context, or attention of Luong or Bahdanau.

With encoder states :math:`h_1, \dots, h_S`, decoder states :math:`s_t` and embedded tokens
:math:`y_t`:

.. math::
    \text{none:}\quad & c = [\overrightarrow{h}_S; \overleftarrow{h}_1], \quad
        s_t = f(s_{t-1}, [y_{t-1}; c]), \quad \tilde s_t = s_t \\
    \text{luong:}\quad & s_t = f(s_{t-1}, [y_{t-1}; \tilde s_{t-1}]), \quad
        a_t = \mathrm{softmax}_i \, \mathrm{score}(s_t, h_i), \quad
        c_t = \textstyle\sum_i a_{ti} h_i, \quad \tilde s_t = \tanh(W_c [c_t; s_t]) \\
    \text{bahdanau:}\quad & a_t = \mathrm{softmax}_i \, \mathrm{score}(s_{t-1}, h_i), \quad
        s_t = f(s_{t-1}, [y_{t-1}; c_t]), \quad \tilde s_t = \tanh(W_c [c_t; s_t; y_{t-1}]) \\
    & p(y_t) = \mathrm{softmax}(W_o \tilde s_t)

with f an LSTM or a GRU and the scores

.. math::
    \text{dot:}\; s^T h, \qquad \text{general:}\; s^T W_a h, \qquad
    \text{concat:}\; v^T \tanh(W_s s + W_h h)

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (2014); Bahdanau et al.,
"Neural Machine Translation by Jointly Learning to Align and Translate" (2015); Luong et al.,
"Effective Approaches to Attention-based Neural Machine Translation" (2015). Deviations:

* The summary of a bidirectional encoder is the forward cell's last state beside the backward cell's
  *first*: at the last step the backward cell has read a single token.
* The decoder starts from :math:`\tanh(W h)` of each layer's summary; Luong et al. copy the states
  of a unidirectional stack, which has no second half to map.
* The concat score's :math:`W_a [s; h]` is written as :math:`W_s s + W_h h`, which is Bahdanau's
  additive score, so that :math:`W_h h` is computed once for each source.
* Bahdanau et al. end in a maxout layer over the same three inputs as our tanh.
* ``input_feeding=False`` leaves :math:`\tilde s_{t-1}` out of Luong's decoder, whose steps can then
  be trained in one call of the recurrent kernel.

Shape letters: B batch, S source length, T target length, E embedding width, W state width,
V vocabulary, N layers.
"""

from dataclasses import replace
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from datamodules.batches import SequencePairBatch
from lit_models.decoding.states import RecurrentState
from lit_models.families.free_running import LitSequenceWriter
from lit_models.layers.plain_recurrence import without_packing
from lit_models.layers.scored_attention import Attention, Score

AttentionKind = Literal["none", "luong", "bahdanau"]
_CELLS: dict[str, type[nn.LSTM | nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class Encoder(nn.Module):
    """Reads a source, without its padding; arguments as for `LitSeq2Seq`.

    Shape:
        Tokens and mask ``(B, S)`` to states ``(B, S, W)`` and summaries ``(N, B, W)``.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        cell: Literal["lstm", "gru"],
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if bidirectional and hidden_size % 2:
            raise ValueError(f"a bidirectional hidden_size must be even, got {hidden_size}")
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.dropout = nn.Dropout(dropout)
        self.cell = _CELLS[cell](
            embedding_size,
            hidden_size // 2 if bidirectional else hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,
        )

    def forward(self, src: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States at each position, and the summary of each layer."""
        x = self.dropout(self.embedding(src))
        if torch.compiler.is_compiling():
            return without_packing(self.cell, x, mask)
        if bool(mask.all()):
            states, last = self.cell(x)
        else:
            # Packed, the backward cell starts at a row's last real token.
            lengths = mask.sum(1).cpu()
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            states, last = self.cell(packed)
            states, _ = pad_packed_sequence(states, batch_first=True, total_length=src.shape[1])
        hidden = last[0] if isinstance(last, tuple) else last
        directions = 2 if self.cell.bidirectional else 1
        return states, hidden.unflatten(0, (-1, directions)).transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    """Writes the target, one token after another; arguments as for `LitSeq2Seq`."""

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int,
        hidden_size: int,
        cell: Literal["lstm", "gru"],
        num_layers: int = 1,
        attention: AttentionKind = "none",
        score: Score = "general",
        input_feeding: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.kind = attention
        self.input_feeding = attention == "luong" and input_feeding
        self.embedding = nn.Embedding(vocab_size, embedding_size)
        self.dropout = nn.Dropout(dropout)
        extra = 0 if attention == "luong" and not input_feeding else hidden_size
        self.cell = _CELLS[cell](
            embedding_size + extra,
            hidden_size,
            num_layers,
            batch_first=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )
        self.bridge = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_layers))
        if attention != "none":
            self.attention = Attention(hidden_size, "concat" if attention == "bahdanau" else score)
            width = 2 * hidden_size + (embedding_size if attention == "bahdanau" else 0)
            self.combine = nn.Linear(width, hidden_size, bias=False)
        self.out_proj = nn.Linear(hidden_size, vocab_size)

    def start(self, memory: Tensor, mask: Tensor, summary: Tensor) -> RecurrentState:
        """State before the first token."""
        hidden = torch.stack(
            [torch.tanh(bridge(s)) for bridge, s in zip(self.bridge, summary, strict=True)]
        )
        keys = memory if self.kind == "none" else self.attention.keys(memory)
        zeros = torch.zeros_like(hidden)
        return RecurrentState(memory, keys, mask, summary[-1], hidden, zeros, zeros[-1])

    def forward(self, tokens: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor | None]:
        """Logits ``(B, T, V)`` and attention weights ``(B, T, S)`` for prefixes ``(B, T)``."""
        if self.kind == "bahdanau" or self.input_feeding:
            logits: list[Tensor] = []
            weights: list[Tensor] = []
            for token in tokens.unbind(1):
                logit, weight, state = self.read(token.unsqueeze(1), state)
                logits.append(logit)
                weights += [] if weight is None else [weight]
            return torch.cat(logits, dim=1), torch.cat(weights, dim=1)
        logit, weight, _ = self.read(tokens, state)
        return logit, weight

    def read(
        self, tokens: Tensor, state: RecurrentState
    ) -> tuple[Tensor, Tensor | None, RecurrentState]:
        """Reads tokens ``(B, T)``; one at a time where a step needs the attention of the last."""
        y = self.dropout(self.embedding(tokens))
        if self.kind == "none":
            fixed = state.context.unsqueeze(1).expand(-1, tokens.shape[1], -1)
            states, state = self._run(torch.cat([y, fixed], dim=-1), state)
            return self.out_proj(self.dropout(states)), None, state
        if self.kind == "bahdanau":
            context, weights = self._attend(state.hidden[-1].unsqueeze(1), state)
            states, state = self._run(torch.cat([y, context], dim=-1), state)
            parts = [context, states, y]
        else:
            x = torch.cat([y, state.fed.unsqueeze(1)], dim=-1) if self.input_feeding else y
            states, state = self._run(x, state)
            context, weights = self._attend(states, state)
            parts = [context, states]
        combined = torch.tanh(self.combine(torch.cat(parts, dim=-1)))
        state = replace(state, fed=combined[:, -1])
        return self.out_proj(self.dropout(combined)), weights, state

    def _attend(self, query: Tensor, state: RecurrentState) -> tuple[Tensor, Tensor]:
        context, weights = self.attention(query, state.keys, state.memory, state.mask)
        return context, weights

    def _run(self, x: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        if isinstance(self.cell, nn.LSTM):
            states, (hidden, cell) = self.cell(x, (state.hidden, state.cell))
            return states, replace(state, hidden=hidden, cell=cell)
        states, hidden = self.cell(x, state.hidden)
        return states, replace(state, hidden=hidden)


class Seq2Seq(nn.Module):
    """Encoder and decoder.

    Example:
        >>> net = Seq2Seq(Encoder(7, 4, 8, "gru"), Decoder(9, 4, 8, "gru", attention="luong"))
        >>> src, tgt = (torch.zeros(2, length, dtype=torch.long) for length in (6, 5))
        >>> logits, weights = net(src, torch.ones_like(src).bool(), tgt)
        >>> logits.shape, weights.shape
        (torch.Size([2, 5, 9]), torch.Size([2, 5, 6]))
    """

    def __init__(self, encoder: Encoder, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def start(self, src: Tensor, src_mask: Tensor, num_beams: int = 1) -> RecurrentState:
        """State before the first token, each source ``num_beams`` times."""
        memory, summary = self.encoder(src, src_mask)
        memory, src_mask = (x.repeat_interleave(num_beams, dim=0) for x in (memory, src_mask))
        summary = summary.repeat_interleave(num_beams, dim=1)
        return self.decoder.start(memory, src_mask, summary)

    def forward(self, src: Tensor, src_mask: Tensor, tgt: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits ``(B, T, V)`` and attention weights ``(B, T, S)`` for prefixes ``(B, T)``."""
        logits, weights = self.decoder(tgt, self.start(src, src_mask))
        return logits, weights

    def decode_step(self, token: Tensor, state: RecurrentState) -> tuple[Tensor, RecurrentState]:
        """Logits ``(B, V)`` after one more token ``(B,)``."""
        logits, _, state = self.decoder.read(token.unsqueeze(1), state)
        return logits.squeeze(1), state

    def sample(self, src: Tensor, src_mask: Tensor, tgt: Tensor, teacher_forcing: float) -> Tensor:
        """Logits where each fed token is the true one with a probability, else the likeliest.

        Bengio et al., "Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks"
        (2015). The fed predictions carry no gradient.
        """
        state, token, logits = self.start(src, src_mask), tgt[:, 0], []
        keep = torch.rand(tgt.shape, device=tgt.device) < teacher_forcing
        for t in range(tgt.shape[1]):
            logit, state = self.decode_step(token, state)
            logits.append(logit)
            if t + 1 < tgt.shape[1]:
                token = torch.where(keep[:, t], tgt[:, t + 1], logit.argmax(-1))
        return torch.stack(logits, dim=1)


class LitSeq2Seq(LitSequenceWriter):
    """Recurrent encoder and decoder.

    Args:
        src_vocab_size: Number of source tokens.
        tgt_vocab_size: Number V of target tokens.
        max_length: Most tokens of a source or a target; the limit of decoding.
        attention: ``none`` reads one fixed context, ``luong`` attends by the new state,
            ``bahdanau`` by the previous one.
        score: Score of Luong's attention; Bahdanau's is additive, as ``concat``.
        input_feeding: Whether Luong's decoder reads its last attentional state.
        cell: Kind of cell.
        embedding_size: Width E of an embedded token.
        hidden_size: Width W of a state; of both directions of the encoder together.
        num_layers: Number N of stacked cells on each side.
        bidirectional: Whether the encoder also reads backwards.
        dropout: Probability of dropping an embedded unit, a state between two layers, or a unit
            before the output projection.
        label_smoothing: Share of each training target spread over the vocabulary.
        teacher_forcing: Probability that the decoder reads the true token in training, at the first
            and at the last optimizer step, linear between.
        num_beams: Beams of the search in test and prediction; validation takes the likeliest token.
        length_penalty: Exponent of the beam search's length penalty.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.
        num_best: Number of targets that ``predict`` writes for each source, with their scores.

    Raises:
        ValueError: If an argument is out of range.

    Shape:
        Source ``(B, S)`` and target prefix ``(B, T)`` to logits ``(B, T, V)``.
    """

    unrolls_lengths = True  # the exporters write a recurrence out, step by step

    def __init__(
        self,
        src_vocab_size: int,
        tgt_vocab_size: int,
        max_length: int,
        attention: AttentionKind = "none",
        score: Score = "general",
        input_feeding: bool = True,
        cell: Literal["lstm", "gru"] = "lstm",
        embedding_size: int = 64,
        hidden_size: int = 128,
        num_layers: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.0,
        label_smoothing: float = 0.0,
        teacher_forcing: tuple[float, float] = (1.0, 1.0),
        num_beams: int = 1,
        length_penalty: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        num_best: int = 1,
    ) -> None:
        decoding = (max_length, label_smoothing, num_beams, length_penalty)
        super().__init__(*decoding, optimizer, lr_scheduler, num_best)
        if min(embedding_size, hidden_size, num_layers) < 1:
            raise ValueError(
                "embedding_size, hidden_size and num_layers must be positive, got "
                f"{embedding_size}, {hidden_size} and {num_layers}"
            )
        if not all(0 <= share <= 1 for share in teacher_forcing):
            raise ValueError(f"teacher_forcing must lie in [0, 1], got {teacher_forcing}")
        sizes = (embedding_size, hidden_size, cell, num_layers)
        encoder = Encoder(src_vocab_size, *sizes, bidirectional, dropout)
        decoder = Decoder(tgt_vocab_size, *sizes, attention, score, input_feeding, dropout)
        self.net = Seq2Seq(encoder, decoder)
        self.teacher_forcing = teacher_forcing

    def forward(self, src: Tensor, src_mask: Tensor, tgt: Tensor) -> Tensor:
        """Logits of the token behind each target position, ``(B, T, V)``."""
        logits: Tensor = self.net(src, src_mask, tgt)[0]
        return logits

    def attention_weights(self, batch: SequencePairBatch) -> Tensor | None:
        """Attention as one layer of one head, ``(1, B, 1, T, S)``; None without attention."""
        weights: Tensor | None = self.net(batch.src, batch.src_mask, batch.tgt[:, :-1])[1]
        return None if weights is None else weights[None, :, None]

    @property
    def true_share(self) -> float:
        """Probability that the decoder now reads the true token."""
        first, last = self.teacher_forcing
        if not self.training or first == last or self._trainer is None:
            return 1.0 if not self.training else first
        total = max(self.trainer.estimated_stepping_batches - 1, 1)
        return first + (last - first) * min(self.trainer.global_step / total, 1.0)

    def prefix_logits(self, batch: SequencePairBatch) -> Tensor:
        """Logits of the targets behind the true prefix, or behind the model's own in part."""
        prefix, share = batch.tgt[:, :-1], self.true_share
        if share == 1:
            logits: Tensor = self(batch.src, batch.src_mask, prefix)
            return logits
        sampled: Tensor = self.net.sample(batch.src, batch.src_mask, prefix, share)
        return sampled
