"""Standardisation by the training set, carried inside the model and its checkpoint."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import InputError


def widest_float(device: torch.device) -> torch.dtype:
    """Float64, or float32 where the device has no wider type (Apple's)."""
    return torch.float32 if device.type == "mps" else torch.float64


class Standardize(nn.Module):
    r"""Maps :math:`x` to :math:`(x - \mu) / \sigma` and back.

    A model that holds the scale of its training data takes and returns values in the units of the
    user's file, and predicts correctly on a file it has never seen. The datamodule publishes mean
    and standard deviation of the training rows; without one the map is the identity.

    Values are centred and scaled in float64, whatever the model computes in: a time in
    milliseconds or a meter's count keeps the digits that vary.

    Args:
        num_features: Size D of the last dimension.

    Attributes:
        is_fitted: Whether a scale was given, by :meth:`fit` or by a checkpoint.

    Shape:
        Input and output ``(*, D)``.

    Example:
        >>> scaler = Standardize(2)
        >>> scaler.fit([100.0, 0.0], [10.0, 1.0])
        >>> scaler(torch.tensor([[120.0, 3.0]]))
        tensor([[2., 3.]])
        >>> scaler.inverse(torch.tensor([[2.0, 3.0]]))
        tensor([[120.,   3.]], dtype=torch.float64)
    """

    mean: Tensor
    std: Tensor
    _like: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features, dtype=torch.float64))
        self.register_buffer("std", torch.ones(num_features, dtype=torch.float64))
        # Takes the type that the rest of the model is converted to.
        self.register_buffer("_like", torch.empty(0), persistent=False)
        self.is_fitted = False

    @property
    def dtype(self) -> torch.dtype:
        """Type of standardised values, that of the model's weights."""
        return self._like.dtype

    def fit(self, mean: Any, std: Any) -> None:
        """Takes a scale.

        Args:
            mean: Mean of each feature, ``(D,)``.
            std: Standard deviation of each feature, ``(D,)``, positive.

        Raises:
            ValueError: If the number of features differs, or a scale is not positive and finite.
        """
        mean, std = (torch.as_tensor(v, dtype=torch.float64, device="cpu") for v in (mean, std))
        if mean.shape != self.mean.shape or std.shape != self.std.shape:
            raise ValueError(
                f"a scale of {len(self.mean)} features was expected, got {mean.numel()} means and "
                f"{std.numel()} standard deviations"
            )
        if not bool((std > 0).all() and std.isfinite().all() and mean.isfinite().all()):
            raise ValueError("means must be finite and standard deviations positive and finite")
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.is_fitted = True

    def check_single_precision(self, what: str, device: str) -> None:
        """Checks that single precision tells the values of every column apart.

        Args:
            what: Name of the values, for the message.
            device: Name of the device that has no other.

        Raises:
            InputError: Naming the first column that it does not.
        """
        lost = (self.mean.abs() > 2.0**18 * self.std).nonzero()
        if len(lost):
            raise InputError(
                f"column {lost[0, 0].item() + 1} of {what} varies too little for its size in "
                f"single precision, all that {device} has; add --trainer.accelerator cpu"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Values in units of the training set's standard deviation.

        Raises:
            InputError: For another number of features.
            ValueError: For values in float64, the type of a file's own numbers, without a scale.
        """
        if not self.is_fitted and x.dtype == torch.float64 != self.dtype:
            raise ValueError(
                "the data are in their file's units and no scale is fitted; call "
                "model.take_scale(datamodule) before the first step"
            )
        if x.shape[-1] not in (1, len(self.mean)) and len(self.mean) > 1:
            raise InputError(
                f"the data have {x.shape[-1]} features and the model is made for {len(self.mean)}"
            )
        return ((x.to(self.mean.dtype) - self.mean) / self.std).to(self.dtype)

    def inverse(self, z: Tensor) -> Tensor:
        """Values in the units of the data, in float64."""
        return z.to(self.mean.dtype) * self.std + self.mean

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Standardize":
        # The scale follows the model to its device, and to no narrower type.
        scale = {name: self._buffers.pop(name) for name in ("mean", "std")}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self._like.device
        for name, value in scale.items():
            assert value is not None
            self._buffers[name] = value.to(device, widest_float(device))
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.is_fitted = True


def scalers_of(module: nn.Module) -> Iterator[tuple[str, Standardize]]:
    """Scalers that a module holds, by name."""
    return ((k, child) for k, child in module.named_children() if isinstance(child, Standardize))


def check_fitted(module: nn.Module) -> None:
    """Checks that the scalers of a module know a scale.

    Raises:
        InputError: Naming one that does not.
    """
    for name, scaler in scalers_of(module):
        if not scaler.is_fitted:
            raise InputError(
                f"{name} has no scale: give the Trainer the datamodule, or call "
                "model.take_scale(datamodule); model.take_scale(None) for standardised data"
            )
