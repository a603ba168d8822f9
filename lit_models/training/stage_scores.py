"""What is logged of a stage: means weighted by the number of targets, and metrics."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lit_models.layers.standardize import widest_float
from lit_models.metrics.means import WeightedMeans
from lit_models.metrics.scores import accumulate_in
from lit_models.training.ranks import RankSums

Stage = Literal["train", "val", "test"]


class StageScores(RankSums):
    """A module that logs ``train/loss``, ``val/accuracy``..., exact on any number of ranks.

    Attributes:
        val_metrics, test_metrics: Copies of the model's metrics for each stage.
        scores: Last value of every evaluation metric in double precision; Lightning logs in single.
    """

    val_metrics: MetricCollection
    test_metrics: MetricCollection
    scores: dict[str, float]
    _means: dict[Stage, WeightedMeans]

    def _judge_by(self, metrics: Mapping[str, Metric]) -> None:
        # Compute groups merge metrics whose states agree after one batch, such as two shares of 1.
        collection = MetricCollection(dict(metrics), compute_groups=False)
        self.val_metrics = collection.clone(prefix="val/")
        self.test_metrics = collection.clone(prefix="test/")
        self._means = {"train": WeightedMeans(), "val": WeightedMeans(), "test": WeightedMeans()}
        self.scores = {}

    def on_train_epoch_end(self) -> None:
        """Logs the means of the epoch; of several where one is but a step.

        Where a batch is the whole set, an epoch is logged as steps are, every
        ``log_every_n_steps``: with every epoch, the log would cost as much as the step.
        """
        if self._is_logged():
            self.log_dict(self._take_means("train"), sync_dist=True)

    def _is_logged(self) -> bool:
        trainer: Any = self.trainer
        step, every = trainer.global_step, trainer.log_every_n_steps
        if trainer.num_training_batches > 1 or step <= 1 or every <= 1 or step % every == 0:
            return True
        if trainer.should_stop or trainer.max_steps == step:
            return True
        epoch, rhythm = trainer.current_epoch + 1, trainer.check_val_every_n_epoch
        if epoch == trainer.max_epochs or (rhythm and epoch % rhythm == 0):
            return True
        # Whoever watches a training score is to see that of every epoch.
        watching = (*trainer.callbacks, *trainer.lr_scheduler_configs)
        return any(str(getattr(w, "monitor", None)).startswith("train/") for w in watching)

    def on_validation_epoch_start(self) -> None:
        """Lets the metrics add up in the widest type there is."""
        accumulate_in(self.val_metrics, widest_float(self.device))

    def on_test_epoch_start(self) -> None:
        """Lets the metrics add up in the widest type there is."""
        accumulate_in(self.test_metrics, widest_float(self.device))

    def on_validation_epoch_end(self) -> None:
        """Logs means and metrics of the validation set."""
        self._log_evaluation("val", self.val_metrics)

    def on_test_epoch_end(self) -> None:
        """Logs means and metrics of the test set."""
        self._log_evaluation("test", self.test_metrics)

    def _log_evaluation(self, stage: Stage, metrics: MetricCollection) -> None:
        scores = {**self._take_means(stage), **metrics.compute()}
        self.scores.update({name: float(value) for name, value in scores.items()})
        self.log_dict(scores, sync_dist=True)
        metrics.reset()

    def _take_means(self, stage: Stage) -> dict[str, Tensor]:
        means = self._means[stage].take(self._sum_over_ranks)
        return {f"{stage}/{name}": mean for name, mean in means.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the sums of an unfinished epoch, so that a resumed epoch reports all of it."""
        super().on_save_checkpoint(checkpoint)
        sums = {name: self._sum_over_ranks(v) for name, v in self._means["train"].sums.items()}
        checkpoint["train_sums"] = {name: value.cpu() for name, value in sums.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the sums of an unfinished epoch back; rank 0 holds them for all ranks."""
        super().on_load_checkpoint(checkpoint)
        if self._trainer is not None and self.trainer.is_global_zero:
            sums = checkpoint.get("train_sums", {})
            self._means["train"].sums = {k: value.to(self.device) for k, value in sums.items()}
