from .base import LitModule as LitModule
from .base import StepOutput as StepOutput
<<<<<<< HEAD
from .ddpm import LitDDPM as LitDDPM
from .gaussian_diffusion import GaussianDiffusion as GaussianDiffusion
=======
from .bayesian_mlp import LitBayesianMLP as LitBayesianMLP
from .bayesian_mlp import LitBayesianMLPClassifier as LitBayesianMLPClassifier
from .deep_ensemble import LitDeepEnsemble as LitDeepEnsemble
from .deep_ensemble import LitDeepEnsembleClassifier as LitDeepEnsembleClassifier
>>>>>>> bayes
from .linear_regression import LitLinearRegression as LitLinearRegression
from .mc_dropout import LitMCDropoutMLP as LitMCDropoutMLP
from .mc_dropout import LitMCDropoutMLPClassifier as LitMCDropoutMLPClassifier
from .metrics import CrossEntropy as CrossEntropy
from .mlp import LitMLPClassifier as LitMLPClassifier
from .mlp import LitMLPRegressor as LitMLPRegressor
from .optim import AdamWMatrixDecay as AdamWMatrixDecay
from .optim import Noam as Noam
from .optim import WarmupCosine as WarmupCosine
from .recurrent import LitRecurrentForecaster as LitRecurrentForecaster
from .uncertainty import CategoricalMixture as CategoricalMixture
from .uncertainty import GaussianMixture as GaussianMixture
