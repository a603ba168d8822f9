"""Schedules that advance at every optimizer step, and weight decay on matrices alone."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_models.layers.ranges import COUNT, NOT_NEGATIVE, SHARE, check_ranges


class WarmupCosine(LambdaLR):
    """Linear warm-up to the optimizer's rate, then a cosine down to ``min_ratio`` of it.

    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), without
    restarts.

    Args:
        optimizer: Optimizer whose rate is scheduled.
        num_warmup_steps: Optimizer steps of the linear warm-up.
        total_steps: Optimizer steps of the whole run; None takes it from the Trainer.
        min_ratio: Final rate as a fraction of the optimizer's rate.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = WarmupCosine(optimizer, num_warmup_steps=2, total_steps=6)
        >>> rates = []
        >>> for _ in range(6):
        ...     rates.append(round(schedule.get_last_lr()[0], 3))
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        num_warmup_steps: int = 0,
        total_steps: int | None = None,
        min_ratio: float = 0.0,
    ) -> None:
        ranges = {"num_warmup_steps": NOT_NEGATIVE, "total_steps": COUNT, "min_ratio": SHARE}
        given = {"num_warmup_steps": num_warmup_steps, "total_steps": total_steps}
        check_ranges({**given, "min_ratio": min_ratio}, ranges, "WarmupCosine")
        self.num_warmup_steps = num_warmup_steps
        self.total_steps = total_steps
        self.min_ratio = min_ratio
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Rate at an optimizer step as a fraction of the optimizer's rate."""
        if step < self.num_warmup_steps:
            return (step + 1) / self.num_warmup_steps
        if self.total_steps is None:
            return 1.0
        length = max(self.total_steps - self.num_warmup_steps, 1)
        progress = min((step - self.num_warmup_steps) / length, 1.0)
        return self.min_ratio + (1 - self.min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))


class Noam(LambdaLR):
    r"""Warm-up and inverse square root of Vaswani et al. (2017), equation 3.

    The rate is :math:`\eta \, d^{-1/2} \min(s^{-1/2}, s \, w^{-3/2})` at step :math:`s = 1, 2, ...`
    with the optimizer's rate :math:`\eta` as a factor (the paper's is 1).

    Args:
        optimizer: Optimizer whose rate is scheduled.
        d_model: Width :math:`d` of the model.
        num_warmup_steps: Number :math:`w` of steps in which the rate grows.
    """

    interval = "step"

    def __init__(self, optimizer: Optimizer, d_model: int, num_warmup_steps: int = 4000) -> None:
        given = {"d_model": d_model, "num_warmup_steps": num_warmup_steps}
        check_ranges(given, dict.fromkeys(given, COUNT), "Noam")
        self.d_model = d_model
        self.num_warmup_steps = num_warmup_steps
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """Rate at an optimizer step as a fraction of the optimizer's rate."""
        count = step + 1
        warmup = count / self.num_warmup_steps
        return min(1.0, math.pow(warmup, 1.5)) / math.sqrt(self.d_model * count)


class AdamWMatrixDecay(torch.optim.AdamW):
    """AdamW whose weight decay skips biases, norms and every other vector.

    :class:`~lit_models.base.LitModule` also spares the biases of stacked networks and the log
    standard deviations of a posterior (:meth:`exempt`).

    Args:
        params: Parameters to optimize; those with two or more dimensions decay.
        lr: Learning rate.
        betas: Decay rates of the running moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay of the matrices.
        fused: Whether to update all parameters in one kernel.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        fused: bool | None = None,
    ) -> None:
        parameters = list(params)
        groups = [
            {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, fused=fused)

    def exempt(self, module: nn.Module) -> None:
        """Takes vectors that stand in stacks, and scales of noise, out of the decay.

        The biases of an ensemble's networks are a matrix in shape, and a posterior's log standard
        deviations have a prior of their own.

        Args:
            module: Holds the parameters; parts of it may list theirs as ``stacked_vectors``.
        """
        spared = {id(p) for name, p in module.named_parameters() if name.endswith("log_std")}
        for part in module.modules():
            spared |= {id(p) for p in getattr(part, "stacked_vectors", ())}
        decaying = next((g for g in self.param_groups if g["weight_decay"] != 0), None)
        moved = [p for p in decaying["params"] if id(p) in spared] if decaying else []
        if decaying is None or not moved:
            return
        decaying["params"] = [p for p in decaying["params"] if id(p) not in spared]
        rest = next((g for g in self.param_groups if g["weight_decay"] == 0), None)
        if rest is None:
            self.add_param_group({"params": moved, "weight_decay": 0.0})
        else:
            rest["params"] += moved
