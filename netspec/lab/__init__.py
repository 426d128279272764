"""The missing-data laboratory: methods side by side in settings of missing pixels."""

from netspec.lab.assemble import assemble
from netspec.lab.imputing import IMPUTATIONS
from netspec.lab.layout import Columns, Rows
from netspec.lab.methods import Direct, Imputed, Imputer, Method, translated_scores
from netspec.lab.missing import missing
from netspec.lab.plot import plot
from netspec.lab.run import circumstances, run
from netspec.lab.settings import FIG_4, Setting, parse, parse_all
from netspec.lab.table import Cell, Table, wilson

__all__ = [
    "FIG_4",
    "IMPUTATIONS",
    "Cell",
    "Columns",
    "Direct",
    "Imputed",
    "Imputer",
    "Method",
    "Rows",
    "Setting",
    "Table",
    "assemble",
    "circumstances",
    "missing",
    "parse",
    "parse_all",
    "plot",
    "run",
    "translated_scores",
    "wilson",
]
