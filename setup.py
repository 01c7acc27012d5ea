"""Builds the compiled sweeps (``pyro_ssl/kernels/src``) where there is a compiler.

All else is in pyproject.toml. Without a compiler the package installs all the same, and sweeps by
torch. The libraries know of neither torch nor Python's ABI: one build serves every version.
"""

import copy
import hashlib
import platform
import warnings
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path("pyro_ssl/kernels/src")
FLAGS = ["-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
FLAGS += ["-g0", "-Wno-psabi", "-Wno-maybe-uninitialized", "-pthread"]
WIDE = "-mavx512f -mavx512vl -mavx512dq -mavx512bw -mfma -mprefer-vector-width=512"
#: flags of each instruction set; every processor of the machine's kind has the portable one
INSTRUCTIONS = {"portable": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    INSTRUCTIONS |= {"avx512": WIDE.split(), "avx2": ["-mavx2", "-mfma"]}
#: what the libraries say of their sources; kernels/loading.py compares it with those beside it
DIGEST = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(SOURCES.iterdir()))).hexdigest()


def is_current(library):
    """Whether it is there, and of these sources."""
    return library.exists() and DIGEST.encode() in library.read_bytes()


class Libraries(build_ext):
    """Plain shared libraries, without Python's suffix; one that does not build is left out."""

    def finalize_options(self):
        """Build as many at a time as there are cores."""
        super().finalize_options()
        self.parallel = self.parallel or True

    def get_ext_filename(self, fullname):
        """Return a name that says the instruction set alone."""
        return str(Path(*fullname.split("."))) + ".so"

    def build_extension(self, ext):
        """Build one, or warn; in a checkout take one that was built of the same sources."""
        built = Path(self.get_ext_filename(ext.name))
        try:
            if self.editable_mode and not self.force and is_current(built):
                self.copy_file(built, self.get_ext_fullpath(ext.name))
            else:
                apart = copy.copy(self)  # objects of other flags have the same names
                apart.build_temp = str(Path(self.build_temp, ext.name))
                super(Libraries, apart).build_extension(ext)
        except Exception as error:
            warnings.warn(f"{ext.name} is left out, and torch sweeps: {error}", stacklevel=1)


class AnyPython(bdist_wheel):
    """A wheel for one platform, and every version of Python."""

    def get_tag(self):
        """Return the tags of its name."""
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": Libraries, "bdist_wheel": AnyPython},
    ext_modules=[
        Extension(
            f"pyro_ssl.kernels._sweeps_{name}",
            [str(path) for path in sorted(SOURCES.glob("*.cpp"))],
            depends=[str(path) for path in sorted(SOURCES.glob("*.h"))],
            define_macros=[("SOURCES_DIGEST", f'"{DIGEST}"')],
            extra_compile_args=FLAGS + flags,
            extra_link_args=["-pthread"],
            optional=True,
        )
        for name, flags in INSTRUCTIONS.items()
    ],
)
