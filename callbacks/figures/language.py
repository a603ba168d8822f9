"""What a language model says: sample text, and its loss against the number of examples."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from torch.nn import functional as F

from callbacks.figures.base import FigureCallback
from callbacks.run.media import send_rows
from callbacks.run.sharded import takes_part, whole_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class SampleText(L.Callback):
    """Continues beginnings of the test text after the test: ``samples.txt`` and a table in W&B.

    Args:
        num_samples: Number of samples.
        num_tokens: Tokens of each sample.
        prompt_tokens: Tokens of the test text that each sample continues.
        temperature: Divides the logits.
        top_k: Samples among the k likeliest tokens alone.
        show: Whether to print the first sample.
    """

    def __init__(
        self,
        num_samples: int = 4,
        num_tokens: int = 200,
        prompt_tokens: int = 8,
        temperature: float = 0.8,
        top_k: int | None = None,
        show: bool = False,
    ) -> None:
        self.num_samples, self.num_tokens = num_samples, num_tokens
        self.prompt_tokens, self.show = prompt_tokens, show
        self.temperature, self.top_k = temperature, top_k

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Samples and writes, on rank zero."""
        if not takes_part(trainer, pl_module) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        model: Any = pl_module
        batch = next(iter(datamodule.test_dataloader()))
        prompts = batch.tokens[: self.num_samples, : self.prompt_tokens].to(pl_module.device)
        with whole_weights(pl_module):
            texts = model.generate(
                prompts, self.num_tokens, temperature=self.temperature, top_k=self.top_k
            )
        if not trainer.is_global_zero:
            return
        rows = [
            [datamodule.decode(prompt), datamodule.decode(text)]
            for prompt, text in zip(prompts.cpu(), texts.cpu(), strict=True)
        ]
        separator = "" if getattr(datamodule, "tokenizer", None) else " "
        path = Path(trainer.default_root_dir) / "samples.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = [f"{prompt}{separator}{text}\n" for prompt, text in rows]
        path.write_text(f"\n{'-' * 20}\n".join(shown), encoding="utf-8")
        for logger in trainer.loggers:
            send_rows(logger, "samples", ("prompt", "completion"), rows, trainer.global_step)
        if self.show:
            sys.stdout.write(f"\n{shown[0]}\n")


class InContextFigure(FigureCallback):
    """Loss against the number of examples in the context, with the Bayes floor."""

    def draw(self, trainer: L.Trainer, pl_module: L.LightningModule) -> "dict[str, Figure]":
        """The curves of the test rows."""
        from matplotlib.figure import Figure

        datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
        test = datamodule.split("test")
        curves = self._curves(test, pl_module)
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.subplots()
        examples = range(datamodule.num_examples)
        for name, (curve, color, marker) in curves.items():
            axes.plot(examples, curve, color=color, marker=marker, markersize=4, label=name)
        regression = datamodule.family == "linear_regression"
        name = "ridge regression" if regression else "optimum without a prompt"
        axes.plot(examples, datamodule.floors, color="black", linestyle="--", label=name)
        if regression:
            axes.set_yscale("log")
        label = "mean squared error" if regression else "cross-entropy in nats"
        axes.set(xlabel="examples in the context", ylabel=label)
        axes.set_title(f"mean over {len(test[0]):,} test rows")
        axes.grid(alpha=0.3)
        axes.legend()
        return {"loss_per_example": figure}

    @staticmethod
    def _curves(test: Any, pl_module: L.LightningModule) -> dict[str, Any]:
        model, device = pl_module, pl_module.device
        if hasattr(test, "x"):
            x, y = (field.to(device, pl_module.dtype) for field in (test.x, test.y))
            errors = (model(x, y) - y).square().mean(0).cpu()
            return {"model": (errors, "tab:red", "o")}
        logits = torch.cat([model(rows.to(device)).cpu() for rows in test.tokens.split(1000)])
        answers = slice(1, None, 2)
        losses = F.cross_entropy(
            logits[:, answers].transpose(1, 2), test.labels[:, answers], reduction="none"
        )
        prompted = test.group[:, 1] == 0
        return {
            "without a prompt": (losses[~prompted].mean(0), "tab:red", "o"),
            "with a prompt": (losses[prompted].mean(0), "tab:blue", "s"),
        }
