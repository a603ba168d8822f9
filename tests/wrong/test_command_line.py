"""Wrong options; those that tests/test_cli.py has are not here again."""

import pytest
from refusals import CONFIG, FIT

CASES = {
    "no value": ([*FIT, "--model.hidden_size"], "expected one argument"),
    "config without a name": (["fit", "--config"], "no configuration file or packaged name ''"),
    "config is a folder": (["fit", "--config", "."], "packaged name '.'"),
    "double dash": ([*FIT, "--"], "unrecognized arguments: --; --help lists"),
    "unknown short option": ([*FIT, "-x", "3"], "unrecognized arguments: -x 3; --help lists"),
    "unknown option": ([*FIT, "--epochs", "3"], "unrecognized arguments: --epochs 3"),
    "nameless option": ([*FIT, "=5"], "unexpected ''; options start with --"),
    "misspelt flag": ([*FIT, "--print_confg"], "--print_confg"),
    "flag with a value": ([*FIT, "--print_config=x"], "unrecognized arguments: x"),
    "seed of text": (
        [*FIT, "--seed_everything", "x"],
        "seed_everything: expected bool or int, got x",
    ),
    "negative seed": ([*FIT, "--seed_everything", "-1"], "must lie in [0, 4294967295], got -1"),
    "huge seed": ([*FIT, "--seed_everything", "9" * 14], "got 99999999999999"),
    "learning rate of text": (
        [*FIT, "--model.optimizer.lr", "fast"],
        "model.optimizer.lr: expected float or a class path, got fast",
    ),
    "negative learning rate": (
        [*FIT, "--model.optimizer.lr", "-1"],
        "optimizer or lr_scheduler: Invalid learning rate: -1.0",
    ),
    "infinite learning rate": ([*FIT, "--model.optimizer.lr", "inf"], "got inf"),
    "unknown optimizer": (
        [*FIT, "--model.optimizer", "Adamm"],
        "model.optimizer: expected a class path, got Adamm",
    ),
    "no optimizer": (
        [*FIT, "--model.optimizer", "torch.nn.ReLU"],
        "subclass of <class 'Optimizer'>",
    ),
    "unknown schedule": ([*FIT, "--model.lr_scheduler", "Cosine"], "model.lr_scheduler: expected"),
    "unknown option of a schedule": (
        [*FIT, "--model.lr_scheduler.num_warmup", "3"],
        "model.lr_scheduler: Option 'num_warmup' is not accepted",
    ),
    "schedule without its length": (
        [*FIT, "--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"],
        "step_size",
    ),
    "data of another family": (
        ["fit", "--config", "lstm", "--data", "LinearDataModule"],
        "LitRecurrentForecaster takes batches of SeriesBatch, LinearDataModule gives "
        "SupervisedBatch; choose --data from CSVSeriesDataModule, SineDataModule",
    ),
    "data of two kinds, both of another family": (
        ["fit", "--model", "LitGCN", "--data", "InContextDataModule"],
        "LitGCN takes batches of GraphBatch, InContextDataModule gives TokenBatch or ExamplesBatch",
    ),
    "data whose options decide on another family": (
        ["fit", "--model", "LitGPTRegressor", "--data", "InContextDataModule"],
        "LitGPTRegressor takes batches of ExamplesBatch, with these --data options "
        "InContextDataModule gives TokenBatch; its --help names the options",
    ),
    "nodes for an experiment of links": (
        ["fit", "--config", "graph_network_links", "--data", "GraphDataModule", "--data.path=x.pt"],
        "graph_network_links predicts links, GraphDataModule gives targets of nodes or graphs; use "
        "--data LinkDataModule",
    ),
    "data without classes": (
        ["fit", "--model", "LitGPTClassifier", "--data", "InContextDataModule"],
        "LitGPTClassifier needs num_classes, which InContextDataModule does not have",
    ),
    "average that is never updated": (
        [*FIT, "--trainer.callbacks+=callbacks.EMA", "--trainer.callbacks.update_every_n_steps=0"],
        "update_every_n_steps is 0; give 1 or more",
    ),
    "unknown callback": (
        [*FIT, "--trainer.callbacks+=NoSuch"],
        "trainer.callbacks: expected a class path, got NoSuch",
    ),
    "no callback": (
        [*FIT, "--trainer.callbacks+=torch.nn.Linear"],
        "a subclass of Callback, got torch.nn.Linear",
    ),
    "unknown logger": ([*FIT, "--trainer.logger", "NoSuch"], "got NoSuch"),
    "unknown precision": (
        [*FIT, "--trainer.precision", "12"],
        "trainer.precision: expected 64, 32, 16 or",
    ),
    "no device": ([*FIT, "--trainer.devices", "0"], "devices='0'"),
    "devices of text": ([*FIT, "--trainer.devices", "2x"], "should be an int > 0"),
    "absent device": ([*FIT, "--trainer.accelerator", "mps"], "MPS"),
    "unknown accelerator": ([*FIT, "--trainer.accelerator", "warp"], "accelerator='warp'"),
    "unknown strategy": ([*FIT, "--trainer.strategy", "magic"], "strategy='magic'"),
    "epochs of text": (
        [*FIT, "--trainer.max_epochs", "many"],
        "trainer.max_epochs: expected int, got many",
    ),
    "negative epochs": ([*FIT, "--trainer.max_epochs", "-5"], "You passed in -5"),
    "negative steps": ([*FIT, "--trainer.max_steps", "-7"], "You passed in -7"),
    "validation after the epoch's end": (
        [*FIT, "--trainer.val_check_interval", "1000"],
        "--trainer.val_check_interval 1000 exceeds the 6 batches of an epoch; shorten it",
    ),
    "negative validation interval": (
        [*FIT, "--trainer.val_check_interval", "-1"],
        "value -1 for val_check_interval",
    ),
    "negative number of batches": ([*FIT, "--trainer.limit_train_batches", "-3"], "value -3"),
    "share below one batch": ([*FIT, "--trainer.limit_train_batches", "0.01"], "0.01 * 6 < 1"),
    "no batch to accumulate": (
        [*FIT, "--trainer.accumulate_grad_batches", "0"],
        "--trainer.accumulate_grad_batches must be at least 1, got 0",
    ),
    "negative clipping": (
        [*FIT, "--trainer.gradient_clip_val", "-1"],
        "--trainer.gradient_clip_val must not be negative, got -1",
    ),
    "unknown clipping": ([*FIT, "--trainer.gradient_clip_algorithm", "magic"], "magic is invalid"),
    "unknown profiler": ([*FIT, "--trainer.profiler", "magic"], "profiler"),
    "name that YAML reads as a boolean": (
        [
            *FIT,
            "--data",
            "CSVTabularDataModule",
            "--data.path=a.csv",
            "--data.target=y",
            "--data.drop=[No]",
        ],
        'got False; quote a name that YAML reads as another type, as in \'["No", "1"]\', got [F',
    ),
    "batch of one row": (
        [
            *("fit", "--config", "binary_classification", "--config", "cpu", "--data.batch_size=1"),
            *(
                "--data.num_samples=40",
                "--trainer.max_epochs=1",
                "--trainer.enable_progress_bar=false",
            ),
        ],
        "batch normalisation needs more than one row in a training batch of a process",
    ),
    "finder of a rate": (
        [*FIT, "--trainer.callbacks+=LearningRateFinder"],
        "LearningRateFinder changes the attribute `lr` of a model, which a LitTiny has not",
    ),
    "metric that stops early misspelt": (
        [*FIT, "--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
        "Early stopping conditioned on metric `val_loss` which is not available",
    ),
    "unknown metric to watch": ([*FIT, "--checkpoint.monitor", "val/nothing"], "val/nothing"),
    "unknown direction": ([*FIT, "--checkpoint.mode", "best"], "min, max but got best"),
    "too few checkpoints": ([*FIT, "--checkpoint.save_top_k", "-5"], "save_top_k=-5"),
    "negative rhythm of checkpoints": (
        [*FIT, "--last_checkpoint.every_n_train_steps", "-1"],
        "got -1",
    ),
    "unknown mode of W&B": (
        [*FIT, "--wandb.mode", "sometimes"],
        "wandb.mode: expected 'online', 'offline', 'disabled', got sometimes",
    ),
    "run id that leads elsewhere": ([*FIT, "--run_id", "../x"], "--run_id takes up to 128 letters"),
    "run id with a slash": ([*FIT, "--run_id", "a/b"], "got 'a/b'"),
    "empty run id": ([*FIT, "--run_id", ""], "got ''"),
    "long run id": ([*FIT, "--run_id", "x" * 300], "takes up to 128"),
    "experiment that leads elsewhere": (
        [*FIT, "--experiment", "../x"],
        "one folder of --runs_dir, got '../x'",
    ),
    "switch of text": (
        [*FIT, "--test_after_fit", "maybe"],
        "test_after_fit: expected bool, got maybe",
    ),
    "list of metrics": ([*FIT, "--test_metrics", "5"], "test_metrics: expected list, got 5"),
    "unknown data module": ([*FIT, "--data", "no.Data"], "No module named 'no'"),
    "a model for data": (
        [*FIT, "--data", "tiny.LitTiny"],
        "subclass of LightningDataModule, got tiny.LitTiny",
    ),
    "data for a model": ([*FIT, "--model", "tiny.TinyDataModule"], "subclass of LightningModule"),
    "probability above 1": ([*FIT, "--model.dropout", "1.5"], "dropout must be in [0, 1), got 1.5"),
    "probability of nan": (
        [*FIT, "--model.dropout", "nan"],
        "model.dropout: expected float, got nan",
    ),
    "more than memory": ([*FIT, "--model.hidden_size", "999999999999"], "allocate"),
    "fraction for a count": (
        [*FIT, "--data.batch_size", "2.5"],
        "data.batch_size: expected int, got 2.5",
    ),
    "null for a number": (
        [*FIT, "--data.noise_std", "null"],
        "--data.noise_std is null; give a value, or leave it out for its default, 0.1",
    ),
    "null for a size of the model": (
        [*FIT, "--model.hidden_size", "null"],
        "--model.hidden_size is null; give a value, or leave it out for its default, 7",
    ),
    "list for a number": ([*FIT, "--data.batch_size", "[1,2]"], "expected int, got [1, 2]"),
    "text for a number": ([*FIT, "--data.noise_std", "x"], "data.noise_std: expected float, got x"),
    "trainer of a number": ([*FIT, "--trainer", "5"], "trainer"),
    "checkpoint is a folder": (
        ["test", "--config", CONFIG, "--ckpt_path", "."],
        "no checkpoint '.'; give best",
    ),
    "empty checkpoint": ([*FIT, "--ckpt_path", ""], "no checkpoint ''; give best"),
    "checkpoint without a value": ([*FIT, "--ckpt_path"], "--ckpt_path needs a value"),
    "no best run": ([*FIT, "--ckpt_path", "best"], "no best checkpoint of 'tiny' under runs/tiny"),
    "rows of data without that option": (
        ["predict", "--config", CONFIG, "--ckpt_path", "none", "--data.predict_path", "x"],
        "Option 'predict_path' is not accepted",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_is_refused(refused, name):
    refused(*CASES[name])


def test_an_error_of_the_data_keeps_its_own_words(refused, monkeypatch):
    def read(datamodule):
        raise ModuleNotFoundError("No module named 'reader'")

    size = property(read, lambda datamodule, value: None)
    monkeypatch.setattr("datamodules.LinearDataModule.in_features", size, raising=False)
    refused(["fit", "--config", "linear_regression"], "lit-models: error: No module named 'reader'")
