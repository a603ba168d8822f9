"""What sampling costs beyond the network: the whole loop against its bare forward passes.

Ten thousand samples by a thousand steps, with the network of ``ddpm``. diffusers' loop is the
one its documentation shows, over the same network.
"""

from collections.abc import Callable

import torch

from lit_models import LitDDPM
from scripts.benchmark.ratio import Ratio, compare, print_cases

_NUM_SAMPLES = 10_000
_NUM_PAIRS = 3


def _model(num_sample_steps: int) -> LitDDPM:
    model = LitDDPM((1,), 0, num_sample_steps=num_sample_steps, sampler="ddim", eta=1.0)
    return model.eval()


@torch.no_grad()
def bare_forward(num_sample_steps: int) -> Ratio:
    """Against the forward passes alone, on the inputs that the sampler gives the network.

    An untrained network leaves the samples to grow, and large inputs cost its activations more.
    """
    model = _model(num_sample_steps)
    x = torch.randn(_NUM_SAMPLES, 1)
    reverse = model.ddpm.reverse(x.clone(), model.draws(_NUM_SAMPLES, seed=0))
    inputs = [x, *(step.clone() for step in reverse)][:-1]
    assert model.embedding is not None
    embeddings = model.embedding(model.ddpm.sampler_steps.t).split(1)

    def forward_passes() -> None:
        for step, embedding in zip(inputs, embeddings, strict=True):
            model.denoiser(step, embedding)

    return compare(lambda: model.sample(_NUM_SAMPLES, seed=0), forward_passes, _NUM_PAIRS)


@torch.no_grad()
def diffusers_loop(num_sample_steps: int) -> Ratio:
    """Against diffusers' DDIM scheduler at the same noise level."""
    from diffusers import DDIMScheduler

    model = _model(num_sample_steps)
    scheduler = DDIMScheduler(beta_schedule="linear", clip_sample=False)
    scheduler.set_timesteps(num_sample_steps)

    def loop() -> None:
        x = torch.randn(_NUM_SAMPLES, 1)
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t[None]), t, x, eta=1.0).prev_sample

    return compare(lambda: model.sample(_NUM_SAMPLES, seed=0), loop, _NUM_PAIRS)


CASES: dict[str, Callable[[], Ratio]] = {
    "sampling 10,000 x 1000 / forward": lambda: bare_forward(1000),
    "sampling 10,000 x 50 / forward": lambda: bare_forward(50),
    "sampling 10,000 x 50 / diffusers": lambda: diffusers_loop(50),
}


def main() -> None:
    """Prints a table."""
    print_cases(CASES)


if __name__ == "__main__":
    main()
