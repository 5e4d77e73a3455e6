"""Unpack archives that nobody has vouched for: zip and wheel, tar, Debian package.

Everything is judged before it is written: names, kinds, counts and sizes. An archive
with one bad member is refused as a whole, and nothing of it stays on the disk.
"""

import bz2
import errno
import fnmatch
import gzip
import io
import lzma
import os
import stat
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from fmjax.data import cache

_CHUNK = 1 << 20
_HEADER = 1 << 20  # no honest header (long names, pax records) is as big as this
_ENTRY = 160  # bytes of a zip's list of members for each; 700 in memory
_HEADERS = 2048  # of a tar for each member
_XZ_MEMORY = 128 << 20  # `xz -9` takes 65 MB; a header may ask for 4 GB
# Marks that let a name be read in another order than it is written.
_TURNING = frozenset(
    map(chr, (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)))
)

_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    RuntimeError,  # zipfile on encryption, and NotImplementedError on odd methods
    ValueError,
    OverflowError,
)
# A place before the file's beginning that is asked for, a name too long for the disk;
# gzip's errors have no number.
_ODD = (None, errno.EINVAL, errno.ENAMETOOLONG)


class Refused(ValueError):
    """The archive holds something that must not be unpacked."""


def unpack(
    archive: Path,
    into: Path,
    members: Sequence[str] = ("*",),
    *,
    max_bytes: int = 1 << 30,
    max_members: int = 200_000,
) -> list[str]:
    """Unpack the members that match a pattern into the new directory `into`.

    archive: .zip, .whl, .tar(.gz, .bz2, .xz), .tgz or .deb, told apart by content.
    members: shell patterns on the names inside (`*` also crosses `/`), without leading
        `./`; each must match something, and matches are files: a link is refused.
    max_bytes, max_members: caps over the whole archive, wanted or not.
    Returns the names written, sorted. `into` appears complete, or not at all.

    Raises Refused on absolute names, `..`, odd characters, names that are equal or fall
    together where case does not count, links that lead out, devices, encryption, size
    and count bombs, and damaged archives; KeyError where a pattern matches nothing;
    FileExistsError where `into` exists.
    """
    if into.exists():
        raise FileExistsError(f"{into} exists; unpack into a new directory")
    gate = _Gate(archive.name, members, max_bytes, max_members)
    with cache.scratch(into) as directory:
        root = directory / "root"
        root.mkdir()
        try:
            _members(archive, root, gate)
        except Refused:
            raise
        except (*_DAMAGE, OSError) as error:
            if isinstance(error, OSError) and error.errno not in _ODD:
                raise  # the disk is full, say
            raise Refused(f"{archive.name}: damaged or odd archive: {error}") from error
        missing = [p for p in members if not fnmatch.filter(gate.written, p)]
        if missing:
            raise KeyError(f"{archive.name} has no member {', '.join(missing)}")
        os.replace(root, into)
    return sorted(gate.written)


