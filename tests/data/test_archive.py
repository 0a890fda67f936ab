"""A folder and a zip file as the same thing; and what a zip file from elsewhere may not contain."""

import io
import os
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from lorafusion.data import archive
from lorafusion.data.archive import find, open_archive
from lorafusion.errors import UserError
from tests.data.images import encoded, noise, write_folder, write_zip

FILES = {"b/2.png": b"two", "b/1.png": b"one", "a.txt": b"text", "c/d/3.png": b"three"}
HIDDEN = {".DS_Store": b"x", "b/.hidden/1.png": b"x"}


@pytest.fixture(params=["folder", "zip", "deflated"])
def place(request, tmp_path) -> Path:
    if request.param == "folder":
        return write_folder(tmp_path / "images", FILES | HIDDEN)
    files = FILES | HIDDEN | {"__MACOSX/b/1.png": b"x"}
    return write_zip(tmp_path / "images.zip", files, compress=8 if request.param == "deflated" else 0)


def test_names_and_contents(place):
    got = open_archive(place)
    assert got.names == sorted(FILES)
    asked = [find(got.names, name) for name in FILES]
    assert list(got.read(asked)) == list(FILES.values())
    assert [got.stamps[k, 0] for k in asked] == [len(data) for data in FILES.values()]
    assert find(got.names, "none.png") is None


def stamps(path: Path) -> dict[str, list[int]]:
    got = open_archive(path)
    return dict(zip(got.names, got.stamps.tolist(), strict=True))


def test_a_stamp_changes_with_the_file(tmp_path):
    folder = write_folder(tmp_path / "images", FILES)
    before = stamps(folder)
    assert stamps(folder) == before
    os.utime(folder / "a.txt", ns=(1, 1))
    (folder / "b/1.png").write_bytes(b"other length")
    after = stamps(folder)
    assert [name for name in FILES if before[name] != after[name]] == ["b/1.png", "a.txt"]

    zipped = stamps(write_zip(tmp_path / "1.zip", FILES))
    changed = stamps(write_zip(tmp_path / "2.zip", FILES | {"a.txt": b"TEXT"}))
    assert [name for name in FILES if zipped[name] != changed[name]] == ["a.txt"]
    assert stamps(write_zip(tmp_path / "3.zip", FILES)) == zipped  # wherever and whenever it was written


def test_a_file_that_disappears_is_named(place):
    got = open_archive(place)
    gone = place / "b/1.png" if place.is_dir() else place
    gone.unlink()
    with pytest.raises(UserError, match=rf"^{gone}: cannot be read [^\n]*No such file[^\n]*$"):
        next(got.read([find(got.names, "b/1.png")]))


def test_a_folder_that_contains_itself(tmp_path):
    folder = write_folder(tmp_path / "images", FILES)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    with pytest.raises(UserError, match=r"^[^\n]*more than 8 deep[^\n]*link[^\n]*$"):
        open_archive(folder)


def test_links_to_folders_are_followed_and_pipes_are_not_read(tmp_path):
    folder = write_folder(tmp_path / "images", FILES)
    (folder / "e").symlink_to(write_folder(tmp_path / "other", {"4.png": b"four"}), target_is_directory=True)
    os.mkfifo(folder / "pipe.png")
    (folder / "dangling.png").symlink_to(tmp_path / "nowhere")
    assert open_archive(folder).names == sorted([*FILES, "e/4.png"])


def entry(name: str, **attributes) -> bytes:
    """A zip file with one good entry and this one."""
    file = io.BytesIO()
    info = zipfile.ZipInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    with zipfile.ZipFile(file, "w") as writing:
        writing.writestr("good.png", b"good")
        writing.writestr(info, b"data")
    return file.getvalue()


def encrypted() -> bytes:
    data = bytearray(entry("secret.png"))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.rindex(signature) + offset
        data[place] |= 1
    return bytes(data)


def beyond() -> bytes:
    """An entry whose data would reach into the directory."""
    data = entry("1.png")
    place = data.rindex(b"PK\x01\x02")
    return data[: place + 20] + struct.pack("<2L", 500, 500) + data[place + 28 :]


def longer() -> bytes:
    """The end counts an entry fewer than the directory has."""
    data = entry("1.png")
    place = data.rindex(b"PK\x05\x06") + 8
    return data[:place] + struct.pack("<2H", 1, 1) + data[place + 4 :]


