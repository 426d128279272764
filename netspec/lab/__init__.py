"""The missing-data laboratory: methods side by side in settings of missing pixels."""

from netspec.lab.methods import Direct, Imputed, Imputer, Method
from netspec.lab.run import circumstances, run
from netspec.lab.settings import FIG_4, Setting, parse, parse_all
from netspec.lab.table import Cell, Table, wilson

__all__ = [
    "FIG_4", "Cell", "Direct", "Imputed", "Imputer", "Method", "Setting", "Table", "circumstances", "parse",
    "parse_all", "run", "wilson",
]  # fmt: skip
