"""Layers that read data are never run; of the family only the sink HDF5Output has a walk to check."""

from __future__ import annotations

from tests.cases import Case

CASES = [
    Case(
        "hdf5_output",
        """
        layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "b" type: "Input" top: "b" input_param { shape { dim: 2 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y"
                inner_product_param { num_output: 1 weight_filler { type: "xavier" } } }
        layer { name: "out" type: "HDF5Output" bottom: "a" bottom: "b" hdf5_output_param { file_name: "out.h5" } }
        """,
    ),
]