class _Gate:
    """Decides on each member in turn and remembers what it has let through."""

    def __init__(self, archive: str, members: Sequence[str], size: int, count: int):
        self.archive, self.members = archive, members
        self.max_bytes, self.max_members = size, count
        self.bytes = self.count = 0
        self.files: dict[str, str] = {}
        self.directories: dict[str, str] = {}
        self.written: list[str] = []

    def refuse(self, name: str, why: str) -> None:
        raise Refused(f"{self.archive}: member {name[:200]!r}: {why}; nothing unpacked")

    def admit(self, raw: str, kind: str, size: int, link: str = "") -> str | None:
        """The clean name if the member is to be written, None if it is to be skipped.

        kind: 'file', 'directory', 'link' or anything else, which is refused by name.
        """
        self.count += 1
        self.bytes += max(size, 0)
        if self.count > self.max_members:
            self.refuse(raw, f"more than {self.max_members:,} members")
        if size < 0 or self.bytes > self.max_bytes:
            self.refuse(raw, f"more than {self.max_bytes:,} bytes when unpacked")
        name = self._clean(raw)
        if kind == "directory":
            if name:
                self._claim(name, raw, is_file=False)
            return None
        if kind not in ("file", "link"):
            self.refuse(raw, f"a {kind}, not a file or directory")
        if not name:
            self.refuse(raw, "a file without a name")
        self._claim(name, raw, is_file=True)
        wanted = any(fnmatch.fnmatchcase(name, pattern) for pattern in self.members)
        if kind == "link":
            path = os.path.normpath(os.path.join(os.path.dirname(name), link))
            if os.path.isabs(link) or path.startswith("..") or "\\" in link:
                self.refuse(raw, f"a link that leads out, to {link[:200]!r}")
            if wanted:
                self.refuse(raw, f"a link, to {link[:200]!r}; name the file you need")
        if not wanted:
            return None
        self.written.append(name)
        return name

    def _clean(self, raw: str) -> str:
        if raw.startswith("/") or "\\" in raw or raw[1:2] == ":":
            self.refuse(raw, "an absolute name or one with a backslash")
        odd = any(unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING for c in raw)
        if odd or len(raw) > 1024:
            self.refuse(raw, "a name with control characters, or too long")
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        if ".." in parts:
            self.refuse(raw, "a name with '..'")
        return "/".join(parts)

    def _claim(self, name: str, raw: str, *, is_file: bool) -> None:
        def fold(text: str) -> str:
            # As file systems do that mind neither case nor what is not seen.
            seen = [c for c in text if unicodedata.category(c) != "Cf"]
            return unicodedata.normalize("NFC", "".join(seen).casefold())

        parents = [i for i, c in enumerate(name) if c == "/"]
        above = [name[:i] for i in parents] + ([] if is_file else [name])
        for directory in above:
            key = fold(directory)
            if key in self.files:
                self.refuse(raw, f"collides with file {self.files[key]!r}")
            if self.directories.setdefault(key, directory) != directory:
                self.refuse(raw, f"collides with {self.directories[key]!r} (case)")
        if is_file:
            key = fold(name)
            other = self.files.get(key) or self.directories.get(key)
            if other:
                self.refuse(raw, f"collides with {other!r} (same name but for case)")
            self.files[key] = name


def _members(archive: Path, root: Path, gate: _Gate) -> None:
    with open(archive, "rb") as file:
        magic = file.read(8)
        file.seek(0)
        if magic == b"!<arch>\n":
            _tar(_deb(file, archive.name), root, gate)
        elif magic.startswith((b"PK\3\4", b"PK\5\6")):
            _zip(file, root, gate)
        else:
            _tar(_inflate(file), root, gate)


def _write(source: IO[bytes], root: Path, name: str, size: int) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "xb") as out:
        left = size
        while left:
            chunk = source.read(min(_CHUNK, left))
            if not chunk:
                raise EOFError(f"{name} ends early")
            left -= len(chunk)
            out.write(chunk)


class _Frugal:
    """A file that does not give more than `most` bytes at a time."""

    def __init__(self, file: IO[bytes], most: int):
        self.file, self.most = file, most

    def read(self, size: int = -1) -> bytes:
        if size > self.most:
            raise ValueError(f"a list of members of {size:,} bytes")
        return self.file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def open_zip(file: IO[bytes], members: int) -> zipfile.ZipFile:
    """A zip archive, open. Raises ValueError where it has more members than so many.

    The list of members is read as one piece and takes many times its size in memory:
    its length is looked at before.
    """
    frugal = _Frugal(file, max(members * _ENTRY, 1 << 17))
    archive = zipfile.ZipFile(frugal)  # type: ignore[call-overload]
    frugal.most = sys.maxsize
    if len(archive.infolist()) > members:
        raise ValueError(f"more than {members:,} members")
    return archive


def _zip(file: IO[bytes], root: Path, gate: _Gate) -> None:
    with open_zip(file, gate.max_members) as archive:
        for info in archive.infolist():
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                gate.refuse(info.filename, "a compression that is not read here")
            mode = stat.S_IFMT(info.external_attr >> 16)
            if not info.filename:
                gate.refuse(info.orig_filename, "a file without a name")
            if info.flag_bits & 0x1:
                gate.refuse(info.filename, "encrypted")
            if info.orig_filename.rstrip("\0") != info.filename:
                gate.refuse(info.orig_filename, "a name with odd characters")
            link = ""
            if mode == stat.S_IFLNK:
                kind = "link"
                with archive.open(info) as source:
                    link = source.read(4096).decode("utf-8", "replace")
            elif info.is_dir() or mode == stat.S_IFDIR:
                kind = "directory"
            else:
                kind = "file" if mode in (0, stat.S_IFREG) else "device or pipe"
            name = gate.admit(info.filename, kind, info.file_size, link)
            if name:
                with archive.open(info) as source:
                    _write(source, root, name, info.file_size)


