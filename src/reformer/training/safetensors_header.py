"""Reads the header of a safetensors file: names, types and shapes of the tensors, without the tensors."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from reformer.errors import UserError

_BYTES_PER_ELEMENT = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a safetensors file.

    Attributes:
        dtype: safetensors' name of the element type, such as "F32".
        shape: size of each dimension.
    """

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)


def read_safetensors_header(path: Path) -> dict[str, TensorEntry]:
    """Reads which tensors a file holds and checks that the file is as long as they need.

    Args:
        path: a safetensors file.

    Returns:
        Tensor name -> its type and shape.

    Raises:
        UserError: when the file is no safetensors file, or has another size than its header says.
        OSError: when the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        if size < 8 or header_size > size - 8:
            raise UserError(f"{path}: not a safetensors file, or cut off within its header ({size:,} bytes)")
        text = file.read(header_size)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = {name: TensorEntry(entry["dtype"], tuple(entry["shape"])) for name, entry in header.items()}
        expected = 8 + header_size + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        needed = sum(entry.num_elements * _BYTES_PER_ELEMENT[entry.dtype] for entry in entries.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a safetensors file: its header cannot be read") from error
    if size != expected or needed != expected - 8 - header_size:
        raise UserError(
            f"{path}: expected {expected:,} bytes by its header, got {size:,}: cut off or damaged"
        )
    return entries
