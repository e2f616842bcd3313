"""Bodies that come packed, made whole again. What this Python can undo is offered when a terminal connects."""

from __future__ import annotations

import zlib
from typing import Any, Callable, Optional

WHOLE_MAX_BYTES = 256 * 1024
"""More than any packet of the platform holds when it is whole: what claims to be larger is not from there."""

_GZIP = 16 + zlib.MAX_WBITS
"""What zlib calls gzip."""


def _whole(unpacker: Any, packed: bytes) -> bytes:
    whole = unpacker.decompress(packed, WHOLE_MAX_BYTES)
    if not unpacker.eof:
        raise ValueError(f"cut off, or more than {WHOLE_MAX_BYTES} bytes")
    return whole


def _gzip(packed: bytes) -> bytes:
    return _whole(zlib.decompressobj(_GZIP), packed)


def _zstd() -> Optional[Callable[[bytes], bytes]]:
    """By Python itself from 3.14 on, or the package ``zstandard``."""
    try:
        from compression.zstd import ZstdDecompressor
    except ImportError:
        return _zstd_of_package()
    return lambda packed: _whole(ZstdDecompressor(), packed)


def _zstd_of_package() -> Optional[Callable[[bytes], bytes]]:
    try:
        import zstandard
    except ImportError:
        return None

    def unpack(packed: bytes) -> bytes:
        # It would believe a frame that says how large it is.
        if zstandard.frame_content_size(packed) > WHOLE_MAX_BYTES:
            raise ValueError(f"more than {WHOLE_MAX_BYTES} bytes")
        return zstandard.ZstdDecompressor().decompress(packed, max_output_size=WHOLE_MAX_BYTES)

    return unpack


_CODINGS = {name: unpack for name, unpack in (("zstd", _zstd()), ("gzip", _gzip)) if unpack}

OFFERED = ",".join(_CODINGS)
"""The names of what can be undone, the best first."""


def unpack(coding: Optional[str], body: bytes) -> bytes:
    """Makes a body whole that is packed like this, if it is.

    :raises Exception: when it is not, or was not offered.
    """
    return body if coding is None else _CODINGS[coding](body)
