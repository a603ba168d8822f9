from .arrays import ArrayDataModule as ArrayDataModule
from .base import LitDataModule as LitDataModule
from .base import Reference as Reference
from .classification import ClassificationDataModule as ClassificationDataModule
from .csv_series import CSVSeriesDataModule as CSVSeriesDataModule
from .csv_tabular import CSVTabularDataModule as CSVTabularDataModule
from .digits import DigitsDataModule as DigitsDataModule
from .errors import InputError as InputError
from .gaussian_mixture import GaussianDataModule as GaussianDataModule
from .gaussian_mixture import GaussianMixtureDataModule as GaussianMixtureDataModule
from .linear import LinearDataModule as LinearDataModule
from .loader import TensorLoader as TensorLoader
<<<<<<< HEAD
from .mixture_law import MixtureLaw as MixtureLaw
=======
from .noisy_sine import NoisySineRegressionDataModule as NoisySineRegressionDataModule
>>>>>>> bayes
from .sine import SineDataModule as SineDataModule
