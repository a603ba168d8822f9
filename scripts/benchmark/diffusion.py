"""What sampling costs beyond the network, and what a training step costs beside diffusers'.

Ten thousand samples by a thousand steps, with the network of ``ddpm``. diffusers' loop is the
one its documentation shows, over the same network. A training step is one of 16 pictures of
28 x 28 with a U-Net, beside that of diffusers' ``UNet2DModel`` of the same blocks and widths.
"""

from collections.abc import Callable
from typing import Any

import torch

from datamodules.batches import SampleBatch
from lit_models import LitDDPM
from lit_models.weights.diffusers_unet import to_diffusers
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


def training_step() -> Ratio:
    """Against diffusers' own network and scheduler, as its documentation trains it."""
    from diffusers import DDPMScheduler, UNet2DModel

    sizes: dict[str, Any] = {"hidden_size": 64, "num_blocks": 1, "channel_multipliers": (1, 2)}
    model = LitDDPM((1, 28, 28), 0, denoiser="unet", **sizes)
    config, _ = to_diffusers(model)
    theirs = UNet2DModel(**{**config, "time_embedding_type": "positional"})
    scheduler = DDPMScheduler()
    x0 = torch.randn(16, 1, 28, 28)
    batch = SampleBatch(x0)
    ours_optimizer, their_optimizer = (
        torch.optim.AdamW(network.parameters(), 1e-4, fused=True) for network in (model, theirs)
    )

    def step() -> None:
        torch.autograd.backward(model.step(batch).loss)
        ours_optimizer.step()
        ours_optimizer.zero_grad()

    def their_step() -> None:
        noise, t = torch.randn_like(x0), torch.randint(1000, (len(x0),))
        output = theirs(scheduler.add_noise(x0, noise, t), t).sample
        torch.autograd.backward(torch.nn.functional.mse_loss(output, noise))
        their_optimizer.step()
        their_optimizer.zero_grad()

    return compare(step, their_step, _NUM_PAIRS)


CASES: dict[str, Callable[[], Ratio]] = {
    "sampling 10,000 x 1000 / forward": lambda: bare_forward(1000),
    "sampling 10,000 x 50 / forward": lambda: bare_forward(50),
    "sampling 10,000 x 50 / diffusers": lambda: diffusers_loop(50),
    "training step 16 x 28 x 28 / diffusers": training_step,
}


def main() -> None:
    """Prints a table."""
    print_cases(CASES)


if __name__ == "__main__":
    main()
