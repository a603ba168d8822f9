from .base import LitDataModule as LitDataModule
from .base import Reference as Reference
from .errors import InputError as InputError
from .loader import TensorLoader as TensorLoader
