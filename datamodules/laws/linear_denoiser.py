r"""The best linear prediction of the noise in noised samples, known from mean and covariance alone.

Along an axis on which the samples vary by :math:`\lambda` about their mean :math:`\mu`,

.. math::
    \hat\epsilon(x_t) = \frac{\sqrt{1 - \bar\alpha}}{\bar\alpha \lambda + 1 - \bar\alpha}
        (x_t - \sqrt{\bar\alpha}\, \mu),

which is :math:`E[\epsilon \mid x_t]` of a Gaussian of the same moments: Wiener's filter. A network
that does no better has learned nothing but them.

The axes are the principal ones. Pictures too large for a covariance have waves as axes instead,
each of them along the principal axes of the channels. Few rows know little of many axes: the
variances are drawn towards their mean as far as Ledoit and Wolf, "A well-conditioned estimator for
large-dimensional covariance matrices" (2004), find best.

Shape letters: B samples, D numbers in one, C channels, H and W sides.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_MAX_PRINCIPAL = 1024  # numbers in a sample whose covariance is decomposed


class LinearDenoiser:
    """Predicts the noise in noised samples by their moments.

    Args:
        blocks: Gives the samples ``(b, *shape)``, some at a time, anew at every call.
        shape: Shape of one sample: ``(D,)`` or ``(C, H, W)``.

    Raises:
        ValueError: If vectors are too long.

    Example:
        >>> denoiser = LinearDenoiser(lambda: iter([torch.tensor([[-1.0], [1.0]])]), (1,))
        >>> denoiser.noise(torch.tensor([[0.5]]), torch.tensor([0.0]))  # nothing left but noise
        tensor([[0.5000]], dtype=torch.float64)
    """

    def __init__(self, blocks: Callable[[], Iterator[Tensor]], shape: tuple[int, ...]) -> None:
        self.shape, size = tuple(shape), math.prod(shape)
        self._waves = size > _MAX_PRINCIPAL
        if self._waves and len(shape) != 3:
            raise ValueError(f"vectors of {size} numbers are too long, at most {_MAX_PRINCIPAL}")
        count = 0
        total = torch.zeros(size, dtype=torch.float64)
        for block in blocks():
            total += block.double().flatten(1).sum(0)
            count += len(block)
        self.mean = (total / count).view(self.shape)

        def centred() -> Iterator[Tensor]:
            return (block.double() - self.mean for block in blocks())

        width = shape[0] if self._waves else size
        covariance = torch.zeros(width, width, dtype=torch.float64)
        fourth = torch.zeros((), dtype=torch.float64)
        for block in centred():
            rows = block.movedim(1, -1).reshape(-1, width) if self._waves else block.flatten(1)
            covariance += rows.T @ rows / count
            fourth += rows.square().sum(1).square().sum()
        variances, axes = torch.linalg.eigh(covariance)
        self.axes: Tensor = axes
        if self._waves:
            variances, fourth = torch.zeros(self.shape, dtype=torch.float64), fourth.zero_()
            for block in centred():
                powers = self._along(block).abs().square()
                variances += powers.sum(0) / count
                fourth += powers.square().sum()
        self.variances = _shrunk(variances.clamp(min=0), fourth, count)

    def _along(self, x: Tensor) -> Tensor:
        """Coordinates of centred samples on the axes."""
        axes = self.axes.to(x)
        if not self._waves:
            return x.flatten(1) @ axes
        waves: Tensor = torch.fft.fft2(torch.einsum("bchw,ck->bkhw", x, axes), norm="ortho")
        return waves

    def _back(self, coordinates: Tensor) -> Tensor:
        if not self._waves:
            return (coordinates @ self.axes.to(coordinates).T).view(-1, *self.shape)
        pictures = torch.fft.ifft2(coordinates, norm="ortho").real
        turned: Tensor = torch.einsum("bkhw,ck->bchw", pictures, self.axes.to(pictures))
        return turned.contiguous()

    def noise(self, x_t: Tensor, alphas_cumprod: Tensor) -> Tensor:
        r"""The predicted noise.

        Args:
            x_t: Noised samples, ``(B, *shape)``.
            alphas_cumprod: Level :math:`\bar\alpha` of each, ``(B,)``.

        Returns:
            Noise, ``(B, *shape)``, in double precision where the device has it.
        """
        x = x_t.float() if x_t.device.type == "mps" else x_t.double()
        level = alphas_cumprod.to(x).view(-1, *[1] * self.variances.dim())
        factors = (1 - level).sqrt() / (level * self.variances.to(x) + 1 - level)
        signal = alphas_cumprod.to(x).sqrt().view(-1, *[1] * len(self.shape))
        return self._back(factors * self._along(x - signal * self.mean.to(x)))


def _shrunk(variances: Tensor, fourth: Tensor, count: int) -> Tensor:
    """Variances along axes, drawn towards their mean.

    Args:
        variances: Means over the rows of the squares along each axis.
        fourth: Sum over the rows of the square of what the mean is over.
        count: Number of rows.
    """
    noise = (fourth / count - variances.square().sum()) / count
    spread = (variances - variances.mean()).square().sum()
    share = (noise / spread).clamp(0, 1) if spread > 0 else spread
    return variances + share * (variances.mean() - variances)
