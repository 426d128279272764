"""The suite that every layer of netspec goes through, for layers of one's own.

    import netspec
    from netspec.testing import Case, check_layer

    case = Case("twice", '''
        layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "y" type: "Twice" bottom: "x" top: "y" }
    ''')
    check_layer(Twice, case)

Case             a small net around the layer, its inputs, and what does not apply to it
check_layer      every check, or the named ones; raises LayerCheckError with a line per failure
CHECKS           the checks by name; the first sentence of each says what must hold
"""

from netspec.testing.case import Case
from netspec.testing.checks import CHECKS
from netspec.testing.layer import LayerCheckError, check_layer

__all__ = ["CHECKS", "Case", "LayerCheckError", "check_layer"]
