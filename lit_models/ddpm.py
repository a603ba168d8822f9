r"""Denoising diffusion probabilistic models: learn to predict noise, sample by removing it.

.. math::
    L = E_{t, x_0, \epsilon} |\epsilon - \epsilon_\theta(
        \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\, \epsilon, t)|^2, \qquad
    x_{t-1} = \frac{1}{\sqrt{\alpha_t}} \Big(x_t - \frac{1 - \alpha_t}{\sqrt{1 - \bar\alpha_t}}
        \epsilon_\theta(x_t, t)\Big) + \sigma_t z

Ho et al., "Denoising Diffusion Probabilistic Models" (2020). The process and its samplers are in
:mod:`lit_models.layers.gaussian_diffusion`, the model around any network, which trains without a
Trainer too, is :class:`lit_models.layers.ddpm.DDPM`, the U-Net :mod:`lit_models.layers.unet`. With
classes, guidance samples from :math:`(1 + w)\, \epsilon_\theta(x, y) - w\, \epsilon_\theta(x)`, Ho
and Salimans (2022); a share of the training rows has its class dropped. Deviations:

* Data are standardised inside the model by the scale of the training rows, which the process needs:
  it keeps the variance of data that have variance 1.
* Vectors have a residual perceptron (:mod:`lit_models.layers.residual_mlp`) in the place of the
  paper's U-Net.
* Loss, ``eps_mse`` and the noise are per number of a sample: means, not sums, over D.

Shape letters: B batch, D numbers in a sample, T steps of the process, W width, K classes.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError, Metric, MetricCollection
from tqdm import tqdm

from datamodules.batches import SampleBatch
from lit_models.base import LitModule, StepOutput
from lit_models.layers.ddpm import DDPM
from lit_models.layers.gaussian_diffusion import (
    GaussianDiffusion,
    Prediction,
    Sampler,
    Schedule,
    Spacing,
    StepSampler,
    Variance,
)
from lit_models.layers.residual_mlp import ResidualMLP
from lit_models.layers.shared_noise import SharedNoise
from lit_models.layers.standardize import Standardize
from lit_models.layers.step_embedding import StepEmbedding, TimeFeatures
from lit_models.layers.unet import UNet
from lit_models.metrics.samples import MMD, SlicedWasserstein
from lit_models.weights.diffusers_unet import load_diffusers


class LitDDPM(LitModule):
    """Learns a distribution from samples, and draws from it.

    Args:
        sample_shape: Shape of one sample: ``(D,)`` for vectors, ``(C, H, W)`` for images.
        num_classes: Number K of classes to condition on; 0 for samples without one.
        denoiser: Network that predicts the noise: ``mlp`` for vectors, ``unet`` for images.
        network: A network of one's own in its place: ``network(x, t, y)`` as
            :class:`~lit_models.layers.ddpm.DDPM` takes it. No checkpoint holds how it was made.
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
        min_snr_gamma: Cuts the weights of the training loss off at this ratio of signal to noise
            (5 in Hang et al., 2023); None weighs every step alike.
        sampler: ``ancestral``, ``ddim``, or ``dpm_solver``: DPM-Solver++ (2M), for
            some twenty steps.
        variance: Variance of the ancestral sampler.
        num_sample_steps: Steps of the sampler among the T; all of them by default.
        sample_spacing: How they are spread: ``even`` or ``quadratic``; by default the
            sampler's own way.
        eta: Fresh noise of DDIM: 0 none, 1 as much as the posterior.
        class_dropout: Share of the training rows whose class is dropped.
        guidance_weight: Weight w of the guidance; left out, with a word, without classes.
        pretrained: Folder of `lit-models export --format diffusers`, whose weights to start from.
        optimizer: Makes the optimizer from the parameters.
        lr_scheduler: Makes the learning-rate schedule from the optimizer.

    Raises:
        ValueError: If arguments contradict each other.

    Shape:
        Samples ``(B, *sample_shape)`` in the units of the data.
    """

    loss_weights: Tensor | None
    rivals: Mapping[str, Mapping[str, float]] = {}

    def __init__(
        self,
        sample_shape: tuple[int, ...],
        num_classes: int,
        denoiser: Literal["mlp", "unet"] = "mlp",
        network: nn.Module | None = None,
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
        min_snr_gamma: float | None = None,
        sampler: Sampler = "ancestral",
        variance: Variance = "beta",
        num_sample_steps: int | None = None,
        sample_spacing: Spacing | None = None,
        eta: float = 0.0,
        class_dropout: float = 0.1,
        guidance_weight: float = 0.0,
        pretrained: str | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__({"eps_mse": MeanSquaredError()}, optimizer, lr_scheduler)
        shape, num_features = tuple(sample_shape), math.prod(sample_shape)
        guidance_weight = _guidance(num_classes, guidance_weight, class_dropout)
        self.sample_shape, self.num_classes = shape, num_classes
        self.class_dropout = class_dropout
        self.x_scaler = Standardize(num_features if len(shape) == 1 else 1)
        diffusion = GaussianDiffusion(num_steps, schedule, beta_start, beta_end, betas)
        self.step_sampler = StepSampler(diffusion.num_steps, time_sampling == "importance")
        self.denoiser: nn.Module
        self.embedding: StepEmbedding | None = None
        if network is not None:
            self.denoiser = network
        else:
            self.embedding = StepEmbedding(
                diffusion.num_steps, hidden_size, time_features, num_time_features, num_classes
            )
            if denoiser == "mlp":
                self.denoiser = ResidualMLP(num_features, hidden_size, num_blocks)
            elif len(shape) == 3:
                levels = channel_multipliers
                self.denoiser = UNet(shape[0], hidden_size, num_blocks, levels, dropout)
            else:
                raise ValueError(
                    f"a U-Net needs images (C, H, W), the data are {shape}; use denoiser mlp"
                )
        weights = None
        if min_snr_gamma is not None:
            weights = diffusion.min_snr_weights(min_snr_gamma, prediction)
        self.register_buffer("loss_weights", weights, persistent=False)
        self.ddpm = DDPM(
            self._network,
            diffusion,
            shape,
            num_classes,
            prediction,
            diffusion.sampler(sampler, num_sample_steps, sample_spacing, variance, eta),
            guidance_weight,
            shared_step=network is None,
            num_hidden=hidden_size * math.prod(shape[1:]),
        )
        if pretrained is not None:
            load_diffusers(self, pretrained)
        distances: dict[str, Metric | MetricCollection] = {"wasserstein": SlicedWasserstein(1)}
        if num_features > 1:
            distances = {
                "sliced_wasserstein": SlicedWasserstein(num_features),
                "mmd": MMD(num_features),
            }
        self.sample_metrics = MetricCollection(distances, prefix="test/")
        self._law: Any = None
        self._linear: Any = None
        self._linear_mse = MeanSquaredError()

    def setup(self, stage: str) -> None:
        """Takes from the datamodule what to measure the predicted noise by.

        The true law where it is known, else the best linear prediction, a rival of the test.
        """
        super().setup(stage)
        datamodule = getattr(self.trainer, "datamodule", None)
        self._law = getattr(datamodule, "law", None)
        if stage == "test" and self._law is None:
            make = getattr(datamodule, "linear_denoiser", None)
            self._linear = None if make is None else make(self.x_scaler.mean, self.x_scaler.std)

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Noise predicted in standardised samples, guided where there are classes.

        Args:
            x_t: Noised samples in standard units, ``(B, *sample_shape)``.
            t: Step of each, ``(B,)``.
            y: Class of each, ``(B,)``; None for no class.
        """
        noise: Tensor = self.ddpm(x_t, t, y)
        return noise

    def _network(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """Output of the network for samples in standard units."""
        given = (t, y) if self.embedding is None else (self.embedding(t, y),)
        output: Tensor = self.denoiser(x, *given)
        return output

    def example_inputs(self, batch: SampleBatch) -> dict[str, Any]:
        """The rows, as if noised, each at the first step."""
        t = torch.zeros(len(batch.x0), dtype=torch.long)
        return {"x_t": batch.x0, "t": t, "y": batch.y if self.num_classes else None}

    def draws(self, num_rows: int, stream: int = 0, seed: int | None = None) -> SharedNoise:
        """Random numbers of the rows of a batch; streams are unrelated."""
        attached = self._trainer is not None
        if seed is None and attached and self.trainer.state.stage is not None:
            seed = self.step_seed  # of a batch that runs; what a fit leaves behind is none's
        if seed is None:
            seed = int(torch.randint(2**62, ()).item())
        world_size = self.trainer.world_size if attached else 1
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
        if self.loss_weights is not None:
            losses = losses * self.loss_weights[t].to(losses.dtype)
        if self.training:
            attached = self._trainer is not None
            self.step_sampler.update(t, losses, self._sum_over_ranks if attached else lambda v: v)
        loss = (losses if weights is None else weights * losses).mean()
        return StepOutput(loss, len(losses), output, target)

    def eval_step(self, batch: SampleBatch) -> StepOutput:
        """The same at uniform steps; the metric sees the noise, expected exactly or as it was."""
        draws = self.draws(len(batch.x0))
        diffusion = self.ddpm.diffusion
        last = diffusion.num_steps - 1
        t = (draws.uniform() * diffusion.num_steps).long().clamp(max=last)
        x_t, output, target, noise = self._denoise(batch.x0, t, batch.y, draws)
        preds = diffusion.to_noise(output, x_t, t, self.ddpm.prediction).to(x_t.dtype)
        levels = diffusion.alphas_cumprod[t]
        if self._linear is not None and self._trainer is not None and self.trainer.testing:
            self._linear_mse.update(self._linear.noise(x_t, levels), noise.double())
        if self._law is not None:
            law = self._law.standardized(self.x_scaler.mean, self.x_scaler.std)
            noise = law.noise(x_t, levels).to(x_t.dtype)
        return StepOutput(F.mse_loss(output, target), len(x_t), preds, noise)

    def _denoise(
        self, x0: Tensor, t: Tensor, y: Tensor | None, draws: SharedNoise
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noised samples, the network's output for them, its target, and the noise."""
        x0 = self.x_scaler(x0)
        noise = draws.normal(self.sample_shape, x0.dtype)
        return *self.ddpm.denoise(x0, t, y if self.num_classes else None, noise), noise

    def test_step(self, batch: SampleBatch, batch_idx: int) -> dict[str, Tensor]:
        """Updates the metrics, and draws samples to compare with the rows."""
        outputs = super().test_step(batch, batch_idx)
        count = self._num_drawn(batch_idx, len(batch.x0))
        samples = self.sample(count, None if batch.y is None else batch.y[:count])
        sets = (samples, batch.x0)
        standard = [(rows - self.x_scaler.mean) / self.x_scaler.std for rows in sets]
        for name, metric in self.sample_metrics.items(keep_base=True):
            # The kernel's length is in standard units, a distance in the units of the data.
            metric.update(*(standard if name == "mmd" else sets))
        return outputs

    def _num_drawn(self, batch_idx: int, num_rows: int) -> int:
        """Samples to draw at a test batch of this rank: one for each of the set's first rows."""
        limit = getattr(getattr(self.trainer, "datamodule", None), "num_test_samples", None)
        if limit is None:
            return num_rows
        world_size = self.trainer.world_size
        loader = self.trainer.test_dataloaders
        size = int(getattr(loader, "batch_size", num_rows * world_size))
        left = int(limit) - batch_idx * size - self.global_rank
        return max(0, min(num_rows, -(-left // world_size)))

    def on_test_epoch_start(self) -> None:
        """Starts the rival's score too, in the mode that it is updated in."""
        super().on_test_epoch_start()
        self._linear_mse.reset()

    def on_test_epoch_end(self) -> None:
        """Logs the errors of the prediction and the distances of the samples."""
        super().on_test_epoch_end()
        self.log_dict(self.sample_metrics.compute(), sync_dist=True)
        self.sample_metrics.reset()
        if self._linear is not None:
            score = float(self._linear_mse.compute())
            self.rivals = {"test/eps_mse": {"linear denoiser": score}}

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
        x = draws.normal(self.sample_shape, next(self.parameters()).dtype)
        if num_samples:
            steps = self.ddpm.reverse(x, draws, y)
            total = len(self.ddpm.sampler_steps.t)
            # Without a terminal there is no bar, nor with one for what takes no time.
            for _ in tqdm(steps, "sampling", total, leave=False, delay=3, disable=None):
                pass
        return self.x_scaler.inverse(x)


def _guidance(num_classes: int, weight: float, class_dropout: float) -> float:
    """The weight of the guidance that the data allow."""
    if weight and not num_classes:
        rank_zero_only(sys.stderr.write)(
            f"lit-models: the data have no classes, so guidance_weight {weight:g} is left out\n"
        )
        return 0.0
    if weight and class_dropout == 0:
        raise ValueError(f"guidance_weight={weight:g} needs a class_dropout above 0")
    return weight
