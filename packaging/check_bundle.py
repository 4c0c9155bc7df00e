"""What `check-bundle.sh` holds of a bundle: check_bundle.py Galley.app FOLDER_WITH_REPORTS.

The reports are `program` (check-macos.sh inspect) and `crates` (cargo tree). Everything else is read from the files
themselves, with nothing that made them.
"""

import hashlib
import plistlib
import re
import stat
import struct
import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent
# What the program may load. A new one is a decision: macOS must have it in every version that Galley runs on.
LIBRARIES = (SOURCE / "packaging/libraries.txt").read_text().split()
FILES = {
    "Info.plist",
    "PkgInfo",
    "MacOS/galley",
    "Resources/AppIcon.icns",
    "Resources/Licences/ImageNet labels.txt",
    "Resources/Licences/Inter.txt",
    "Resources/Licences/LICENSE-APACHE",
    "Resources/Licences/LICENSE-MIT",
    "Resources/Licences/Libraries.txt",
}
SIGNATURE = "_CodeSignature/CodeResources"
# Pixels a side; the two of 24 bits have a mask of their own, and the others are PNG files.
ICONS = {
    b"is32": 16, b"s8mk": 16, b"ic11": 32, b"il32": 32, b"l8mk": 32, b"ic12": 64, b"ic07": 128,
    b"ic13": 256, b"ic08": 256, b"ic14": 512, b"ic09": 512, b"ic10": 1024,
}  # fmt: skip

# Crates of the std that check-macos.sh builds, with this machine's paths; Rust's own, which a Mac has, is without.
OF_STD = {"addr2line", "gimli", "hashbrown", "object", "rustc-demangle"}


def check(right, what):
    if not right:
        sys.exit(f"check-bundle: {what}")


def files_below(folder):
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in found}


def check_layout(contents, signed):
    photos = files_below(SOURCE / "sample-data/photos")
    expected = FILES | {f"Resources/sample-data/photos/{name}" for name in photos}
    if signed:
        expected = expected | {SIGNATURE}
    files = files_below(contents)
    check(set(files) == expected, f"files differ from what a bundle has: {sorted(set(files) ^ expected)[:9]}")
    for name, path in files.items():
        right_mode = 0o755 if name == "MacOS/galley" else 0o644
        check(not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) == right_mode, f"mode of {name}")
    for name, path in photos.items():
        copy = contents / "Resources/sample-data/photos" / name
        check(copy.read_bytes() == path.read_bytes(), f"sample photo {name} is not the original")
    check((contents / "PkgInfo").read_bytes() == b"APPL????", "PkgInfo")


def check_description(contents):
    info = plistlib.loads((contents / "Info.plist").read_bytes())
    version = re.search(r'^version = "(.*)"', (SOURCE / "Cargo.toml").read_text(), re.M)[1]
    right = {
        "CFBundlePackageType": "APPL",
        "CFBundleIdentifier": "app.galley.Galley",
        "CFBundleExecutable": "galley",
        "CFBundleIconFile": "AppIcon",
        "CFBundleShortVersionString": version,
        "CFBundleVersion": version,
        "NSPrincipalClass": "NSApplication",
        "NSHighResolutionCapable": True,
    }
    for key, value in right.items():
        check(info.get(key) == value, f"{key} is {info.get(key)!r} and not {value!r}")
    usages = [text for key, text in info.items() if key.endswith("UsageDescription")]
    check(len(usages) == 7 and all(text.startswith("Galley ") for text in usages), "usage descriptions")
    return info


def check_icon(file):
    data = file.read_bytes()
    check(data[:8] == b"icns" + struct.pack(">I", len(data)), "the icon's header")
    at, found = 8, {}
    while at < len(data):
        kind, length = struct.unpack(">4sI", data[at : at + 8])
        found[kind] = data[at + 8 : at + length]
        at += length
    check(set(found) == set(ICONS), f"icon sizes: {sorted(set(found) ^ set(ICONS))}")
    for kind, side in ICONS.items():
        element = found[kind]
        if kind in (b"s8mk", b"l8mk"):
            check(len(element) == side * side, f"icon mask {kind}")
        elif kind in (b"is32", b"il32"):
            check(unpacked_length(element) == 3 * side * side, f"icon {kind}")
        else:
            check(element[:8] == b"\x89PNG\r\n\x1a\n", f"icon {kind} is no PNG")
            check(struct.unpack(">II", element[16:24]) == (side, side), f"icon {kind} has another size")


def unpacked_length(element):
    """Of 24-bit colors: a byte from 128 on repeats the next one, a smaller one counts bytes as they are."""
    at, length = 0, 0
    while at < len(element):
        head = element[at]
        at += 2 if head >= 128 else head + 2
        length += head - 125 if head >= 128 else head + 1
    return length


def check_licences(file, crates):
    text = file.read_text()
    listed = set(re.findall(r"^  (\S+ \d\S*)$", text, re.M))
    lines = {line.removesuffix(" (*)").removesuffix(" (proc-macro)") for line in crates.splitlines()}
    names = {line.replace(" v", " ", 1) for line in lines if line and not line.startswith("galley ")}
    check(len(names) > 200 and names <= listed, f"licences missing: {sorted(names - listed)[:9]}")


