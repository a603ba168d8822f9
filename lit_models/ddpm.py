r"""Denoising diffusion probabilistic models: learn to predict noise, sample by removing it.

.. math::
    L = E_{t, x_0, \epsilon} |\epsilon - \epsilon_\theta(
        \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, t)|^2, \qquad
    x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \Big(x_t - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}}
        \epsilon_\theta(x_t, t)\Big) + \sigma_t z

Ho et al., "Denoising Diffusion Probabilistic Models" (2020). The process and its samplers are in
:mod:`lit_models.layers.gaussian_diffusion`, the U-Net in :mod:`lit_models.layers.unet`. With
classes, guidance samples from :math:`(1 + w)\, \epsilon_\theta(x, y) - w\, \epsilon_\theta(x)`, Ho
and Salimans (2022); a share of the training rows has its class dropped. Deviations:

* Data are standardised inside the model by the scale of the training rows, which the process needs:
  it keeps the variance of data that have variance 1.
* Vectors have a residual network, :math:`h + W_2 \,\mathrm{silu}(W_1 h + P\,\mathrm{silu}(e))` with
  the step's embedding e, in the place of the paper's U-Net.
* Loss, ``eps_mse`` and the noise are per number of a sample: means, not sums, over D.

Shape letters: B batch, D numbers in a sample, T steps of the process, W width, K classes.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError, Metric, MetricCollection

from datamodules.batches import SampleBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.gaussian_diffusion import (
    GaussianDiffusion,
    Prediction,
    Schedule,
    StepSampler,
    Variance,
)
from lit_models.layers.shared_noise import SharedNoise
from lit_models.layers.standardize import Standardize
from lit_models.layers.step_embedding import StepEmbedding, TimeFeatures
from lit_models.layers.unet import UNet
from lit_models.metrics.samples import MMD, SlicedWasserstein

# Numbers of one activation: on a CPU a sampler's network sees rows of so many at once, which stay
# in its cache (``python -m scripts.benchmark --only diffusion``).
_BLOCK = 2**17


class ResidualMLP(nn.Module):
    """Noise in a vector.

    Args:
        num_features: Numbers D in a sample.
        hidden_size: Width W of the network and of the step embedding.
        num_blocks: Number of residual blocks.

    Shape:
        Input ``(B, ...)`` and embedding ``(B, W)`` or ``(1, W)``, output as the input.
    """

    def __init__(self, num_features: int, hidden_size: int, num_blocks: int) -> None:
        super().__init__()
        self.inner = nn.Linear(num_features, hidden_size)
        self.first = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_blocks))
        self.second = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_blocks))
        self.condition = nn.Linear(hidden_size, num_blocks * hidden_size)
        self.outer = nn.Linear(hidden_size, num_features)
        nn.init.zeros_(self.outer.weight)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Output of the network."""
        h = self.inner(x.flatten(1))
        shifts = self.condition(F.silu(embedding)).chunk(len(self.first), dim=-1)
        for first, second, shift in zip(self.first, self.second, shifts, strict=True):
            h = h + second(F.silu(first(h) + shift))
        out: Tensor = self.outer(h)
        return out.view_as(x)


