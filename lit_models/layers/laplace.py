r"""Laplace approximations of a perceptron's posterior, linearised around its weights.

With the outputs' Jacobian :math:`J(x)` at the weights :math:`\hat\theta`, the generalised
Gauss-Newton matrix :math:`H = \sum_n J_n^T \Lambda_n J_n` (:math:`\Lambda` the curvature of the
negative log-likelihood in the outputs) and prior precisions :math:`\delta`,

.. math:: q(\theta) = N(\hat\theta, (H + \mathrm{diag}\,\delta)^{-1}), \qquad
          \mathrm{Cov}[f(x)] = J(x)\, (H + \mathrm{diag}\,\delta)^{-1} J(x)^T .

MacKay, "A Practical Bayesian Framework for Backpropagation Networks" (1992); Ritter et al., "A
Scalable Laplace Approximation for Neural Networks" (2018), for the Kronecker form; Immer et al.,
"Improving predictions of Bayesian neural nets via local linearization" (2021).

The Jacobian of an affine layer is an outer product of its input and of the outputs' gradient by its
result, :math:`J_l = g_l \otimes [a_l, 1]`, so that all three forms need these two factors alone:
``full`` keeps H, ``kron`` a Kronecker product for each layer,
:math:`H_l \approx \frac1N \sum g g^T \otimes \sum a a^T`, and ``last_layer`` the full matrix of
the last layer, the others being fixed.

Shape letters: B batch, K outputs, L layers, I inputs and O outputs of a layer, P weights.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import jacrev, vmap

from lit_models.layers.standardize import widest_float

Structure = Literal["full", "kron", "last_layer"]


class Factors(NamedTuple):
    r"""Jacobian of a batch's outputs by one affine layer, :math:`g \otimes a`.

    Attributes:
        inputs: What the layer reads, with a 1 for its bias, ``(B, I + 1)``.
        gradients: Gradient of each output by what the layer gives, ``(B, K, O)``.
    """

    inputs: Tensor
    gradients: Tensor

    def jacobian(self) -> Tensor:
        """The product, ``(B, K, O (I + 1))``."""
        return torch.einsum("bko,bi->bkoi", self.gradients, self.inputs).flatten(2)


def affine_layers(net: nn.Sequential) -> list[nn.Linear]:
    """The affine layers of a perceptron, in order."""
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def factors(net: nn.Sequential, x: Tensor) -> tuple[Tensor, list[Factors]]:
    """Outputs of a perceptron and their Jacobian by each affine layer.

    Args:
        net: Affine layers with non-linearities between them.
        x: Inputs, ``(B, D)``.

    Returns:
        Outputs ``(B, K)`` and the factors of each affine layer.
    """
    widths = [layer.out_features for layer in affine_layers(net)]

    def run(row: Tensor, taps: list[Tensor]) -> tuple[Tensor, tuple[Tensor, list[Tensor]]]:
        inputs, index = [], 0
        for layer in net:
            if isinstance(layer, nn.Linear):
                inputs.append(row)
                row = layer(row) + taps[index]
                index += 1
            else:
                row = layer(row)
        return row, (row, inputs)

    def one(row: Tensor) -> tuple[list[Tensor], tuple[Tensor, list[Tensor]]]:
        taps = [row.new_zeros(width) for width in widths]
        found: tuple[list[Tensor], tuple[Tensor, list[Tensor]]]
        found = jacrev(run, argnums=1, has_aux=True)(row, taps)
        return found

    with torch.no_grad():
        gradients, (outputs, inputs) = vmap(one)(x)
    dtype = widest_float(x.device)
    parts = [
        Factors(torch.cat([a, a.new_ones(len(a), 1)], dim=1).to(dtype), g.to(dtype))
        for a, g in zip(inputs, gradients, strict=True)
    ]
    return outputs, parts


class LaplacePosterior(nn.Module):
    """Gaussian posterior of a perceptron's weights; a subclass says in which form.

    Args:
        shapes: Outputs O and inputs I + 1 (with the bias) of each affine layer.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.shapes = list(shapes)
        self.sizes = [rows * columns for rows, columns in shapes]

    @abstractmethod
    def reset(self) -> None:
        """Forgets all rows."""

    @abstractmethod
    def add(self, parts: Sequence[Factors]) -> None:
        """Adds the rows of a batch; ``gradients`` hold the root of the curvature in the outputs."""

    @abstractmethod
    def finish(self, deltas: Tensor, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Makes the posterior of all rows, under prior precisions ``deltas``, ``(L,)``."""

    @abstractmethod
    def covariance(self, parts: Sequence[Factors]) -> Tensor:
        """Covariance of the outputs, ``(B, K, K)``."""

    @abstractmethod
    def traces(self) -> Tensor:
        """Trace of each layer's covariance, ``(L,)``; the prior's for a layer that is fixed."""


class FullPosterior(LaplacePosterior):
    """All weights of some layers jointly.

    Args:
        shapes: As in :class:`LaplacePosterior`.
        first: Number of the first layer that is uncertain.
    """

    curvature: Tensor
    root: Tensor
    deltas: Tensor

    def __init__(self, shapes: Sequence[tuple[int, int]], first: int = 0) -> None:
        super().__init__(shapes)
        self.first = first
        num_weights = sum(self.sizes[first:])
        self.register_buffer("deltas", torch.ones(len(shapes), dtype=torch.float64))
        # Lower Cholesky factor of the precision.
        self.register_buffer("root", torch.eye(num_weights, dtype=torch.float64))
        self.register_buffer("curvature", torch.empty(0), persistent=False)

    def reset(self) -> None:
        """Forgets all rows."""
        self.curvature = torch.zeros_like(self.root)

    def _jacobian(self, parts: Sequence[Factors]) -> Tensor:
        return torch.cat([part.jacobian() for part in parts[self.first :]], dim=2)

    def add(self, parts: Sequence[Factors]) -> None:
        """Adds the rows of a batch."""
        jacobian = self._jacobian(parts).flatten(0, 1)
        self.curvature += jacobian.T @ jacobian

    def finish(self, deltas: Tensor, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Factorises the precision."""
        sizes = torch.tensor(self.sizes[self.first :], device=deltas.device)
        prior = deltas[self.first :].repeat_interleave(sizes)
        precision = sum_over_ranks(self.curvature) + prior.diag()
        self.root.copy_(torch.linalg.cholesky(precision))
        self.deltas.copy_(deltas)
        self.curvature = self.root.new_empty(0)

    def covariance(self, parts: Sequence[Factors]) -> Tensor:
        """Covariance of the outputs, ``(B, K, K)``."""
        jacobian = self._jacobian(parts)
        flat = jacobian.flatten(0, 1)
        solved = torch.linalg.solve_triangular(self.root, flat.T, upper=False).T.view_as(jacobian)
        covariance: Tensor = solved @ solved.mT
        return covariance

    def traces(self) -> Tensor:
        """Trace of each layer's covariance, ``(L,)``."""
        inverse = torch.linalg.solve_triangular(
            self.root, torch.eye(len(self.root)).to(self.root), upper=False
        )
        variances = inverse.square().sum(0).split(self.sizes[self.first :])
        fixed = [
            size / delta for size, delta in zip(self.sizes[: self.first], self.deltas, strict=False)
        ]
        return torch.stack([*fixed, *(part.sum() for part in variances)])


class KroneckerPosterior(LaplacePosterior):
    """A Kronecker product for each layer, in its eigenbasis.

    Args:
        shapes: As in :class:`LaplacePosterior`.
    """

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        super().__init__(shapes)
        for index, shape in enumerate(shapes):
            for side, size in zip(("out", "in"), shape, strict=True):
                eye = torch.eye(size, dtype=torch.float64)
                self.register_buffer(f"basis_{side}_{index}", eye)
                self.register_buffer(f"sum_{side}_{index}", torch.empty(0), persistent=False)
            variances = torch.ones(shape, dtype=torch.float64)
            self.register_buffer(f"variances_{index}", variances)
        self.register_buffer("num_rows", torch.zeros((), dtype=torch.float64), persistent=False)

    num_rows: Tensor

    def reset(self) -> None:
        """Forgets all rows."""
        self.num_rows.zero_()
        for index in range(len(self.shapes)):
            for side in ("out", "in"):
                basis = self.get_buffer(f"basis_{side}_{index}")
                setattr(self, f"sum_{side}_{index}", torch.zeros_like(basis))

    def add(self, parts: Sequence[Factors]) -> None:
        """Adds the rows of a batch."""
        self.num_rows += len(parts[0].inputs)
        for index, (inputs, gradients) in enumerate(parts):
            rows = gradients.flatten(0, 1)
            self.get_buffer(f"sum_out_{index}").add_(rows.T @ rows)
            self.get_buffer(f"sum_in_{index}").add_(inputs.T @ inputs)

    def finish(self, deltas: Tensor, sum_over_ranks: Callable[[Tensor], Tensor]) -> None:
        """Takes the eigenvalues of both factors."""
        num_rows = sum_over_ranks(self.num_rows)
        for index, delta in enumerate(deltas):
            spectra = []
            for side in ("out", "in"):
                total = sum_over_ranks(self.get_buffer(f"sum_{side}_{index}"))
                values, basis = torch.linalg.eigh(total)
                self.get_buffer(f"basis_{side}_{index}").copy_(basis)
                spectra.append(values.clamp(min=0))
                setattr(self, f"sum_{side}_{index}", total.new_empty(0))
            curvature = torch.outer(spectra[0], spectra[1]) / num_rows
            self.get_buffer(f"variances_{index}").copy_(1 / (curvature + delta))

    def covariance(self, parts: Sequence[Factors]) -> Tensor:
        """Covariance of the outputs, ``(B, K, K)``."""
        total = torch.zeros_like(self.num_rows)
        for index, (inputs, gradients) in enumerate(parts):
            out = gradients @ self.get_buffer(f"basis_out_{index}")
            squares = (inputs @ self.get_buffer(f"basis_in_{index}")).square()
            scaled = out * (squares @ self.get_buffer(f"variances_{index}").T).unsqueeze(1)
            total = total + scaled @ out.mT
        return total

    def traces(self) -> Tensor:
        """Trace of each layer's covariance, ``(L,)``."""
        return torch.stack(
            [self.get_buffer(f"variances_{index}").sum() for index in range(len(self.shapes))]
        )


def make_posterior(net: nn.Sequential, structure: Structure) -> LaplacePosterior:
    """The posterior of a perceptron's weights in one of the three forms."""
    shapes = [(layer.out_features, layer.in_features + 1) for layer in affine_layers(net)]
    if structure == "kron":
        return KroneckerPosterior(shapes)
    return FullPosterior(shapes, first=len(shapes) - 1 if structure == "last_layer" else 0)
