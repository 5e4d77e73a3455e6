"""Packages: pinned, verified, unpacked once; every failure says what to do."""

import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile

import pytest

from fmjax.data import cache, fetch, index


def sdist(content=b"hello", name="thing-1.0"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, data in (("data.txt", content), ("more.txt", b"more")):
            info = tarfile.TarInfo(f"{name}/{member}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        info = tarfile.TarInfo(f"{name}/setup.py")
        code = b"open('canary', 'w')"
        info.size = len(code)
        archive.addfile(info, io.BytesIO(code))
    return buffer.getvalue()


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    """pip configured with an index of one project on disk."""
    data = sdist()
    folder = tmp_path / "index" / "simple" / "thing"
    folder.mkdir(parents=True)
    (folder / "thing-1.0.tar.gz").write_bytes(data)
    (folder / "index.html").write_text(
        '<html><a href="thing-1.0.tar.gz#sha256=00">thing-1.0.tar.gz</a></html>'
    )
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index/simple").as_uri())
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return hashlib.sha256(data).hexdigest()


def test_sdist_from_the_configured_index_runs_no_code(
    local_index, home, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    got = fetch.package("sdist", "thing", "1.0", local_index, members=["*/data.txt"])
    assert got == home / "packages" / "thing-1.0"
    assert (got / "thing-1.0/data.txt").read_bytes() == b"hello"
    assert not (got / "thing-1.0/setup.py").exists()
    assert not list(tmp_path.rglob("canary"))
    assert (home / "downloads/thing-1.0.tar.gz").is_file()


def test_a_second_call_is_free_and_a_wider_one_adds(local_index, home, monkeypatch):
    first = ["*/data.txt"]
    got = fetch.package("sdist", "thing", "1.0", local_index, members=first)
    with monkeypatch.context() as m:
        m.setattr(fetch, "_file", lambda *_: pytest.fail("looked at the file again"))
        assert fetch.package("sdist", "thing", "1.0", local_index, members=first) == got
    fetch.package("sdist", "thing", "1.0", local_index, members=["*/more.txt"])
    names = sorted(p.name for p in got.rglob("*.txt"))
    assert names == ["data.txt", "more.txt"]
    assert not [p for p in got.parent.iterdir() if p.is_dir() and p != got]


def test_a_wrong_sha256_keeps_nothing(local_index, home):
    with pytest.raises(fetch.Corrupt, match=r"pinned to 0000.*nothing was kept"):
        fetch.package("sdist", "thing", "1.0", "0" * 64)
    left = [p for p in home.rglob("*") if p.is_file() and not p.name.endswith(".lock")]
    assert left == []


def test_a_damaged_download_is_named(local_index, home):
    file = home / "downloads/thing-1.0.tar.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"damaged")
    with pytest.raises(fetch.Corrupt, match=r"delete the file and run again"):
        fetch.package("sdist", "thing", "1.0", local_index)


def test_a_file_put_by_hand_is_used_without_a_registry(home, monkeypatch):
    data = sdist()
    (home / "downloads").mkdir(parents=True)
    (home / "downloads/thing-1.0.tar.gz").write_bytes(data)
    monkeypatch.setattr(index, "download", lambda *_, **__: pytest.fail("network"))
    got = fetch.package("sdist", "thing", "1.0", hashlib.sha256(data).hexdigest())
    assert (got / "thing-1.0/data.txt").exists()


def test_an_interrupted_download_leaves_nothing(home, monkeypatch):
    def stop(name, filename, target, *, timeout):
        target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(index, "download", stop)
    with pytest.raises(KeyboardInterrupt):
        fetch.package("sdist", "thing", "1.0", "0" * 64)
    assert not [p for p in home.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_unreachable_names_package_registry_and_remedy(home, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setattr(
        index, "pip_settings", lambda: {"index-url": "http://u:secret@127.0.0.1:9/s"}
    )
    with pytest.raises(fetch.Unreachable) as caught:
        fetch.package("sdist", "thing", "1.0", "0" * 64)
    message = str(caught.value)
    assert "thing 1.0" in message
    assert "Python package index" in message
    assert f"put it at {home / 'downloads/thing-1.0.tar.gz'}" in message
    assert "secret" not in message


def test_a_file_the_index_does_not_have(local_index, home):
    with pytest.raises(LookupError, match=r"thing 2\.0.*no index.*put it at"):
        fetch.package("sdist", "thing", "2.0", "0" * 64)
    with pytest.raises(LookupError, match=r"nothere 1\.0"):
        fetch.package("sdist", "nothere", "1.0", "0" * 64)


@pytest.mark.parametrize(
    ("registry", "client", "file"),
    [
        ("npm", "npm", "thing-1.0.tgz"),
        ("debian", "apt-get", "thing_1.0_all.deb"),
        ("wheel", "python", "thing-1.0-py3-none-any.whl"),
    ],
)
def test_a_missing_client(home, monkeypatch, registry, client, file):
    monkeypatch.setattr(fetch.shutil, "which", lambda _: None)
    with pytest.raises(fetch.Unreachable, match=r"there is no `.*on this machine") as e:
        fetch.package(registry, "thing", "1.0", "0" * 64)
    assert client in str(e.value)
    assert str(home / "downloads" / file) in str(e.value)


def test_a_client_that_fails_or_hangs(tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "npm"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho E404 no such thing >&2; exit 1\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(fetch.Unreachable, match=r"`npm` says: E404 no such thing"):
        fetch.package("npm", "thing", "1.0", "0" * 64)
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(fetch.Unreachable, match="timed out"):
        fetch.package("npm", "thing", "1.0", "0" * 64, timeout=0.3)


def test_npm_and_debian_files_are_verified_and_unpacked(tmp_path, monkeypatch, home):
    data = sdist(name="package")
    (tmp_path / "packed").write_bytes(data)
    tool = tmp_path / "bin" / "npm"
    tool.parent.mkdir()
    tool.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "pack @a/thing@1.0 --ignore-scripts" ] || exit 1\n'
        f"cp {tmp_path / 'packed'} a-thing-1.0.tgz\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    sha = hashlib.sha256(data).hexdigest()
    got = fetch.package("npm", "@a/thing", "1.0", sha, members=["package/data.txt"])
    assert got == home / "packages" / "a-thing-1.0"
    assert (got / "package/data.txt").read_bytes() == b"hello"


def test_an_unknown_registry():
    with pytest.raises(ValueError, match="registries are wheel, sdist, npm, debian"):
        fetch.package("cran", "thing", "1.0", "0" * 64)


def test_the_default_index_is_the_one_pip_states():
    (url,) = index.index_urls({})
    assert url.startswith("https://")
    stated = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "500"},
        check=True,
    ).stdout
    assert url in stated


def test_pip_settings_put_the_environment_first(monkeypatch):
    listed = "global.index-url='https://a/'\ndownload.index-url='https://b/'\n"
    monkeypatch.setattr(index, "_pip", lambda *_: listed)
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    assert index.pip_settings()["index-url"] == "https://b/"
    monkeypatch.setenv("PIP_INDEX_URL", "https://c/")
    assert index.pip_settings()["index-url"] == "https://c/"


def test_no_index_is_obeyed(monkeypatch, tmp_path):
    monkeypatch.setattr(index, "pip_settings", lambda: {"no-index": "1"})
    with pytest.raises(index.Unreachable, match="no-index"):
        index.download("thing", "thing-1.0.tar.gz", tmp_path / "x", timeout=1)


def test_both_kinds_of_page_give_links():
    html = b'<a href="../../f/x-1.0.tar.gz#sha256=1">x</a><a href="file:///etc/y">y</a>'
    base = "https://host/simple/x/"
    assert index._links(html, "text/html", base) == {
        "x-1.0.tar.gz": "https://host/f/x-1.0.tar.gz#sha256=1"
    }
    page = b'{"files": [{"filename": "x-1.0.tar.gz", "url": "https://o/x-1.0.tar.gz"}]}'
    kind = "application/vnd.pypi.simple.v1+json"
    assert index._links(page, kind, base) == {"x-1.0.tar.gz": "https://o/x-1.0.tar.gz"}


def test_home_follows_the_environment(monkeypatch, tmp_path):
    assert cache.home() == tmp_path / "home"
    monkeypatch.delenv("FMJAX_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch.home() == tmp_path / ".cache" / "fmjax"
