from .figures import FigureCallback as FigureCallback
from .figures import save_figure as save_figure
