"""The nets of `nets/` go into the wheel as `netspec/nets`; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithNets(build_py):
    """Adds the nets to what is built; an editable install finds them in the checkout."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "netspec" / "nets"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree("nets", target)


setup(cmdclass={"build_py": BuildWithNets})
