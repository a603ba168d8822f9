"""Decoding with a cache against a loop that runs the whole prefix again for every token."""

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.batches import BOS, EOS
from lit_models.transformer import Transformer
from scripts.benchmark.ratio import Ratio, compare, print_cases

BATCH_SIZE, SRC_LENGTH, VOCAB_SIZE = 64, 16, 6000


def _setting(num_tokens: int) -> tuple[Transformer, Tensor, Tensor]:
    """A small translation model and 64 sources; 7 million parameters."""
    torch.manual_seed(0)
    net = Transformer(
        VOCAB_SIZE,
        VOCAB_SIZE,
        num_tokens + 1,
        d_model=256,
        num_heads=4,
        num_encoder_layers=3,
        num_decoder_layers=3,
        dim_feedforward=1024,
        norm_first=True,
        tie_embeddings="all",
    ).eval()
    src = torch.randint(3, VOCAB_SIZE, (BATCH_SIZE, SRC_LENGTH))
    return net, src, torch.ones_like(src, dtype=torch.bool)


def _likeliest(logits: Tensor) -> Tensor:
    logits[:, EOS] = -torch.inf  # so that both write the same number of tokens
    return logits.argmax(-1)


def _cached(net: Transformer, src: Tensor, mask: Tensor, num_tokens: int) -> Tensor:
    state, token, tokens = net.start(src, mask), torch.full((BATCH_SIZE,), BOS), []
    for _ in range(num_tokens):
        logits, state = net.decode_step(token, state)
        token = _likeliest(logits)
        tokens.append(token)
    return torch.stack(tokens, dim=1)


def _whole_prefix(net: Transformer, src: Tensor, mask: Tensor, num_tokens: int) -> Tensor:
    """Encodes once, and projects the last position alone to the vocabulary."""
    memory, tokens = net.encode(src, mask), torch.full((BATCH_SIZE, 1), BOS)
    for _ in range(num_tokens):
        states, _ = net.decode_states(tokens, memory, mask)
        token = _likeliest(net.out_proj(states[:, -1]))
        tokens = torch.cat([tokens, token.unsqueeze(1)], dim=1)
    return tokens[:, 1:]


def decoding(num_tokens: int, num_pairs: int = 3) -> Ratio:
    """Greedy decoding of 64 sources.

    Raises:
        RuntimeError: If the two loops write different tokens.
    """
    setting = _setting(num_tokens)
    with torch.inference_mode():
        if not torch.equal(_cached(*setting, num_tokens), _whole_prefix(*setting, num_tokens)):
            raise RuntimeError("the two loops write different tokens")
        return compare(
            lambda: _cached(*setting, num_tokens),
            lambda: _whole_prefix(*setting, num_tokens),
            num_pairs,
        )


CASES: dict[str, Callable[[], Ratio]] = {
    "Transformer decoding, 32 tokens": lambda: decoding(32),
    "Transformer decoding, 64 tokens": lambda: decoding(64),
}

if __name__ == "__main__":
    print_cases(CASES)
