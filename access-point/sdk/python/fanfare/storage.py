"""Where a terminal keeps what it knows: any mapping of text to text; a ``dict`` for as long as the process lives."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Union
from urllib.parse import quote, unquote

_NEW = ".new"


class Folder(MutableMapping[str, str]):
    """A folder with one file for each key. A write is on disk when it returns."""

    def __init__(self, path: Union[str, os.PathLike[str]]) -> None:
        self._path = Path(path)
        self._path.mkdir(parents=True, exist_ok=True)

    def __getitem__(self, key: str) -> str:
        try:
            return self._file(key).read_text("utf-8")
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: str) -> None:
        file = self._file(key)
        new = file.with_name(file.name + _NEW)
        with open(new, "w", encoding="utf-8") as out:
            out.write(value)
            out.flush()
            os.fsync(out.fileno())
        os.replace(new, file)

    def __delitem__(self, key: str) -> None:
        try:
            self._file(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __iter__(self) -> Iterator[str]:
        return (unquote(file.name) for file in self._path.iterdir() if not file.name.endswith(_NEW))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _file(self, key: str) -> Path:
        return self._path / quote(key, safe="")
