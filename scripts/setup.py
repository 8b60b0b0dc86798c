"""Install what the project's commands need, and skip what is installed already.

    python3 setup.py [environment | wheel | tools]

`tools` makes the virtual environment with the installer and the build tools. `wheel` adds the portable
FFCV wheel. `environment` (the default) adds everything in the lock and the project itself. This script
uses the standard library only, because it runs before anything is installed.

`WHEELS=/folder` makes the environment from the wheels in a folder, without network. Locked packages that
are not in the folder are taken from the Python that runs this script, at any version.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BIN = VENV / "bin"
WHEEL_BUILDER = ROOT / "scripts" / "ffcv_wheel.py"
LOG = ROOT / "setup.log"
LOCKS = ROOT / "requirements"
# What the compiler needs for FFCV's one C++ file, by Debian's and Ubuntu's names.
FFCV_PACKAGES = ("pkg-config", "libopencv-imgproc-dev", "libturbojpeg0-dev")
LOG_LINES_SHOWN = 25


class SetupError(Exception):
    """Set-up failed. The message says what went wrong and how to fix it."""


def run(what: str, *command: str | Path, env: dict[str, str] | None = None) -> str:
    """Print `what`, run the command with its error output in the log, and return its output."""
    print(f"set-up: {what}", flush=True)
    with LOG.open("a") as log:
        log.write(f"\n== {what}\n$ {' '.join(map(str, command))}\n")
        log.flush()
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=os.environ | (env or {}),
            check=False,
        )
        log.write(done.stdout)
    if done.returncode:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])
        message = f"{tail}\n\nfailed: {what} (all of its output: {LOG.name})"
        raise SetupError(message)
    return done.stdout.strip()


class Stamp:
    """A file in the environment that records the inputs of a completed step.

    A step empties it first and writes it last, so an empty file marks an interrupted set-up.
    """

    def __init__(self, step: str, *inputs: Path) -> None:
        """Describe `step` with this Python, this folder and these input files."""
        self.path = VENV / f"{step}.complete"
        digest = hashlib.sha256()
        for path in (*inputs, Path(__file__)):
            digest.update(path.read_bytes())
        self.text = f"{sys.version} {sys.base_prefix} {ROOT} {digest.hexdigest()}"

    def stands(self) -> bool:
        """Return whether the step was completed with the same Python and the same inputs."""
        return self.path.exists() and self.path.read_text() == self.text

    def was_interrupted(self) -> bool:
        """Return whether the step was started and never completed."""
        return self.path.exists() and not self.path.read_text()

    def begin(self) -> None:
        """Mark the step as started."""
        self.path.write_text("")

    def complete(self) -> None:
        """Mark the step as complete, in one rename."""
        draft = self.path.with_suffix(".draft")
        draft.write_text(self.text)
        draft.replace(self.path)


def apt_command() -> list[str] | None:
    """Return the command with which this user can install Debian packages, or None if there is none."""
    if not shutil.which("apt-get"):
        return None
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-oDPkg::Lock::Timeout=300"]
    if os.geteuid() == 0:
        return apt
    allowed = shutil.which("sudo") and not subprocess.call(["sudo", "-n", "true"], stderr=subprocess.DEVNULL)
    return ["sudo", "-n", *apt] if allowed else None


def agreed(command: str) -> bool:
    """Print a command of root and return whether the user at the terminal agrees to it; so without a terminal."""
    print(f"set-up: system packages are missing; to be run: {command}", flush=True)
    if not sys.stdin or not sys.stdin.isatty():
        return True
    return input("Install them? [Y/n] ").strip().lower() in {"", "y", "yes"}


def install_system_packages(packages: list[str], otherwise: str) -> None:
    """Install Debian packages, after naming them and asking at a terminal.

    Raise SetupError with their names and the alternative if this user may not or does not want to.
    """
    if not packages:
        return
    apt, names = apt_command(), " ".join(packages)
    if apt is None or not agreed(" ".join([*apt, "install", names])):
        message = (
            f"these system packages are missing, and only root may install them: {names}\n"
            f"Either: sudo apt-get install --no-install-recommends {names}\n"
            f"Or:     {otherwise}"
        )
        raise SetupError(message)
    with contextlib.suppress(SetupError):  # an unreachable source may not be needed
        run("refreshing the list of system packages", *apt, "update")
    run(
        f"installing system packages: {names}",
        *apt, "install", "-y", "--no-install-recommends", *packages,
    )  # fmt: skip


def debian_package_is_missing(package: str) -> bool:
    """Return whether dpkg does not list the package as installed, or there is no dpkg."""
    query = ["dpkg-query", "-W", "-f=${db:Status-Status}", package]
    if not shutil.which(query[0]):
        return True
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout != "installed"


def python_package(part: str) -> str:
    """Return the name of the Debian package with a `part` of the running Python."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}-{part}"


def make_tools(*, fresh: bool = False) -> None:
    """Make the virtual environment with the installer and the build tools."""
    stamp = Stamp("tools", LOCKS / "tools.lock")
    if stamp.stands() and not fresh:
        return
    if not importlib.util.find_spec("ensurepip"):
        other = "make setup PYTHON=/path/to/another/python3, one with its venv module"
        install_system_packages([python_package("venv")], other)
    stamp.path.unlink(missing_ok=True)
    version = ".".join(map(str, sys.version_info[:3]))
    run(f"making .venv with Python {version}", sys.executable, "-m", "venv", "--clear", VENV)
    run(
        "installing uv and the build tools",
        BIN / "pip", "install", "--require-hashes", "-r", LOCKS / "tools.lock",
    )  # fmt: skip
    stamp.complete()


