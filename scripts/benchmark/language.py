"""Language models against Hugging Face's GPT-2 on the same weights."""

import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from lit_models.decoding.sampling import Sampling, generate
from lit_models.gpt import GPT, DecoderConfig
from lit_models.weights.hugging_face import save_pretrained
from scripts.benchmark.ratio import Ratio, compare, print_cases

ROWS, NEW_TOKENS = 64, 256


def _pair() -> tuple[GPT, Any]:
    """The same random weights in our class and in Hugging Face's; 0.8 million parameters."""
    from transformers import GPT2LMHeadModel

    torch.manual_seed(0)
    net = GPT(65, DecoderConfig(context_length=320)).eval()
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(net, folder)
        theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    theirs.generation_config.eos_token_id = None
    return net, theirs


def generation(num_pairs: int = 3) -> Ratio:
    """Sampling 256 tokens for each of 64 prompts, both with their caches."""
    net, theirs = _pair()
    prompts = torch.randint(65, (ROWS, 8))
    options = {"max_new_tokens": NEW_TOKENS, "do_sample": True, "top_k": 0, "pad_token_id": 0}

    def other() -> None:
        with torch.inference_mode():
            theirs.generate(prompts, **options)

    return compare(lambda: generate(net, prompts, NEW_TOKENS, None, Sampling()), other, num_pairs)


def training_step(num_pairs: int = 9) -> Ratio:
    """Forward and backward pass of 12 x 64 tokens, nanoGPT's CPU setting."""
    net, theirs = _pair()
    tokens = torch.randint(65, (12, 64))

    def ours() -> None:
        logits = net(tokens)[:, :-1].flatten(0, 1)
        torch.autograd.backward(F.cross_entropy(logits, tokens[:, 1:].flatten()))

    def other() -> None:
        torch.autograd.backward(theirs(tokens, labels=tokens).loss)

    return compare(ours, other, num_pairs)


CASES: dict[str, Callable[[], Ratio]] = {
    "GPT generation / transformers": generation,
    "GPT forward, backward / transformers": training_step,
}

if __name__ == "__main__":
    print_cases(CASES)
