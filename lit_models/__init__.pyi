from .base import LitModule as LitModule
from .base import StepOutput as StepOutput
from .optim import AdamWMatrixDecay as AdamWMatrixDecay
from .optim import Noam as Noam
from .optim import WarmupCosine as WarmupCosine
