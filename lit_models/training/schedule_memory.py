"""A schedule that is changed for a continued run is the one in force.

Lightning restores a schedule with all of its options, into whatever class the command line names.
Here the options a schedule was made with stand in the checkpoint; where those of the continued run
differ, its schedule begins anew and advances to where the run stands.
"""

import copy
import sys
import warnings
from collections.abc import Mapping
from typing import Any

import lightning as L
from torch.optim.lr_scheduler import CyclicLR, OneCycleLR, ReduceLROnPlateau

from lit_models.training import rates

# Follow from the optimizer's rate, and change as the schedule advances.
_RATES = ("base_lrs", "_last_lr")
_LENGTH = ("total_steps", "_schedule_phases")

# Class and options of a schedule; neither where a run has none.
Made = dict[str, Any]


class ScheduleMemory:
    """What the schedule of a run was made of.

    Attributes:
        made: Class and options of the schedule at hand.
    """

    def __init__(self) -> None:
        self.made: Made = {}
        self._saved: Made | None = None
        self._checkpoint: dict[str, Any] = {}
        self._state: dict[str, Any] = {}
        self._groups: list[dict[str, Any]] = []

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Takes what the run that is continued was scheduled by; an earlier version saved none."""
        self._saved, self._checkpoint = checkpoint.get("schedule"), checkpoint

    def note(self, trainer: L.Trainer, has_open_length: bool) -> None:
        """Looks at optimizer and schedule before a checkpoint's state is restored into them."""
        for optimizer in trainer.optimizers:
            self._groups = [
                {name: value for name, value in group.items() if name != "params"}
                for group in optimizer.param_groups
            ]
        self.made, self._state = {}, {}
        for config in trainer.lr_scheduler_configs:
            self._state = copy.deepcopy(config.scheduler.state_dict())
            self.made = _made(config.scheduler, self._state, has_open_length)
        if self._saved is not None and self._saved.get("class") != self.made.get("class"):
            self._checkpoint["lr_schedulers"] = []  # a state that the class at hand cannot take
        self._checkpoint = {}

    def apply(self, trainer: L.Trainer, has_open_length: bool) -> None:
        """Puts the schedule at hand in force where it differs from the one restored.

        Args:
            trainer: Trainer of the continued fit.
            has_open_length: Whether the schedule has no length of its own.
        """
        saved, self._saved = self._saved, None
        if saved is None or saved == self.made:
            return
        schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
        same_class = saved.get("class") == self.made.get("class")
        if schedules and same_class and isinstance(schedules[0], ReduceLROnPlateau):
            vars(schedules[0]).update(self.made["options"])
        else:
            self._restart(trainer, has_open_length)
        if trainer.is_global_zero:
            sys.stderr.write(f"lit-models: continued with {_said(self.made, saved)}\n")

    def _restart(self, trainer: L.Trainer, has_open_length: bool) -> None:
        for optimizer in trainer.optimizers:
            for group, fresh in zip(optimizer.param_groups, self._groups, strict=True):
                group.update(fresh)
        for config in trainer.lr_scheduler_configs:
            schedule: Any = config.scheduler
            schedule.load_state_dict(copy.deepcopy(self._state))
            if isinstance(schedule, ReduceLROnPlateau):
                continue
            if has_open_length:
                rates.tell_length(schedule, trainer)
            done = trainer.global_step if config.interval == "step" else trainer.current_epoch
            with warnings.catch_warnings():
                # It steps before the optimizer of this process has.
                warnings.filterwarnings("ignore", ".*lr_scheduler.step.*")
                for _ in range(done // config.frequency):
                    schedule.step()


def _made(schedule: Any, state: Mapping[str, Any], has_open_length: bool) -> Made:
    kind = type(schedule)
    hidden = () if issubclass(kind, CyclicLR) else _RATES
    options = _plain(state, (*hidden, *_LENGTH) if has_open_length else hidden)
    if isinstance(schedule, OneCycleLR):
        ends = (phase["end_step"] + 1 for phase in schedule._schedule_phases)
        options["phases"] = [round(end / schedule.total_steps, 6) for end in ends]
    return {"class": kind.__qualname__, "options": options}


def _plain(value: Any, hidden: tuple[str, ...] = ()) -> Any:
    """A state as a checkpoint can hold it."""
    if isinstance(value, Mapping):
        return {name: _plain(item, hidden) for name, item in value.items() if name not in hidden}
    if isinstance(value, list | tuple):
        return [_plain(item, hidden) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return type(value).__qualname__


def _said(made: Made, saved: Made) -> str:
    """The change in words."""
    if made.get("class") != saved.get("class"):
        names = [each.get("class") or "none" for each in (made, saved)]
        return f"lr_scheduler {names[0]} (was {names[1]})"
    old = saved["options"]
    changes = [
        f"{name} {value} (was {old.get(name)})"
        for name, value in made["options"].items()
        if value != old.get(name) and not name.startswith("_")
    ]
    return f"lr_scheduler {made['class']}: {', '.join(changes)}"
