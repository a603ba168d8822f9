"""What a fit does not need is not loaded, and is there all the same for whoever asks."""

import subprocess
import sys
import textwrap

import pytest

from lit_models.training.startup import _Later, standing_in


def run(code):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_run_imports_its_own_model_and_no_more():
    """Neither what torchmetrics needs for a few scores, which is there for whoever asks."""
    assert (
        run("""
        import os, sys
        os.environ["WANDB_MODE"] = "disabled"
        from lit_models.training.startup import light_lightning
        with light_lightning():
            import lightning
        assert not {"scipy.signal", "pandas", "transformers"} & set(sys.modules)
        from lit_models.command.cli import build
        cli = build(["--config", "lstm", "--trainer.accelerator", "cpu"])
        print(type(cli.model).__name__, {"torch_geometric", "wandb"} & set(sys.modules))
        import scipy.signal
        from scipy.signal.windows import hamming
        print(len(scipy.signal.lfilter([1.0], [1.0], [1.0, 2.0])), len(hamming(3)))
        """)
        == "LitRecurrentForecaster set()\n2 3\n"
    )


def test_a_run_starts_without_the_job_launcher(tmp_path):
    assert (
        run(f"""
        import os, sys
        os.environ |= {{"WANDB_MODE": "offline", "WANDB_SILENT": "true"}}
        from lit_models.training.lightning_repairs import RunWandbLogger
        logger = RunWandbLogger(project="p", save_dir={str(tmp_path)!r})
        logger.experiment.config.update({{"lr": 0.1}})
        assert logger.experiment.config["lr"] == 0.1
        assert not any(name.startswith("wandb.sdk.launch") for name in sys.modules)
        import wandb
        wandb.finish()
        from wandb.sdk.launch.inputs.internal import StagedLaunchInputs
        print(StagedLaunchInputs.__module__)
        """)
        == "wandb.sdk.launch.inputs.internal\n"
    )


def test_a_stand_in_gives_way_to_the_module(monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with standing_in("wave", Error=None):
        import wave

        assert wave.Error is None
        assert callable(wave.open)
        assert sys.modules["wave"] is not wave
    import wave

    assert issubclass(wave.Error, Exception)


def test_a_name_of_a_stand_in_loads_the_module_once_it_is_used(monkeypatch):
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with standing_in("wave", Wave_read=_Later("wave", "Wave_read")):
        from wave import Wave_read
    assert "wave" not in sys.modules
    method = Wave_read.getnframes
    import wave

    assert method is wave.Wave_read.getnframes


def test_a_loaded_module_is_left_alone():
    import wave

    with standing_in("wave", Error=None):
        import wave as again

        assert again is wave
        with pytest.raises(AttributeError):
            _ = again.nothing