def make_wheel() -> Path:
    """Return the cached portable FFCV wheel, and build it if there is none."""
    make_tools()
    builder = (BIN / "python", WHEEL_BUILDER)
    path = run("looking for the portable FFCV wheel", *builder, "find")
    if not path:
        missing = [name for name in FFCV_PACKAGES if debian_package_is_missing(name)]
        if not (shutil.which("c++") or shutil.which("g++")):
            missing.append("g++")
        if not Path(sysconfig.get_path("include"), "Python.h").exists():
            missing.append(python_package("dev"))
        other = (
            "`make ffcv-wheel` on a machine where you are root, and here\n"
            "        FFCV_WHEEL=/path/to/that.whl make setup"
        )
        install_system_packages(missing, other)
        path = run("building the portable FFCV wheel", *builder, "build")
    return Path(path)


def make_environment() -> None:
    """Install everything in the lock, FFCV from its wheel, and the project in editable mode."""
    inputs = (LOCKS / "all.lock", LOCKS / "ffcv.lock", ROOT / "pyproject.toml", WHEEL_BUILDER)
    stamp = Stamp("environment", *inputs)
    if stamp.stands():
        return
    if wheels := os.environ.get("WHEELS"):
        install_from(Path(wheels).expanduser().resolve())
    else:
        make_tools(fresh=stamp.was_interrupted())  # a package may be incomplete
        wheel = make_wheel()
        stamp.begin()
        install_lock(wheel)
    stamp.complete()
    print("set-up: done", flush=True)


def install_lock(wheel: Path) -> None:
    """Install everything in the lock, and FFCV from its wheel, over the network."""
    uv = (BIN / "uv", "pip")
    env = {"VIRTUAL_ENV": str(VENV)}
    # Compile bytecode now. Otherwise a trial would compile it and count that as import time.
    run(
        "installing the locked packages (PyTorch makes this some gigabytes)",
        *uv, "sync", "--require-hashes", "--compile-bytecode", LOCKS / "all.lock", env=env,
    )  # fmt: skip
    run(
        "installing FFCV and the project",
        *uv, "install", "--no-deps", "--no-build-isolation", "--compile-bytecode", pinned(wheel), "--editable", ROOT,
        env=env,
    )  # fmt: skip


def pinned(wheel: Path) -> str:
    """Return the FFCV wheel as a requirement with its hash, which env.json takes from the installed package."""
    return f"ffcv @ {wheel.as_uri()}#sha256={hashlib.sha256(wheel.read_bytes()).hexdigest()}"


def install_from(wheels: Path) -> None:
    """Make the virtual environment from the wheels in a folder, and from the packages of this Python."""
    if not wheels.is_dir():
        message = f"WHEELS: {wheels} is no folder"
        raise SetupError(message)
    have_pip = importlib.util.find_spec("pip") is not None
    version = ".".join(map(str, sys.version_info[:3]))
    run(
        f"making .venv with Python {version}",
        sys.executable, "-m", "venv", "--clear", *(["--without-pip"] if have_pip else []), VENV,
    )  # fmt: skip
    pip = (sys.executable, "-m", "pip", "--python", BIN / "python") if have_pip else (BIN / "pip",)
    install = (*pip, "install", "--no-index", "--no-deps", "--no-warn-script-location")

    entries = re.findall(r"(?m)^\w.*(?:\n .*)*", (LOCKS / "all.lock").read_text())
    carried = {re.sub(r"[-_.]+", "-", path.name.split("-")[0]).lower() for path in wheels.glob("*.whl")}
    lock = VENV / "carried.lock"
    lock.write_text("\n".join(entry for entry in entries if entry.split("==")[0] in carried))
    # Packages with a marker are for other machines, or come with those that have none.
    lacking = [entry.split("==")[0] for entry in entries if " ; " not in entry and entry.split("==")[0] not in carried]
    if lacking:
        link_packages()
        print(
            f"set-up: {len(lacking)} packages are not in {wheels}; {sys.prefix} serves, where it has them", flush=True
        )
    run(f"installing the locked packages of {wheels}", *install, "--require-hashes", "--find-links", wheels, "-r", lock)
    given = os.environ.get("FFCV_WHEEL") or next(map(str, wheels.glob("ffcv-*.whl")), "")
    wheel = run("looking for the portable FFCV wheel", BIN / "python", WHEEL_BUILDER, "find", env={"FFCV_WHEEL": given})
    if not wheel:
        message = f"{wheels} has no wheel of FFCV: `make ffcv-wheel`, where there is a network, makes it in dist/"
        raise SetupError(message)
    run(
        "installing FFCV and the project",
        *install, "--no-build-isolation", pinned(Path(wheel)), "--editable", ROOT,
    )  # fmt: skip
    run("starting loaderbench", BIN / "loaderbench", "--help")


def link_packages() -> None:
    """Let the virtual environment see the packages of the Python that runs this script, behind its own."""
    folder = Path(sysconfig.get_path("purelib", "venv", {"base": str(VENV)}))
    (folder / "_packages_of_python.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))


def main(step: str = "environment") -> int:
    """Run one step. A lock on the checkout keeps other set-ups waiting."""
    checkout = os.open(ROOT, os.O_RDONLY)
    fcntl.flock(checkout, fcntl.LOCK_EX)  # a second `make` waits for the first
    with contextlib.suppress(OSError):  # a read-only checkout that is set up needs no log
        LOG.unlink()
    try:
        match step:
            case "tools":
                make_tools()
            case "wheel":
                dist = ROOT / "dist"
                dist.mkdir(exist_ok=True)
                print("portable wheel:", Path(shutil.copy(make_wheel(), dist)).relative_to(ROOT))
            case _:
                make_environment()
    except (SetupError, OSError) as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
