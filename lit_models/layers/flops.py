r"""Arithmetic that a training step of a Transformer needs.

.. math:: 6 N + 12\, L\, D\, T \quad \text{a token}

with the N weights that a token is multiplied by: two operations each, and twice that in the
backward pass; and attention to T positions in L blocks of width D. Chowdhery et al., "PaLM" (2022),
appendix B. What is computed anew for want of memory does not count.
"""

from typing import Any


def transformer_flops(body: Any, num_rows: int, length: int) -> float:
    """Floating-point operations of forward and backward pass over ``num_rows x length`` tokens.

    Args:
        body: Has ``blocks``, ``token_embedding``, tied to an output over all tokens, and
            ``position_embedding``.
        num_rows: Rows B.
        length: Tokens T of a row.
    """
    tables = ("position_embedding", "segment_embedding")  # looked up, not multiplied
    weights = sum(
        parameter.numel()
        for name, parameter in body.named_parameters()
        if parameter.dim() == 2 and not name.startswith(tables)
    )
    attention = 12 * len(body.blocks) * body.token_embedding.weight.shape[1] * length
    return float(num_rows * length * (6 * weights + attention))
