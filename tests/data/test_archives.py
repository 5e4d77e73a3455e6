"""Hostile archives (fault S3): refused, quickly, with nothing written outside."""

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import time
import zipfile

import pytest

from fmjax.data.archives import Refused, unpack


def tar_of(path, members, mode="w"):
    """members: (name, bytes or TarInfo fields)."""
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(info, key, value)
                archive.addfile(info)
    return path


def zip_of(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def deb_of(path, data, name=b"data.tar.xz"):
    def part(label, content):
        head = label.ljust(16) + b"0".ljust(12) + b"0".ljust(6) + b"0".ljust(6)
        head += b"100644".ljust(8) + str(len(content)).encode().ljust(10) + b"`\n"
        return head + content + b"\n" * (len(content) % 2)

    parts = part(b"debian-binary", b"2.0\n") + part(b"control.tar.xz", b"odd")
    path.write_bytes(b"!<arch>\n" + parts + part(name, data))
    return path


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_gives_its_wanted_members(tmp_path, mode):
    members = [("./a/one.txt", b"1" * 1024), ("./a/two.txt", b""), ("b/three", b"3")]
    archive = tar_of(tmp_path / "x.tar", members, mode)
    assert unpack(archive, tmp_path / "out", ["a/*"]) == ["a/one.txt", "a/two.txt"]
    assert (tmp_path / "out/a/one.txt").read_bytes() == b"1" * 1024
    assert not (tmp_path / "out/b").exists()


def test_zip_and_deb_give_their_members(tmp_path):
    archive = zip_of(tmp_path / "x.whl", [("p/data.txt", "text"), ("p/code.py", "1")])
    assert unpack(archive, tmp_path / "zip", ["p/*.txt"]) == ["p/data.txt"]
    inner = tar_of(tmp_path / "inner", [("./usr/share/x", b"deb")])
    for name, squeeze in (
        (b"data.tar.xz", lzma.compress),
        (b"data.tar.gz/", gzip.compress),
        (b"data.tar.bz2", bz2.compress),
        (b"data.tar", bytes),
    ):
        archive = deb_of(tmp_path / "x.deb", squeeze(inner.read_bytes()), name)
        out = tmp_path / name.decode().strip("/")
        assert unpack(archive, out) == ["usr/share/x"]
        assert (out / "usr/share/x").read_bytes() == b"deb"


BAD_NAMES = ["/etc/x", "../x", "a/../../x", "a\\..\\x", "C:/x", "a\nb", "a/\x7f", ".."]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_names_that_lead_elsewhere(tmp_path, name, make):
    good = ("good", b"good")
    archive = make(tmp_path / "x", [good, (name, b"bad")])
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(Refused, match=r"nothing unpacked"):
        unpack(archive, tmp_path / "deep" / "out", ["good"])
    assert not (tmp_path / "deep/out").exists()
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "deep"])
    assert os.listdir(tmp_path / "deep") == []


