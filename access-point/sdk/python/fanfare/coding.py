"""Bodies that come packed, made whole again. What this Python can undo is offered when a terminal connects."""

from __future__ import annotations

import zlib
from typing import Callable, Optional

WHOLE_MAX_BYTES = 256 * 1024
"""More than any packet of the platform holds when it is whole: what claims to be larger is not from there."""

_GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls gzip."""


def _gzip(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP)
    whole = unpacker.decompress(packed, WHOLE_MAX_BYTES)
    if not unpacker.eof:
        raise ValueError(f"cut off, or more than {WHOLE_MAX_BYTES} bytes")
    return whole


def _zstd() -> Optional[Callable[[bytes], bytes]]:
    """By Python itself from 3.14 on, or the package ``zstandard``."""
    try:
        from compression.zstd import ZstdDecompressor

        def unpack(packed: bytes) -> bytes:
            unpacker = ZstdDecompressor()
            whole = unpacker.decompress(packed, WHOLE_MAX_BYTES)
            if not unpacker.eof:
                raise ValueError(f"cut off, or more than {WHOLE_MAX_BYTES} bytes")
            return whole

        return unpack
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        return None
    return lambda packed: zstandard.ZstdDecompressor().decompress(
        packed, max_output_size=WHOLE_MAX_BYTES, allow_extra_data=False
    )


_CODINGS = {name: unpack for name, unpack in (("zstd", _zstd()), ("gzip", _gzip)) if unpack}

OFFERED = ",".join(_CODINGS)
"""The names of what can be undone, the best first."""


def unpack(coding: Optional[str], body: bytes) -> bytes:
    """Makes a body whole that is packed like this, if it is.

    :raises Exception: when it is not, or was not offered.
    """
    return body if coding is None else _CODINGS[coding](body)
