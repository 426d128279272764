"""Learning rates, regularisation and update rules, as BVLC Caffe and the SimNets fork compute them."""

from netspec.solver.em import solver_of
from netspec.solver.policies import LearningRate
from netspec.solver.rules import history_of
from netspec.solver.solver import Solver

__all__ = ["LearningRate", "Solver", "history_of", "solver_of"]
