"""The names that a checkpoint's pickles may ask for, and what becomes of each."""

from __future__ import annotations

BYTES_OF = {
    "Byte": 1, "Char": 1, "Bool": 1, "Short": 2, "Half": 2, "BFloat16": 2, "Int": 4, "Float": 4,
    "Long": 8, "Double": 8, "ComplexFloat": 8, "ComplexDouble": 16,
}  # fmt: skip
STORAGES = {
    f"torch.{device}{name}Storage": size
    for device in ("", "cuda.")
    for name, size in BYTES_OF.items()
}
ORDERED_DICT = "collections.OrderedDict"
REBUILDS = {"torch._utils._rebuild_tensor": 4, "torch._utils._rebuild_tensor_v2": 6}
PARAMETER = "torch._utils._rebuild_parameter"
ENCODE = "_codecs.encode"
SIZE = "torch.Size"
PLAIN = {SIZE, "torch.device"} | {
    f"torch.{name}"
    for name in (
        "uint8", "int8", "bool", "int16", "int32", "int64", "float16", "bfloat16", "float32",
        "float64",
    )
}  # fmt: skip
# What training programs save beside the weights. It is never imported: an empty object stands in.
STAND_INS = {
    "argparse.Namespace",
    "builtins.bytes",
    "builtins.complex",
    "builtins.frozenset",
    "builtins.getattr",
    "builtins.set",
    "collections.Counter",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "numpy.dtypes.Float64DType",
    "numpy.dtypes.Int64DType",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",  # of Python 3.13
    "torch.torch_version.TorchVersion",
}
OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch._utils._rebuild_qtensor": "a quantized tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without values (meta)",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
}
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class StandIn:
    """An object that takes the place of one that is not read, whatever it is given."""

    def __new__(cls, *_: object) -> StandIn:
        """Nothing is kept."""
        return super().__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Nothing is kept."""
