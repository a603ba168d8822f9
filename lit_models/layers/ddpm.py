r"""The denoising diffusion model around a network: noised samples, its error, and the way back.

With classes, guidance (Ho and Salimans, 2022) samples from
:math:`(1 + w)\, \epsilon_\theta(x, y) - w\, \epsilon_\theta(x)`.

Shape letters: B batch, T steps of the process, K classes.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from lit_models.layers.gaussian_diffusion import GaussianDiffusion, Prediction, SamplerSteps
from lit_models.layers.shared_noise import SharedNoise

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# Numbers of one activation: on a CPU a sampler's network sees rows of so many at once, which stay
# in its cache (``python -m scripts.benchmark --only diffusion``).
_BLOCK = 2**17


class DDPM(nn.Module):
    """A network as a denoising diffusion model: noises, predicts the noise, samples.

    Knows no Trainer and no scale: samples are in standard units throughout.

    Args:
        net: Network, or a function of one. ``net(x, t, y)`` takes noised samples
            ``(B, *sample_shape)``, the step of each ``(B,)`` and the class of each ``(B,)``, where
            K stands for no class; ``y`` is None where K is 0. It returns what ``prediction`` says,
            shaped as ``x``.
        diffusion: The process.
        sample_shape: Shape of one sample.
        num_classes: Number K of classes.
        prediction: What the network outputs.
        sampler_steps: Steps of the sampler; ancestral ones by default.
        guidance_weight: Weight w of the guidance.
        shared_step: Whether the network also takes one step for all rows, ``(1,)``, which spares
            the sampler the embedding of each.
        num_hidden: Numbers in the network's largest activation of one row; it sets how many rows
            the sampler takes at once on a CPU.

    Shape:
        Input ``(B, *sample_shape)`` and steps ``(B,)``, output as the input.

    Example:
        >>> model = DDPM(lambda x, t, y: torch.zeros_like(x), GaussianDiffusion(50), (2,))
        >>> model.sample(3).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        net: Network,
        diffusion: GaussianDiffusion,
        sample_shape: tuple[int, ...],
        num_classes: int = 0,
        prediction: Prediction = "noise",
        sampler_steps: SamplerSteps | None = None,
        guidance_weight: float = 0.0,
        shared_step: bool = False,
        num_hidden: int = 64,
    ) -> None:
        super().__init__()
        self.net, self.diffusion = net, diffusion
        self.sample_shape, self.num_classes = tuple(sample_shape), num_classes
        self.prediction: Prediction = prediction
        self.sampler_steps = diffusion.ancestral() if sampler_steps is None else sampler_steps
        self.guidance_weight = guidance_weight
        self.shared_step, self.num_hidden = shared_step, num_hidden

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise predicted in noised samples, guided where there are classes."""
        # shape[0], not len(), which would export for one number of rows alone
        output = self._guided(x_t, t, self._classes(x_t.shape[0], y, x_t.device))
        return self.diffusion.to_noise(output, x_t, t, self.prediction)

    def denoise(
        self, x0: Tensor, t: Tensor, y: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Noised samples, the network's output for them, and what it should be."""
        x_t = self.diffusion.q_sample(x0, t, noise)
        return x_t, self.net(x_t, t, y), self.diffusion.target(x0, noise, t, self.prediction)

    @torch.no_grad()
    def sample(
        self,
        num_samples: int,
        y: Tensor | None = None,
        draws: SharedNoise | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Draws samples, all at once.

        Args:
            num_samples: Number of samples B.
            y: Class of each, ``(B,)``; None for no class.
            draws: Source of the noise; None takes it from torch's generator.
            dtype: Type of the samples; that of the network's parameters by default.

        Returns:
            Samples, ``(B, *sample_shape)``.
        """
        if draws is None:
            seed = int(torch.randint(2**62, ()).item())
            draws = SharedNoise(seed, num_samples, 0, 1, self.diffusion.betas.device)
        if dtype is None:
            dtype = next((p.dtype for p in self.parameters()), torch.get_default_dtype())
        *_, x = self.reverse(draws.normal(self.sample_shape, dtype), draws, y)
        return x

    @torch.no_grad()
    def reverse(self, x: Tensor, draws: SharedNoise, y: Tensor | None = None) -> Iterator[Tensor]:
        """Removes the noise step by step, in place.

        Args:
            x: Noise, ``(B, *sample_shape)``; overwritten.
            draws: Fresh noise.
            y: Class of each sample, ``(B,)``.

        Yields:
            The samples after each step: the same tensor every time.
        """
        steps = self.diffusion.for_output(self.sampler_steps, self.prediction)
        looks_back = bool(steps.memory.any())
        memory = torch.zeros_like(x) if looks_back else x
        blocks = self._blocks(x, memory, self._classes(len(x), y, x.device))
        factors = torch.stack([*steps[1:], *self.diffusion.x0_factors(steps.t, self.prediction)])
        for t, (scale, factor, std, past, *x0) in zip(
            steps.t.tolist(), factors.T.tolist(), strict=True
        ):
            for rows, before, classes in blocks:
                step = torch.full((1 if self.shared_step else len(rows),), t, device=x.device)
                output = self._guided(rows, step, classes)
                predicted = x0[0] * rows + x0[1] * output if looks_back else None
                rows.mul_(scale).add_(output, alpha=factor)
                if predicted is not None:
                    rows.add_(before, alpha=past)
                    before.copy_(predicted)
            if std > 0:
                x.add_(draws.normal(self.sample_shape, x.dtype), alpha=std)
            yield x

    def _classes(self, num_rows: int, y: Tensor | None, device: torch.device) -> list[Tensor]:
        """The classes and, for guidance, no class; empty without classes."""
        if not self.num_classes:
            return []
        none = torch.full((num_rows,), self.num_classes, device=device)
        if y is None or self.guidance_weight == 0:
            return [none if y is None else y]
        return [y, none]

    def _guided(self, x: Tensor, t: Tensor, classes: list[Tensor]) -> Tensor:
        """Output of the network; one pass for both sides of the guidance."""
        if len(classes) < 2:
            return self.net(x, t, classes[0] if classes else None)
        t = t if t.shape[0] == 1 else torch.cat([t, t])
        with_class, without = self.net(torch.cat([x, x]), t, torch.cat(classes)).chunk(2)
        return with_class + self.guidance_weight * (with_class - without)

    def _blocks(
        self, x: Tensor, memory: Tensor, classes: list[Tensor]
    ) -> list[tuple[Tensor, Tensor, list[Tensor]]]:
        """Rows with what belongs to them, as many as the device takes at once."""
        size = max(_BLOCK // self.num_hidden, 1) if x.device.type == "cpu" else max(len(x), 1)
        parts = zip(*(torch.split(rows, size) for rows in (x, memory, *classes)), strict=True)
        return [(rows, past, some) for rows, past, *some in parts]