def check_program(program, report, minimum):
    lines = report.splitlines()
    header = next(line for line in lines if "MH_MAGIC_64" in line).split()
    check(header[1] == "ARM64" and header[4] == "EXECUTE" and "PIE" in header, f"header: {header}")
    version = re.search(r"^ +minos (\S+)$", report, re.M)
    check(version and version[1] == minimum, f"minimum system: {version and version[1]}, in Info.plist {minimum}")
    loaded = re.findall(r"^\t(\S+) \(compatibility", report, re.M)
    check(sorted(loaded) == sorted(LIBRARIES), f"libraries differ from libraries.txt: {set(loaded) ^ set(LIBRARIES)}")
    imports = re.findall(r"^_\S+ \((.*)\)$", report, re.M)
    known = {"from libSystem", "dynamically looked up"}
    check(len(imports) > 300 and set(imports) <= known, f"imports from elsewhere: {set(imports) - known}")

    data = program.read_bytes()
    check_pages(data)
    inside = ["starter.safetensors", "labels/imagenet-1k.txt", "fonts/Inter-Regular.otf", "fonts/Inter-SemiBold.otf"]
    for name in inside:
        check((SOURCE / "resources" / name).read_bytes() in data, f"{name} is not in the program")
    check((SOURCE / "src/ops/kernels.metal").read_bytes() in data, "the kernels are not in the program")
    check(str(SOURCE).encode() not in data, "the program names the folder of its source")
    named = {name.decode() for name in re.findall(rb"/registry/src/[^/]+/([a-z0-9_-]+?)-\d", data)}
    check(named <= OF_STD, f"the program says where these lie on this machine: {sorted(named - OF_STD)}")


def code_directory(data):
    """The part of a program's signature that lists hashes, and where in the file it begins.

    As in Apple's cs_blobs.h; everything of a signature is big-endian, everything before it little-endian.
    """
    commands, at = struct.unpack_from("<I", data, 16)[0], 32
    for _ in range(commands):
        kind, size = struct.unpack_from("<II", data, at)
        if kind == 0x1D:  # LC_CODE_SIGNATURE
            start = struct.unpack_from("<I", data, at + 8)[0]
            magic, _, count = struct.unpack_from(">III", data, start)
            check(magic == 0xFADE0CC0, "the signature has another form")
            parts = dict(struct.unpack_from(">II", data, start + 12 + 8 * part) for part in range(count))
            return start, start + parts[0]
        at += size
    check(False, "no signature, without which Apple silicon runs nothing")


def check_pages(data):
    """Every page of the program has the hash that the signature lists; returns its name and the hashes of other parts."""
    signature, at = code_directory(data)
    magic, _, _, flags, hashes, name, specials, pages, limit = struct.unpack_from(">9I", data, at)
    size, algorithm, _, page = struct.unpack_from("4B", data, at + 36)
    check((magic, size, algorithm) == (0xFADE0C02, 32, 2) and flags & 2, "the signature is not ad hoc with SHA-256")
    check(limit == signature, "the signature covers another length")
    for number, start in enumerate(range(0, limit, 1 << page)):
        digest = hashlib.sha256(data[start : min(start + (1 << page), limit)]).digest()
        listed = at + hashes + 32 * number
        check(number < pages and digest == data[listed : listed + 32], f"hash of the program's page {number}")
    ends = data.index(b"\0", at + name)
    others = {slot: data[at + hashes - 32 * slot :][:32] for slot in range(1, specials + 1)}
    return data[at + name : ends].decode(), others


def check_seal(contents):
    """The signature covers the whole bundle: Info.plist, and the list of hashes of all other files."""
    name, hashes = check_pages((contents / "MacOS/galley").read_bytes())
    check(name == "app.galley.Galley", f"the signature is of {name}")
    for slot, part in ((1, "Info.plist"), (3, SIGNATURE)):
        check(hashes[slot] == hashlib.sha256((contents / part).read_bytes()).digest(), f"sealed hash of {part}")
    sealed = plistlib.loads((contents / SIGNATURE).read_bytes())["files2"]
    # These have their place elsewhere in the signature; the last two may be listed too.
    apart = {"Info.plist", "MacOS/galley", "PkgInfo", SIGNATURE}
    files = {name: path for name, path in files_below(contents).items() if name not in apart}
    check(set(sealed) - apart == set(files), f"sealed files: {sorted((set(sealed) - apart) ^ set(files))[:9]}")
    for name, path in files.items():
        check(sealed[name]["hash2"] == hashlib.sha256(path.read_bytes()).digest(), f"sealed hash of {name}")


def check_archive(app, version):
    """The packed form brings the same files with the same modes."""
    with zipfile.ZipFile(app.parent / f"Galley-{version}.zip") as archive:
        packed = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        files = {f"Galley.app/{name}": path for name, path in files_below(app).items()}
        check(set(packed) == set(files), "files of the archive")
        for name, path in files.items():
            check(packed[name].external_attr >> 16 == path.stat().st_mode, f"mode of {name} in the archive")
            check(archive.read(name) == path.read_bytes(), f"{name} in the archive")


def main():
    app, reports = Path(sys.argv[1]), Path(sys.argv[2])
    contents = app / "Contents"
    is_sealed = (contents / SIGNATURE).exists()
    check_layout(contents, is_sealed)
    info = check_description(contents)
    check_icon(contents / "Resources/AppIcon.icns")
    check_licences(contents / "Resources/Licences/Libraries.txt", (reports / "crates").read_text())
    check_program(contents / "MacOS/galley", (reports / "program").read_text(), info["LSMinimumSystemVersion"])
    if is_sealed:
        check_seal(contents)
    check_archive(app, info["CFBundleVersion"])
    print("check-bundle: all right; " + ("signed" if is_sealed else "signed by its linker alone, for want of rcodesign"))


main()