KINDS = {
    "symlink out": {"type": tarfile.SYMTYPE, "linkname": "../../x"},
    "symlink absolute": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "hard link out": {"type": tarfile.LNKTYPE, "linkname": "../x"},
    "hard link absolute": {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"},
    "character device": {"type": tarfile.CHRTYPE},
    "block device": {"type": tarfile.BLKTYPE},
    "fifo": {"type": tarfile.FIFOTYPE},
    "sparse": {"type": tarfile.GNUTYPE_SPARSE},
}


@pytest.mark.parametrize("kind", KINDS)
def test_links_out_and_devices_in_tar(tmp_path, kind):
    archive = tar_of(tmp_path / "x", [("a/odd", KINDS[kind]), ("good", b"good")])
    with pytest.raises(Refused, match=r"leads out|device|sparse|damaged"):
        unpack(archive, tmp_path / "out", ["good"])
    assert not (tmp_path / "out").exists()


def test_a_link_inside_is_passed_over_but_not_given(tmp_path):
    link = {"type": tarfile.SYMTYPE, "linkname": "good"}
    archive = tar_of(tmp_path / "x", [("good", b"good"), ("link", link)])
    assert unpack(archive, tmp_path / "out", ["good"]) == ["good"]
    with pytest.raises(Refused, match=r"name the file you need"):
        unpack(archive, tmp_path / "all")


def test_a_file_is_never_written_through_a_link(tmp_path):
    (tmp_path / "outside").mkdir()
    link = {"type": tarfile.SYMTYPE, "linkname": str(tmp_path / "outside")}
    archive = tar_of(tmp_path / "x", [("d", link), ("d/f", b"bad")])
    with pytest.raises(Refused):
        unpack(archive, tmp_path / "out")
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize(
    ("mode", "why"), [(stat.S_IFLNK, "leads out"), (stat.S_IFCHR, "device")]
)
def test_links_out_and_devices_in_zip(tmp_path, mode, why):
    with zipfile.ZipFile(tmp_path / "x", "w") as archive:
        info = zipfile.ZipInfo("odd")
        info.external_attr = (mode | 0o777) << 16
        archive.writestr(info, "../../etc/passwd")
    with pytest.raises(Refused, match=why):
        unpack(tmp_path / "x", tmp_path / "out")


@pytest.mark.parametrize(
    "names",
    [
        ("a", "a"),
        ("Read.me", "read.ME"),
        ("straße", "STRASSE"),
        ("caf\u00e9", "cafe\u0301"),
        ("a", "a/b"),
        ("A/x", "a/y"),
    ],
)
def test_names_that_fall_together(tmp_path, names):
    archive = tar_of(tmp_path / "x", [(name, b"1") for name in names])
    with pytest.raises(Refused, match=r"collides"):
        unpack(archive, tmp_path / "out")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_equal_names_in_zip(tmp_path):
    archive = zip_of(tmp_path / "x", [("a", "1"), ("a", "2")])
    with pytest.raises(Refused, match=r"collides"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("squeeze", [gzip.compress, bz2.compress, lzma.compress])
def test_size_bombs_in_tar_are_refused_by_their_headers(tmp_path, squeeze):
    head = tarfile.TarInfo("zeros")
    head.size = 1 << 40
    (tmp_path / "x").write_bytes(squeeze(head.tobuf() + bytes(1 << 24)))
    start = time.monotonic()
    with pytest.raises(Refused, match=r"bytes when unpacked"):
        unpack(tmp_path / "x", tmp_path / "out")
    assert time.monotonic() - start < 5
    assert not (tmp_path / "out").exists()


def test_a_tar_that_is_a_bomb_before_any_member(tmp_path):
    head = tarfile.TarInfo("x")
    head.type, head.size = tarfile.XHDTYPE, 1 << 33  # a header of 8 GB
    (tmp_path / "x").write_bytes(
        gzip.compress(head.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    )
    with pytest.raises(Refused, match=r"header of"):
        unpack(tmp_path / "x", tmp_path / "out")


def test_a_bomb_after_the_end_of_a_tar(tmp_path):
    data = tar_of(tmp_path / "x", [("a", b"1")]).read_bytes()
    (tmp_path / "x").write_bytes(gzip.compress(data + bytes(1 << 25)))
    with pytest.raises(Refused, match=r"after the end"):
        unpack(tmp_path / "x", tmp_path / "out")


def test_size_and_count_caps_in_zip(tmp_path):
    archive = zip_of(tmp_path / "x", [("a", bytes(1 << 22)), ("b", b"")])
    with pytest.raises(Refused, match=r"bytes when unpacked"):
        unpack(archive, tmp_path / "out", max_bytes=1 << 20)
    with pytest.raises(Refused, match=r"more than 1 members"):
        unpack(archive, tmp_path / "out", max_members=1)
    assert unpack(archive, tmp_path / "out", max_bytes=1 << 22) == ["a", "b"]


def test_a_zip_that_lies_about_its_sizes(tmp_path):
    archive = zip_of(tmp_path / "x", [("a", bytes(1 << 20))])
    data = archive.read_bytes()
    lie = data.replace((1 << 20).to_bytes(4, "little"), (16).to_bytes(4, "little"))
    assert lie != data
    archive.write_bytes(lie)
    with pytest.raises(Refused, match=r"damaged"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "zip", "deb"])
def test_truncated_and_damaged_archives(tmp_path, kind):
    content = os.urandom(50_000)
    if kind == "zip":
        archive = zip_of(tmp_path / "x", [("a", content)])
    elif kind == "deb":
        inner = tar_of(tmp_path / "inner", [("a", content)], "w:xz").read_bytes()
        archive = deb_of(tmp_path / "x", inner)
    else:
        archive = tar_of(tmp_path / "x", [("a", content)], f"w:{kind[4:]}")
    data = archive.read_bytes()
    for cut in (0, 3, 100, len(data) // 2):
        archive.write_bytes(data[:cut])
        with pytest.raises(Refused):
            unpack(archive, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    middle = len(data) // 2
    archive.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    with pytest.raises(Refused):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_or_there_already_is_said(tmp_path):
    archive = zip_of(tmp_path / "x.zip", [("a", "1")])
    with pytest.raises(KeyError, match=r"x\.zip has no member b/\*"):
        unpack(archive, tmp_path / "out", ["a", "b/*"])
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match=r"new directory"):
        unpack(archive, tmp_path / "out")
    deb = deb_of(tmp_path / "x.deb", b"", b"data.tar.zst")
    with pytest.raises(Refused, match=r"data\.tar\.zst has a compression"):
        unpack(deb, tmp_path / "new")
