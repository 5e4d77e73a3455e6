"""Read the Python package index that pip is configured with (PEP 503 and PEP 691).

Needed for source distributions: `pip download` would run their build to learn their
metadata, and no code of a fetched package runs here.
"""

import ast
import base64
import html.parser
import io
import json
import netrc
import os
import re
import ssl
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

_JSON = "application/vnd.pypi.simple.v1+json"
_PAGE_CAP = 64 << 20


class Unreachable(ConnectionError):
    """The registry, or the client that speaks to it, is not there."""


def download(name: str, filename: str, target: Path, *, timeout: float) -> None:
    """Write the file `filename` of project `name` to `target`, unverified.

    Raises Unreachable where no configured index answers, LookupError where one answers
    but has no such file.
    """
    settings = pip_settings()
    if _true(settings.get("no-index", "")):
        raise Unreachable("pip is configured with no-index")
    troubles: list[str] = []
    answered = False
    for index in index_urls(settings):
        page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', name).lower()}/"
        try:
            with _open(
                page, settings, timeout, accept=f"{_JSON}, text/html;q=0.5"
            ) as r:
                body, kind = r.read(_PAGE_CAP), r.headers.get("Content-Type") or ""
                page = r.geturl() if page.startswith("http") else page
            answered = True
            url = _links(body, kind, page).get(filename)
            if url is None:
                continue
            with _open(url, settings, timeout) as r, open(target, "wb") as out:
                while chunk := r.read(1 << 20):
                    out.write(chunk)
            return
        except OSError as error:
            known = isinstance(error, FileNotFoundError)  # of an index on disk
            answered = answered or known or getattr(error, "code", 0) == 404
            troubles.append(f"{_public(index)}: {error}")
    if answered:
        raise LookupError(f"no index that pip is configured with has {filename}")
    raise Unreachable("; ".join(troubles) or "no index is configured")


def pip_settings() -> dict[str, str]:
    """pip's settings by option name; environment over `download` over `global`."""
    run = _pip("config", "list")
    found: dict[str, str] = {}
    for section in ("global", "install", "download", ":env:"):
        for line in run.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                found[key[len(section) + 1 :]] = str(ast.literal_eval(value))
    for variable, value in os.environ.items():  # older pips leave these out of the list
        if variable.startswith("PIP_") and value:
            found[variable[4:].lower().replace("_", "-")] = value
    return found


def index_urls(settings: dict[str, str]) -> list[str]:
    """The main index and then the extra ones; the default is the one pip states."""
    main = settings.get("index-url", "")
    if not main:
        stated = re.sub(r"\s+", " ", _pip("download", "--help"))
        match = re.search(r"Package Index \(default ([^\s)]+)\)", stated)
        main = match.group(1) if match else ""
    return [main, *settings.get("extra-index-url", "").split()] if main else []


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "500"},
    )
    if run.returncode:
        raise Unreachable(f"`python -m pip {arguments[0]}` fails: {run.stderr[-300:]}")
    return run.stdout


def _true(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on", "y", "t")


def _public(url: str) -> str:
    """The URL without user name and password, fit for a message."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _open(
    url: str, settings: dict[str, str], timeout: float, accept: str = "*/*"
) -> Any:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "file":
        path = Path(urllib.request.url2pathname(parts.path))
        return _Local(path / "index.html" if path.is_dir() else path)
    if parts.scheme not in ("https", "http"):
        raise OSError(f"an index URL of scheme {parts.scheme!r} is not read here")
    request = urllib.request.Request(_public(url), headers={"Accept": accept})
    user, password = parts.username, parts.password
    if user is None:
        try:
            user, _, password = netrc.netrc().authenticators(parts.hostname or "") or (
                None,
                None,
                None,
            )
        except (OSError, netrc.NetrcParseError):
            user = None
    if user is not None:
        pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password or '')}"
        token = base64.b64encode(pair.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    context = ssl.create_default_context(cafile=settings.get("cert") or None)
    if settings.get("client-cert"):
        context.load_cert_chain(settings["client-cert"])
    handlers: list[urllib.request.BaseHandler] = [
        urllib.request.HTTPSHandler(context=context)
    ]
    if settings.get("proxy"):
        proxy = settings["proxy"]
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers).open(request, timeout=timeout)


class _Local:
    """A file of a local index, with the little of a response that is used."""

    def __init__(self, path: Path):
        self.file = io.BytesIO(path.read_bytes())
        self.headers = {"Content-Type": "text/html"}

    def read(self, size: int) -> bytes:
        return self.file.read(size)

    def __enter__(self) -> "_Local":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _links(body: bytes, kind: str, base: str) -> dict[str, str]:
    """File name -> URL of a project's page."""
    if "json" in kind:
        pairs = [(f["filename"], f["url"]) for f in json.loads(body)["files"]]
    else:
        anchors = _Anchors()
        anchors.feed(body.decode("utf-8", "replace"))
        pairs = [
            (urllib.parse.unquote(urllib.parse.urlsplit(h).path).split("/")[-1], h)
            for h in anchors.found
        ]
    joined = {name: urllib.parse.urljoin(base, url) for name, url in pairs}
    # A page from the network must not name a file of this machine.
    if not base.startswith("file:"):
        joined = {n: u for n, u in joined.items() if not u.startswith("file:")}
    return joined


class _Anchors(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [v for k, v in attrs if tag == "a" and k == "href" and v]