def bomb(size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as writing, writing.open("zeros.png", "w") as zeros:
        for _ in range(size >> 20):
            zeros.write(bytes(1 << 20))
    return file.getvalue()


def announcing(data: bytes, size: int) -> bytes:
    """The same zip file, with another unpacked size of its last entry in the directory."""
    place = data.rindex(b"PK\x01\x02") + 24
    return data[:place] + struct.pack("<I", size) + data[place + 4 :]


def twice() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as writing:
        warnings.simplefilter("ignore")
        writing.writestr("same.png", b"1")
        writing.writestr("same.png", b"2")
    return file.getvalue()


HOSTILE = {
    "parent": (entry("../out.png"), r"'../out.png' points outside"),
    "deep parent": (entry("a/../../out.png"), r"points outside"),
    "absolute": (entry("/etc/out.png"), r"'/etc/out.png' points outside"),
    "drive": (entry("C:out.png"), r"points outside"),
    "backslash": (entry("..\\out.png"), r"points outside"),
    "folder": (entry("../out/"), r"points outside"),
    "link": (entry("link.png", external_attr=(stat.S_IFLNK | 0o777) << 16), r"'link.png' is a symbolic link"),
    "encrypted": (encrypted(), r"'secret.png' is encrypted"),
    "twice": (twice(), r"'same.png' is there twice"),
    "bomb": (bomb(8 << 20), r"'zeros.png' would unpack to more than 100 times its size"),
    "huge": (announcing(bomb(8 << 20), 257 << 20), r"'zeros.png' would unpack to more than 256 MiB"),
    "bzip2": (entry("1.png", compress_type=zipfile.ZIP_BZIP2), r"'1.png' is compressed by method 12"),
    "no zip": (b"PK, but no zip file", "not a whole zip file"),
    "beyond": (beyond(), "not a whole zip file .entry '1.png' reaches beyond"),
    "longer": (longer(), "not a whole zip file .its directory is not as long"),
    "empty": (b"", "not a whole zip file"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_zip_is_refused_when_it_is_opened(tmp_path, kind):
    data, reason = HOSTILE[kind]
    path = tmp_path / "hostile.zip"
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"^{path}: [^\n]*{reason}[^\n]*$"):
        open_archive(path)
    assert [file.name for file in tmp_path.iterdir()] == ["hostile.zip"]


def test_a_zip_that_was_cut_short_is_named(tmp_path):
    whole = write_zip(tmp_path / "whole.zip", {f"{k}.png": encoded(noise(8, 8, seed=k)) for k in range(5)}).read_bytes()
    for keep in range(0, len(whole), 97):
        path = tmp_path / "cut.zip"
        path.write_bytes(whole[:keep])
        with pytest.raises(UserError, match=rf"^{path}: not a whole zip file[^\n]*$"):
            open_archive(path)


def test_a_damaged_entry_is_named_when_it_is_read(tmp_path):
    path = write_zip(tmp_path / "damaged.zip", {"1.png": b"a" * 100, "2.png": b"b" * 100})
    path.write_bytes(path.read_bytes().replace(b"b" * 100, b"b" * 99 + b"c"))
    reading = open_archive(path).read([0, 1])
    assert next(reading) == b"a" * 100
    with pytest.raises(UserError, match=rf"^{path}: entry '2.png' cannot be read [^\n]*CRC[^\n]*$"):
        next(reading)


def test_an_entry_that_lies_about_its_size_stays_within_it(tmp_path):
    """The directory announces 1,000 bytes; 8 MiB would come out."""
    path = tmp_path / "liar.zip"
    path.write_bytes(announcing(bomb(8 << 20), 1000))
    with pytest.raises(UserError, match=r"'zeros.png' cannot be read"):
        next(open_archive(path).read([0]))


def test_a_large_file_in_a_folder_is_refused_by_name(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "images", FILES | {"big.png": bytes(2000)})
    monkeypatch.setattr(archive, "MAX_FILE", 1000)
    with pytest.raises(UserError, match=r"big.png: larger than"):
        open_archive(folder)


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"^data.path=\S+none: no such folder or zip file$"):
        open_archive(tmp_path / "none")
