from .base import LitDataModule as LitDataModule
from .base import Reference as Reference
from .classification import ClassificationDataModule as ClassificationDataModule
from .csv_tabular import CSVTabularDataModule as CSVTabularDataModule
from .errors import InputError as InputError
from .linear import LinearDataModule as LinearDataModule
from .loader import TensorLoader as TensorLoader
from .sine import SineDataModule as SineDataModule