def _tar(file: Any, root: Path, gate: _Gate) -> None:
    capped, end = _Capped(file, gate), 0
    with tarfile.open(fileobj=capped, mode="r:") as archive:  # type: ignore[call-overload]
        for member in archive:
            capped.headers += _HEADERS
            if member.isfile() and not member.issparse():
                kind = "file"
            elif member.isdir():
                kind = "directory"
            elif member.issym() or member.islnk():
                kind = "link"
            else:
                kind = "sparse file" if member.issparse() else "device or pipe"
            link = member.linkname
            if member.islnk():  # a hard link is named from the root of the archive
                depth = len(member.name.strip("/").split("/")) - 1
                link = link if link.startswith("/") else "../" * depth + link
            name = gate.admit(member.name, kind, member.size, link)
            if name:
                source = archive.extractfile(member)
                assert source is not None, name
                capped.headers += member.size
                _write(source, root, name, member.size)
            end = archive.offset
            archive.members.clear()  # tarfile keeps every header otherwise
    # A header that is damaged ends the archive for tarfile, as a block of zeros does.
    if capped.last != bytes(tarfile.BLOCKSIZE):
        gate.refuse("", f"damaged, or cut short, at byte {capped.at:,}")
    # The checksum stands at the very end, and tarfile stops before it.
    while rest := capped.pass_by(_CHUNK):
        if capped.at > end + _HEADER or any(rest):
            gate.refuse("", "more after the end of the archive")


class _Capped:
    """A forward-only view that stops a decompressor before it floods the memory.

    headers: bytes that may be read, as distinct from passed by, before it is raised.
    """

    def __init__(self, file: Any, gate: _Gate):
        self.file, self.gate, self.at, self.headers = file, gate, 0, _HEADER
        self.last = b""
        # Headers and padding come on top of the members' own bytes.
        self.limit = gate.max_bytes + _HEADERS * gate.max_members

    def tell(self) -> int:
        return self.at

    def _check(self, end: int) -> None:
        if end > self.limit:
            self.gate.refuse("", f"more than {self.limit:,} bytes when unpacked")

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.headers:
            self.gate.refuse("", f"a header of {size:,} bytes, or many of them")
        self.headers -= size
        self.last = self.pass_by(size)
        return self.last

    def pass_by(self, size: int) -> bytes:
        self._check(self.at + size)
        data: bytes = self.file.read(size)
        self.at += len(data)
        return data

    def seek(self, position: int) -> int:
        self._check(position)
        if position < self.at:
            self.gate.refuse("", "members that overlap")
        while self.at < position:
            if not self.pass_by(min(_CHUNK, position - self.at)):
                break
        return self.at


def _inflate(file: Any) -> Any:
    magic = file.read(6)
    file.seek(0)
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic == b"\xfd7zXZ\0":
        return io.BufferedReader(_Xz(file))
    return file


class _Xz(io.RawIOBase):
    """What is in an xz file, with a limit on memory, which lzma.LZMAFile has not."""

    def __init__(self, file: Any):
        self.file, self.ended = file, False
        self.stream = self._begin()

    def _begin(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        while not self.ended:
            more = b""
            if self.stream.eof:  # streams may follow each other
                more = self.stream.unused_data or self.file.read(_CHUNK)
                self.ended = not more
                self.stream = self._begin()
            elif self.stream.needs_input:
                more = self.file.read(_CHUNK)
                if not more:
                    raise EOFError("the compressed data end early")
            data = b"" if self.ended else self.stream.decompress(more, len(view))
            if data:
                view[: len(data)] = data
                return len(data)
        return 0


def _deb(file: IO[bytes], name: str) -> Any:
    """The decompressed data.tar of a Debian package (an `ar` archive, deb(5))."""
    file.seek(8)
    while len(header := file.read(60)) == 60:
        label = header[:16].decode("latin-1").strip().rstrip("/")
        digits = header[48:58].strip()
        if header[58:] != b"`\n" or not digits.isdigit():
            break
        size = int(digits)
        if label in ("data.tar", "data.tar.gz", "data.tar.xz", "data.tar.bz2"):
            return _inflate(_Window(file, file.tell(), size))
        if label.startswith("data.tar"):
            raise Refused(f"{name}: {label} has a compression that is not read here")
        file.seek(size + size % 2, io.SEEK_CUR)
    raise Refused(f"{name}: not a Debian package, or a damaged one: no data.tar")


class _Window(io.RawIOBase):
    """The bytes [start, start + size) of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self.file, self.start, self.size, self.at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + (0, self.at, self.size)[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        self.file.seek(self.start + self.at)
        data = self.file.read(min(len(view), max(self.size - self.at, 0)))
        view[: len(data)] = data
        self.at += len(data)
        return len(data)
