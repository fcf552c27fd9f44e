"""Files that are no images in a directory storage: uploads, notes, protection, removal. Used by the driver alone.

Notes and protection are files beside the content (`X.notes`, `X.protected`), as Proxmox VE keeps those of backups. All
functions block; the driver calls them in threads.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from typing import Final

from panal.core.errors import BadInput, Conflict, NotFound, Unsupported
from panal.host.files import Entry, Root
from panal.storage.drivers.base import Volume
from panal.storage.drivers.dir import layout
from panal.storage.model import VolumeName

NOTES_MAX: Final = 64 * 1024
ATTRIBUTES: Final = frozenset({"backup", "iso", "vztmpl", "import"})
FILES: Final = ("iso", "vztmpl", "snippets", "backup", "import")
UPLOADS: Final = frozenset({"iso", "vztmpl", "snippets", "import"})
STALE_S: Final = 48 * 3600
# Uploads that this process has open, whichever driver object began them: a changed configuration makes a new one.
_open: set[str] = set()
_TOKEN = re.compile(r"(?P<content>[a-z]+)-(?P<hex>[0-9a-f]{32})")


class Files:
    """The files below the content directories."""

    def __init__(self, root: Root, directories: dict[str, str]) -> None:
        self._root = root
        self._dirs = directories

    def path(self, name: VolumeName) -> str:
        """Relative path of a file that is no image."""
        return f"{self._dirs[name.content]}/{name.name.partition('/')[2]}"

    def list(self, content: str) -> list[Volume]:
        """Everything in the directory that is named as content of this kind."""
        directory = self._dirs[content]
        entries = {e.name: e for e in self._root.list(directory) if not e.is_dir}
        found = []
        for file, entry in entries.items():
            try:
                parsed = layout.parse_name(f"{content}/{file}")
            except ValueError:
                continue
            found.append(self._volume(parsed, entry, f"{file}.notes" in entries, f"{file}.protected" in entries))
        return found

    def info(self, name: VolumeName) -> Volume:
        """One file. NotFound."""
        path = self.path(name)
        entry = self._root.entry(path)
        if entry.is_dir:
            raise NotFound(f"{name.name} does not exist")
        marks = name.content in ATTRIBUTES
        return self._volume(
            name, entry,
            marks and self._root.exists(f"{path}.notes"), marks and self._root.exists(f"{path}.protected"),
        )  # fmt: skip

    def _volume(self, name: VolumeName, entry: Entry, notes: bool, protected: bool) -> Volume:
        text = None
        if notes and name.content in ATTRIBUTES:
            text = self._root.read(f"{self.path(name)}.notes", NOTES_MAX).decode(errors="replace")
        return Volume(
            name.name, name.content, name.format, entry.size, entry.used, int(entry.mtime_s), name.vmid, None, text,
            protected and name.content in ATTRIBUTES,
        )  # fmt: skip

    def remove(self, name: VolumeName) -> None:
        """Remove a file and what stands beside it; Conflict when protected."""
        path = self.path(name)
        if name.content in ATTRIBUTES and self._root.exists(f"{path}.protected"):
            raise Conflict(f"can't remove protected volume '{name.name}'; clear its protection first")
        self._root.remove(path)
        if name.content in ATTRIBUTES:
            self._root.remove(f"{path}.notes")
        if name.content == "backup":
            stem = path[: -len(name.format) - 1]
            self._root.remove(f"{stem}.log")

    def set_attributes(self, name: VolumeName, notes: str | None, protected: bool | None) -> None:
        """Write the files beside it."""
        if name.content not in ATTRIBUTES:
            raise Unsupported(f"notes and protection are kept for {', '.join(sorted(ATTRIBUTES))}; not for {name.name}")
        path = self.path(name)
        self._root.entry(path)
        if notes is not None:
            if len(notes.encode()) > NOTES_MAX:
                raise BadInput("notes", f"notes may be {NOTES_MAX} bytes long")
            if notes:
                self._root.write(f"{path}.notes", notes.encode())
            else:
                self._root.remove(f"{path}.notes")
        if protected is True:
            self._root.write(f"{path}.protected", b"")
        elif protected is False:
            self._root.remove(f"{path}.protected")

    def begin(self, content: str) -> tuple[int, str]:
        """A hidden file in the content's directory, so that naming it is a rename."""
        if content not in UPLOADS:
            raise BadInput("content", f"'{content}' cannot be uploaded; {', '.join(sorted(UPLOADS))} can")
        token = f"{content}-{secrets.token_hex(16)}"
        self._root.make_dirs(self._dirs[content])
        _open.add(token)
        try:
            return self._root.create(self._hidden(token)), token
        except BaseException:
            _open.discard(token)
            raise

    def _hidden(self, token: str) -> str:
        m = _TOKEN.fullmatch(token)
        if m is None or m["content"] not in UPLOADS:
            raise BadInput("tmpfilename", "not the token of an upload")
        return f"{self._dirs[m['content']]}/.upload-{m['hex']}"

    def finish(self, token: str, content: str, filename: str) -> VolumeName:
        """Give it its name, on disk when this returns."""
        try:
            name = layout.parse_name(f"{content}/{layout.file_name(filename)}")
        except ValueError:
            raise BadInput("filename", f"'{filename[:100]}' has the wrong extension for content '{content}'") from None
        hidden = self._hidden(token)
        fd = self._root.open(hidden)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        if content not in UPLOADS:
            raise BadInput("content", f"'{content}' cannot be uploaded; {', '.join(sorted(UPLOADS))} can")
        if content in ATTRIBUTES and self._root.exists(f"{self.path(name)}.protected"):
            raise Conflict(f"'{name.name}' exists and is protected; clear its protection or choose another name")
        self._root.make_dirs(self._dirs[content])
        self._root.rename(hidden, self.path(name), replace=True)
        _open.discard(token)
        return name

    def abort(self, token: str) -> None:
        """Remove the hidden file."""
        self._root.remove(self._hidden(token))
        _open.discard(token)

    def sweep(self, *, shared: bool) -> None:
        """Remove what uploads of a killed daemon left. On a shared storage old ones only: another node may be writing."""
        oldest = time.time() - STALE_S
        for content in UPLOADS:
            directory = self._dirs[content]
            for entry in self._root.list(directory):
                mine = f"{content}-{entry.name.removeprefix('.upload-')}" in _open
                if entry.name.startswith(".upload-") and not mine and (not shared or entry.mtime_s < oldest):
                    self._root.remove(f"{directory}/{entry.name}")
