"""Build an FFCV wheel that runs on any Linux without system libraries and without a compiler.

    python ffcv_wheel.py find    # print the cached wheel for this machine, or nothing
    python ffcv_wheel.py build   # build it, put it in the cache, print its path

FFCV's sources need OpenCV's `resize` and libturbojpeg. The linker takes OpenCV's two modules from their
static libraries, because Debian's shared ones load OpenGL and X11. auditwheel copies the other shared
libraries into the wheel. FFCV's extension calls one function of Python, which is in the stable ABI, so
the wheel works with every Python from 3.9 on.

`FFCV_WHEEL=/path/to.whl` takes a wheel that was built elsewhere. A wheel is kept with its
SHA-256, and only if it loads.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
VERSION = "1.0.2"
BUILD = 1  # increase it when the recipe changes: cached wheels of another build are ignored
STEM = f"ffcv-{VERSION}-{BUILD}-"

OPENCV_HEADER = "#include <opencv2/imgproc.hpp>\n"
OPENCV_PC = """\
Name: OpenCV
Description: the two modules that FFCV calls, instead of all of them
Version: 4
Cflags: -I{include} -I/usr/include/opencv4
Libs: -l:libopencv_imgproc.a -l:libopencv_core.a -ltbb -lz
"""
# OpenCV looks up OpenGL's functions through GLX. FFCV never calls them.
LDFLAGS = "-Wl,--as-needed,--gc-sections,--exclude-libs,ALL,--defsym=glXGetProcAddressARB=0"


def cache_folder() -> Path:
    """Return this user's folder of finished wheels, and create it if it is missing."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "loaderbench" / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def fits(name: str) -> bool:
    """Return whether a wheel of this name was built by this recipe and runs on this machine."""
    return name.startswith(STEM) and not parse_wheel_filename(name)[3].isdisjoint(sys_tags())


def find() -> Path | None:
    """Return the cached wheel for this machine, or None. Cache the wheel that the user names first."""
    given = os.environ.get("FFCV_WHEEL")
    if given:
        return keep(Path(given).expanduser())
    return next((intact(path) for path in sorted(cache_folder().glob("*.whl")) if fits(path.name)), None)


def sha256(wheel: Path) -> str:
    """Return the SHA-256 of a wheel."""
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def digest_file(wheel: Path) -> Path:
    """Return the file that keeps the SHA-256 of a cached wheel."""
    return wheel.with_name(f"{wheel.name}.sha256")


def intact(wheel: Path) -> Path:
    """Return a cached wheel. Exit if it is not the one that was kept."""
    kept = digest_file(wheel)
    if not kept.exists():  # an earlier version of this script kept no digest
        return keep(wheel)
    if kept.read_text().strip() != sha256(wheel):
        sys.exit(f"{wheel} has changed since it was kept; remove it and {kept.name}")
    return wheel


def load(wheel: Path) -> None:
    """Load the extension of a wheel. Exit if that fails.

    The folder is in the environment, because an extension cannot be loaded from a disk that is mounted `noexec`.
    """
    try:
        with tempfile.TemporaryDirectory(dir=sys.prefix) as folder, zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
            ctypes.CDLL(f"{folder}/ffcv/_libffcv.abi3.so")
    except (OSError, zipfile.BadZipFile) as error:
        sys.exit(f"{wheel} does not work here and is not kept: {error}")


def keep(wheel: Path) -> Path:
    """Copy a wheel that loads into the cache atomically, with its SHA-256, and return its path there."""
    if not wheel.is_file():
        sys.exit(f"FFCV_WHEEL: {wheel} does not exist")
    if not fits(wheel.name):
        sys.exit(f"{wheel.name} does not fit this machine; wanted: {STEM}*.whl for its platform")
    target = cache_folder() / wheel.name
    draft = target.with_suffix(f".{os.getpid()}.draft")
    shutil.copyfile(wheel, draft)
    try:
        load(draft)
        digest_file(target).write_text(sha256(draft) + "\n")
        return draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def tool(*command: str | Path, cwd: Path, **env: str) -> None:
    """Run a tool of this Python's environment. Its output goes to standard error."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path} | env
    subprocess.run(command, cwd=cwd, env=environment, stdout=sys.stderr, check=True)


def compile_wheel(work: Path) -> Path:
    """Compile the pinned sources into a wheel for this machine alone."""
    headers = work / "include" / "opencv2"
    headers.mkdir(parents=True)
    (headers / "opencv.hpp").write_text(OPENCV_HEADER)
    (work / "opencv4.pc").write_text(OPENCV_PC.format(include=headers.parent))
    tool(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
        "--no-cache-dir",  # pip would return a wheel that it built earlier with other flags
        "--require-hashes", "--no-binary=ffcv", "-r", ROOT / "requirements" / "ffcv.lock",
        "--wheel-dir", "compiled",
        cwd=work,
        PKG_CONFIG_PATH=str(work),
        CFLAGS="-DPy_LIMITED_API=0x03090000 -g0",
        LDFLAGS=LDFLAGS,
    )  # fmt: skip
    return next((work / "compiled").glob("*.whl"))


def relabel(wheel: Path, work: Path) -> Path:
    """Tag the wheel as stable ABI and correct its requirements."""
    tool(sys.executable, "-m", "wheel", "unpack", wheel, cwd=work)
    tree = work / f"ffcv-{VERSION}"
    extension = next(tree.glob("ffcv/_libffcv.*.so"))
    extension.rename(extension.with_name("_libffcv.abi3.so"))
    info = tree / f"ffcv-{VERSION}.dist-info"
    tags = info / "WHEEL"
    tags.write_text(re.sub(r"(?m)^Tag: \w+-\w+-", "Tag: cp39-abi3-", tags.read_text()))
    metadata = info / "METADATA"
    text = re.sub(r"(?m)^Requires-Dist: .*\n", "", metadata.read_text())
    requires = "".join(f"Requires-Dist: {name}\n" for name in true_requirements())
    metadata.write_text(text.replace("\n\n", f"\n{requires}Requires-Python: >=3.9\n\n", 1))
    tool(
        sys.executable, "-m", "wheel", "pack", tree, f"--build-number={BUILD}",
        "--dest-dir=relabelled", cwd=work,
    )  # fmt: skip
    return next((work / "relabelled").glob("*.whl"))


def true_requirements() -> list[str]:
    """Return what FFCV imports at run time, from the table that the lock uses too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (ffcv,) = project["tool"]["uv"]["dependency-metadata"]
    return list(ffcv["requires-dist"])


def build() -> Path:
    """Build the wheel in a temporary folder, and cache it."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "relabelled").mkdir()
        wheel = relabel(compile_wheel(work), work)
        tool("auditwheel", "repair", wheel, "--wheel-dir", "repaired", cwd=work)
        return keep(next((work / "repaired").glob("*.whl")))


if __name__ == "__main__":
    print({"find": find, "build": build}[sys.argv[1]]() or "")
