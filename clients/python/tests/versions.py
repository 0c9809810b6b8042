"""The wheel in environments of its own: as Debian has them, and with the oldest and the newest protobuf and grpcio of PyPI.

    python3 -m unittest -v tests.versions

Takes some minutes. What needs PyPI is skipped where it cannot be reached.
"""

import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import service

HERE = Path(__file__).resolve().parents[1]


def run(*command, **options):
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1200, **options)
    return result.returncode, result.stdout


@unittest.skipIf(service.executable() is None, "rho is not built")
class VersionsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        # Built from a copy, for setuptools writes beside what it builds.
        shutil.copytree(HERE, cls.folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
        status, output = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", cls.folder, cls.folder / "source")
        if status:
            raise unittest.SkipTest(f"no wheel can be built here (pip, setuptools and wheel are needed): {output[-300:]}")
        [cls.wheel] = cls.folder.glob("rho_client-*.whl")
        # Tests without the package's source beside them, so that what they import is the wheel.
        for part in ("tests", "examples"):
            shutil.copytree(cls.folder / "source" / part, cls.folder / "run" / part)

    def environment(self, name, *options):
        """The Python of a new virtual environment with the wheel; skips where there is no venv."""
        status, output = run(sys.executable, "-m", "venv", *options, self.folder / name)
        if status:
            self.skipTest(f"no virtual environment can be made: {output[-300:]}")
        python = self.folder / name / "bin" / "python"
        self.succeed(python, "-m", "pip", "install", "--no-deps", self.wheel)
        return python

    def succeed(self, *command, **options):
        status, output = run(*command, **options)
        self.assertEqual(status, 0, output)
        return output

    def check(self, python):
        where = self.succeed(python, "-c", "import rho_client; print(rho_client.__file__)", cwd=self.folder / "run")
        self.assertIn("site-packages", where)
        environment = dict(os.environ, RHO=service.executable(), OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
        self.succeed(python, "-m", "unittest", "-v", "tests.test_client", "tests.test_leaving", "tests.test_shards", cwd=self.folder / "run", env=environment)

    def with_protobuf(self, requirement, name):
        status, output = run(sys.executable, "-m", "pip", "download", "--retries", "0", "--timeout", "10", "--no-deps", "--dest", self.folder / "reach", requirement)
        if status:
            self.skipTest(f"pip cannot have {requirement} here: {output[-300:]}")
        python = self.environment(name)
        self.succeed(python, "-m", "pip", "install", requirement, "grpcio", "numpy")
        self.check(python)

    def test_the_wheel_with_what_is_installed(self):
        self.check(self.environment("installed", "--system-site-packages"))

    def test_protobuf_3_20(self):
        self.with_protobuf("protobuf==3.20.3", "oldest")

    def test_the_newest_protobuf(self):
        self.with_protobuf("protobuf", "newest")


if __name__ == "__main__":
    unittest.main()
