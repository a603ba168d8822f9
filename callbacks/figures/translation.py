"""BLEU and chrF of the translations that a model writes by itself."""

from typing import Any, Literal

import lightning as L
from torchmetrics import Metric
from torchmetrics.text import CHRFScore, SacreBLEUScore

from datamodules.errors import InputError


class TranslationScore(L.Callback):
    """Logs ``val/bleu``, ``test/bleu`` and ``test/chrf`` against the file's own targets.

    Both are of the whole corpus and in percent: BLEU as in Post, "A Call for Clarity in Reporting
    BLEU Scores" (2018); chrF2, the F-score of character n-grams up to six, as in Popovic, "chrF:
    character n-gram F-score for automatic MT evaluation" (2015). Computed by torchmetrics, whose
    chrF takes ten milliseconds a sentence: in the test alone.

    Args:
        tokenize: How both sides are cut into words: ``13a`` for ordinary text, ``none`` for text
            whose words are set apart by blanks already.
        lowercase: Whether case is ignored.
    """

    def __init__(
        self,
        tokenize: Literal["none", "13a", "zh", "intl", "char"] = "13a",
        lowercase: bool = False,
    ) -> None:
        self.bleu = SacreBLEUScore(tokenize=tokenize, lowercase=lowercase)
        self.chrf = CHRFScore(n_word_order=0, lowercase=lowercase)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks that the data are text.

        Raises:
            InputError: If the datamodule has no sentences to compare with.
        """
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(datamodule, "references"):
            raise InputError(
                f"TranslationScore compares sentences and {type(datamodule).__name__} has none; "
                "use it with TextPairsDataModule"
            )

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Compares a batch of the validation set."""
        self._update(trainer.datamodule, "val", trainer.val_dataloaders, outputs, batch_idx)  # type: ignore[attr-defined]

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Compares a batch of the test set."""
        self._update(trainer.datamodule, "test", trainer.test_dataloaders, outputs, batch_idx)  # type: ignore[attr-defined]

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the score of the validation set."""
        self._log(pl_module, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the scores of the test set."""
        self._log(pl_module, "test")

    def _update(
        self, datamodule: Any, split: str, loader: Any, outputs: Any, batch_idx: int
    ) -> None:
        references = datamodule.references(split)
        target = [[references[row]] for row in loader.rows(batch_idx).tolist()]
        preds = outputs["preds"]
        texts = datamodule.decode(preds)
        for metric in self._judges(split).values():
            metric.to(preds.device).update(texts, target)

    def _judges(self, stage: str) -> dict[str, Metric]:
        return {"bleu": self.bleu} | ({"chrf": self.chrf} if stage == "test" else {})

    def _log(self, pl_module: L.LightningModule, stage: str) -> None:
        for name, metric in self._judges(stage).items():
            # compute() has summed over the ranks already; their equal values survive another mean.
            pl_module.log(f"{stage}/{name}", 100 * metric.compute(), sync_dist=True)
            metric.reset()
