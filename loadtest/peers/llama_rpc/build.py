"""llama.cpp's RPC server and its batched bench, built from the source that llama-cpp-python carries.

So the peer is the same llama.cpp as under Choir. The source is downloaded by pip, only the two programs and
the libraries under them are compiled, and what was compiled is kept for the next time, also when a build is
interrupted. A build takes about nine minutes of one core.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from loadtest.peers.environments import MADE, CannotStart, environment, peers_folder, run

PACKAGE = "llama-cpp-python"
SOURCE = "vendor/llama.cpp"
SERVER, BENCH = "ggml-rpc-server", "llama-batched-bench"
PIP = ("pip>=24",)
NEEDED_TO_BUILD = ("cmake", "make", "cc", "c++")
NO_AMX = "-U__AMX_INT8__"
"""As under Choir: GCC up to 12 compiles that part of llama.cpp wrongly."""
BUILD_DEADLINE_S = 7_200.0
"""It is nice to everybody else, who may be busy."""
JOBS_VARIABLE = "CMAKE_BUILD_PARALLEL_LEVEL"
OPTIONS = (
    "CMAKE_BUILD_TYPE=Release",
    f"CMAKE_C_FLAGS={NO_AMX}",
    f"CMAKE_CXX_FLAGS={NO_AMX}",
    "GGML_RPC=ON",
    "LLAMA_BUILD_APP=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF",
    "LLAMA_BUILD_SERVER=OFF",
    "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_OPENSSL=OFF",
)
"""The batched bench needs llama.cpp's `common`; what nothing here needs is left out."""


@dataclass(frozen=True)
class Programs:
    """The two programs, and the version of the package whose source they are of."""

    server: Path
    bench: Path
    version: str


def programs() -> Programs:
    """The programs, built if they are not there.

    CannotStart if one that is needed is not on the path, by its name, or if the source is not to be had or
    does not compile.
    """
    version = importlib.metadata.version(PACKAGE)
    digest = hashlib.sha256("\n".join((version, *OPTIONS)).encode()).hexdigest()[:12]
    folder = peers_folder() / f"llama-rpc-{digest}"
    if not (folder / MADE).exists():
        require(NEEDED_TO_BUILD)
        fetch(folder, version)
        run(configure_command(folder))
        jobs = {JOBS_VARIABLE: str(os.cpu_count() or 1), **os.environ}
        run(build_command(folder), env=jobs, deadline_s=BUILD_DEADLINE_S)
        (folder / MADE).touch()
    built = folder / "build" / "bin"
    return Programs(built / SERVER, built / BENCH, version)


def require(needed: tuple[str, ...]) -> None:
    """CannotStart with the names of all that are not on the path."""
    if lacking := [name for name in needed if shutil.which(name) is None]:
        raise CannotStart(f"not on the path: {', '.join(lacking)}")


def fetch(folder: Path, version: str) -> None:
    """Puts llama.cpp's source into `folder / "source"`, unless it is there."""
    if (folder / "source").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    run(download_command(environment("pip", PIP), folder, version), folder)
    (archive,) = folder.glob("*.tar.gz")
    inside = f"{archive.name.removesuffix('.tar.gz')}/{SOURCE}/"
    unfinished = folder / "unfinished"
    with tarfile.open(archive) as packed:
        wanted = [member for member in packed if member.name.startswith(inside)]
        packed.extractall(unfinished, wanted, filter="data")
    (unfinished / inside).rename(folder / "source")
    shutil.rmtree(unfinished)
    archive.unlink()


def download_command(pip: Path, folder: Path, version: str) -> list[str]:
    """`pip` is an environment that has it; the package's source comes into `folder`."""
    python = str(pip / "bin" / "python")
    options = ["--quiet", "--no-deps", "--no-binary", PACKAGE, "--dest", str(folder)]
    return [python, "-m", "pip", "download", *options, f"{PACKAGE}=={version}"]


def configure_command(folder: Path) -> list[str]:
    """Configures `folder / "source"` to be built in `folder / "build"`."""
    options = [f"-D{option}" for option in OPTIONS]
    where = ["-S", str(folder / "source"), "-B", str(folder / "build")]
    return ["nice", "-n", "19", "cmake", *where, "-G", "Unix Makefiles", *options]


def build_command(folder: Path) -> list[str]:
    """Builds what is lacking of the two programs, in as many jobs as `JOBS_VARIABLE` says."""
    return ["nice", "-n", "19", "cmake", "--build", str(folder / "build"), "--target", SERVER, BENCH]