class LitDDPM(LitModule):
    """Learns a distribution from samples, and draws from it.

    Args:
        sample_shape: Shape of one sample: ``(D,)`` for vectors, ``(C, H, W)`` for images.
        num_classes: Number K of classes to condition on; 0 for samples without one.
        denoiser: Network that predicts the noise: ``mlp`` for vectors, ``unet`` for images.
        hidden_size: Width of the residual network, or channels of the U-Net's finest level.
        num_blocks: Residual blocks of the network, or of each level of the U-Net.
        channel_multipliers: Channels of the U-Net's levels in units of ``hidden_size``.
        dropout: Probability of dropping a unit inside the U-Net's blocks.
        time_features: Family of the features of the step.
        num_time_features: Number of them.
        num_steps: Number T of steps of the process.
        schedule: How the variances grow: ``linear`` from ``beta_start`` to ``beta_end``, or
            ``cosine``.
        beta_start: First variance of the linear schedule.
        beta_end: Last variance of the linear schedule; 0.02 leaves noise alone after 1000 steps, a
            shorter process needs more.
        betas: Variances of one's own, in the place of the four above.
        prediction: What the network outputs; the loss is its squared error.
        time_sampling: Whether training steps are drawn uniformly or by their loss.
        sampler: ``ancestral`` or ``ddim``.
        variance: Variance of the ancestral sampler.
        num_sample_steps: Steps of the sampler, evenly spaced among the T; all of them by default.
        eta: Fresh noise of DDIM: 0 none, 1 as much as the posterior.
        class_dropout: Share of the training rows whose class is dropped.
        guidance_weight: Weight w of the guidance; 0 is the conditional sampler.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If arguments contradict each other.

    Shape:
        Samples ``(B, *sample_shape)`` in the units of the data.
    """

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int,
        denoiser: Literal["mlp", "unet"] = "mlp",
        hidden_size: int = 64,
        num_blocks: int = 2,
        channel_multipliers: Sequence[int] = (1, 2),
        dropout: float = 0.0,
        time_features: TimeFeatures = "fourier",
        num_time_features: int = 32,
        num_steps: int = 1000,
        schedule: Schedule = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        betas: list[float] | None = None,
        prediction: Prediction = "noise",
        time_sampling: Literal["uniform", "importance"] = "uniform",
        sampler: Literal["ancestral", "ddim"] = "ancestral",
        variance: Variance = "beta",
        num_sample_steps: int | None = None,
        eta: float = 0.0,
        class_dropout: float = 0.1,
        guidance_weight: float = 0.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__({"eps_mse": MeanSquaredError()}, optimizer, lr_scheduler)
        shape = tuple(sample_shape)
        _check(
            shape, num_classes, denoiser, hidden_size, num_blocks, guidance_weight, class_dropout
        )
        self.sample_shape, self.num_classes = shape, num_classes
        self.prediction, self.class_dropout = prediction, class_dropout
        self.guidance_weight, self.hidden_size = guidance_weight, hidden_size
        self.diffusion = GaussianDiffusion(num_steps, schedule, beta_start, beta_end, betas)
        self.step_sampler = StepSampler(self.diffusion.num_steps, time_sampling == "importance")
        self.embedding = StepEmbedding(
            self.diffusion.num_steps, hidden_size, time_features, num_time_features, num_classes
        )
        num_features = math.prod(shape)
        self.denoiser: nn.Module
        if denoiser == "unet":
            self.denoiser = UNet(shape[0], hidden_size, num_blocks, channel_multipliers, dropout)
        else:
            self.denoiser = ResidualMLP(num_features, hidden_size, num_blocks)
        self.x_scaler = Standardize(num_features if len(shape) == 1 else 1)
        if sampler == "ddim":
            self.sampler_steps = self.diffusion.ddim(eta, num_sample_steps)
        else:
            self.sampler_steps = self.diffusion.ancestral(variance, num_sample_steps)
        distances: dict[str, Metric | MetricCollection] = {"wasserstein": SlicedWasserstein(1)}
        if num_features > 1:
            distances = {
                "sliced_wasserstein": SlicedWasserstein(num_features),
                "mmd": MMD(num_features),
            }
        self._law: Any = None
        self.sample_metrics = MetricCollection(distances, prefix="test/")

    def setup(self, stage: str) -> None:
        """Takes the true law from the datamodule, where it is known, to measure the error by."""
        super().setup(stage)
        self._law = getattr(getattr(self.trainer, "datamodule", None), "law", None)
        if self._law is None:
            self.val_metrics, self.test_metrics = MetricCollection({}), MetricCollection({})

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise predicted in standardised samples, guided where there are classes.

        Args:
            x_t: Noised samples in standard units, ``(B, *sample_shape)``.
            t: Step of each, ``(B,)``.
            y: Class of each, ``(B,)``; None for no class.
        """
        # shape[0], not len(), which would export for one number of rows alone
        output = self._output(x_t, self.embedding(t), self._class_vectors(x_t.shape[0], y))
        return self.diffusion.to_noise(output, x_t, t, self.prediction)

    def example_inputs(self, batch: SampleBatch) -> dict[str, Any]:
        """The rows, as if noised, each at the first step."""
        t = torch.zeros(len(batch.x0), dtype=torch.long)
        return {"x_t": batch.x0, "t": t, "y": batch.y if self.num_classes else None}

    def _class_vectors(self, num_rows: int, y: Tensor | None) -> list[Tensor]:
        """Embeddings of the classes and, for guidance, of no class; empty without classes."""
        table = self.embedding.classes
        if table is None:
            return []
        none = torch.full((num_rows,), self.num_classes, device=table.weight.device)
        if y is None or self.guidance_weight == 0:
            return [table(none if y is None else y)]
        return [table(y), table(none)]

    def _output(self, x: Tensor, embedding: Tensor, classes: list[Tensor]) -> Tensor:
        """Output of the network; one pass for both sides of the guidance."""
        if len(classes) < 2:
            out: Tensor = self.denoiser(x, embedding + classes[0] if classes else embedding)
            return out
        both = torch.cat([embedding + vectors for vectors in classes])
        with_class, without = self.denoiser(torch.cat([x, x]), both).chunk(2)
        guided: Tensor = with_class + self.guidance_weight * (with_class - without)
        return guided

    def draws(self, num_rows: int, stream: int = 0, seed: int | None = None) -> SharedNoise:
        """Random numbers of the rows of a batch; streams are unrelated."""
        seed = self.step_seed if seed is None else seed
        if seed is None:
            seed = int(torch.randint(2**62, ()).item())
        world_size = self.trainer.world_size if self._trainer is not None else 1
        return SharedNoise((seed, stream), num_rows, self.global_rank, world_size, self.device)

    def step(self, batch: SampleBatch) -> StepOutput:
        """Squared error of the output at a random step for each row."""
        draws = self.draws(len(batch.x0))
        t, weights = self.step_sampler(draws.uniform())
        y = batch.y
        if y is not None and self.num_classes:
            y = torch.where(draws.uniform() < self.class_dropout, self.num_classes, y)
        _, output, target, _ = self._denoise(batch.x0, t, y, draws)
        losses = (output - target).square().flatten(1).mean(1)
        if self.training:
            attached = self._trainer is not None
            self.step_sampler.update(t, losses, self._sum_over_ranks if attached else lambda v: v)
        loss = (losses if weights is None else weights * losses).mean()
        return StepOutput(loss, len(losses), output, target)

    def eval_step(self, batch: SampleBatch) -> StepOutput:
        """The same at uniform steps, with the predicted noise and the exactly expected one."""
        draws = self.draws(len(batch.x0))
        last = self.diffusion.num_steps - 1
        t = (draws.uniform() * self.diffusion.num_steps).long().clamp(max=last)
        x_t, output, target, noise = self._denoise(batch.x0, t, batch.y, draws)
        preds = self.diffusion.to_noise(output, x_t, t, self.prediction).to(x_t.dtype)
        if self._law is not None:
            law = self._law.standardized(self.x_scaler.mean, self.x_scaler.std)
            noise = law.noise(x_t, self.diffusion.alphas_cumprod[t]).to(x_t.dtype)
        return StepOutput(F.mse_loss(output, target), len(x_t), preds, noise)

    def _denoise(
        self, x0: Tensor, t: Tensor, y: Tensor | None, draws: SharedNoise
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noised samples, the network's output for them, its target, and the noise."""
        x0 = self.x_scaler(x0)
        noise = draws.normal(self.sample_shape, x0.dtype)
        x_t = self.diffusion.q_sample(x0, t, noise)
        output = self.denoiser(x_t, self.embedding(t, y))
        return x_t, output, self.diffusion.target(x0, noise, t, self.prediction), noise

    def test_step(self, batch: SampleBatch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the metrics, and draws a sample for each row to compare the two sets."""
        outputs = super().test_step(batch, batch_idx)
        samples = self.sample(len(batch.x0), batch.y)
        for name, metric in self.sample_metrics.items(keep_base=True):
            # The kernel's length is in standard units, a distance in the units of the data.
            scale = self.x_scaler if name == "mmd" else nn.Identity()
            metric.update(scale(samples), scale(batch.x0))
        return outputs

    def on_test_epoch_end(self) -> None:
        """Logs the errors of the prediction and the distances of the samples."""
        super().on_test_epoch_end()
        self.log_dict(self.sample_metrics.compute(), sync_dist=True)
        self.sample_metrics.reset()

    def predict_step(self, batch: SampleBatch, batch_idx: int = 0) -> dict[str, Tensor]:
        """A sample for each row, and its class where there are classes."""
        columns = {"sample": self.sample(len(batch.x0), batch.y)}
        return columns if batch.y is None else {**columns, "class": batch.y}

    @torch.no_grad()
    def sample(self, num_samples: int, y: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Draws samples, all at once.

        Args:
            num_samples: Number of samples B.
            y: Class of each, ``(B,)``; None for no class.
            seed: Seed of the noise; the same seed gives the same samples on any number of ranks.

        Returns:
            Samples in the units of the data, ``(B, *sample_shape)``.
        """
        draws = self.draws(num_samples, stream=1, seed=seed)
        *_, x = self.reverse(draws.normal(self.sample_shape, self.x_scaler.mean.dtype), draws, y)
        return self.x_scaler.inverse(x)

    @torch.no_grad()
    def reverse(self, x: Tensor, draws: SharedNoise, y: Tensor | None = None) -> Iterator[Tensor]:
        """Removes the noise step by step, in place.

        Args:
            x: Noise in standard units, ``(B, *sample_shape)``; overwritten.
            draws: Fresh noise.
            y: Class of each sample, ``(B,)``.

        Yields:
            The samples after each step: the same tensor every time.
        """
        steps = self.diffusion.for_output(self.sampler_steps, self.prediction)
        embeddings = self.embedding(steps.t.to(self.device)).split(1)
        blocks = self._blocks(x, self._class_vectors(len(x), y))
        scales = zip(*(column.tolist() for column in steps[1:]), strict=True)
        for embedding, (scale, factor, std) in zip(embeddings, scales, strict=True):
            for rows, classes in blocks:
                output = self._output(rows, embedding, classes)
                rows.mul_(scale).add_(output, alpha=factor)
            if std > 0:
                x.add_(draws.normal(self.sample_shape, x.dtype), alpha=std)
            yield x

    def _blocks(self, x: Tensor, classes: list[Tensor]) -> list[tuple[Tensor, list[Tensor]]]:
        """Rows with their classes' vectors, as many as the device takes at once."""
        size = len(x)
        if x.device.type == "cpu":
            size = _BLOCK // (self.hidden_size * math.prod(self.sample_shape[1:]))
        parts = zip(*(torch.split(rows, max(size, 1)) for rows in (x, *classes)), strict=True)
        return [(rows, vectors) for rows, *vectors in parts]


def _check(
    shape: tuple[int, ...],
    num_classes: int,
    denoiser: str,
    hidden_size: int,
    num_blocks: int,
    guidance_weight: float,
    class_dropout: float,
) -> None:
    """Complains about arguments that contradict each other."""
    if min(hidden_size, num_blocks) < 1:
        raise ValueError(
            f"hidden_size and num_blocks must be positive, got {hidden_size} and {num_blocks}"
        )
    if denoiser == "unet" and len(shape) != 3:
        raise ValueError(f"a U-Net needs images (C, H, W), the data are {shape}; use denoiser mlp")
    if not 0 <= class_dropout <= 1:
        raise ValueError(f"class_dropout must lie between 0 and 1, got {class_dropout}")
    if guidance_weight and (num_classes == 0 or class_dropout == 0):
        raise ValueError(
            f"guidance_weight={guidance_weight:g} needs data with classes and a class_dropout "
            "above 0"
        )
