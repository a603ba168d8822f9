"""The profiler of a run that nobody profiles."""

from contextlib import AbstractContextManager, nullcontext

from lightning.pytorch.profilers import PassThroughProfiler


class Unprofiled(PassThroughProfiler):
    """Measures nothing, at once.

    Lightning enters the profiler some 80 times a step, and its own default makes a generator each
    time, a thirtieth of a small model's step (``python -m scripts.benchmark --only fit``).
    """

    _nothing: AbstractContextManager[None] = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """One context for all actions."""
        return self._nothing
