"""Files as other programs write them, for the tests of hhat.io."""

import h5py
import numpy as np


def save_v73(path, variables):
    """What MATLAB writes with -v7.3: a 512-byte header, axes reversed, complex as pairs, text as UTF-16 codes."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            if isinstance(value, str):
                data = np.array([[ord(c)] for c in value], np.uint16)
                file.create_dataset(name, data=data).attrs["MATLAB_class"] = np.bytes_("char")
                continue
            array = np.atleast_2d(np.asarray(value)).T
            if array.dtype.kind == "c":
                pair = np.empty(array.shape, [("real", array.real.dtype), ("imag", array.real.dtype)])
                pair["real"], pair["imag"] = array.real, array.imag
                array = pair
            file.create_dataset(name, data=array).attrs["MATLAB_class"] = np.bytes_("double")
    with open(path, "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))
