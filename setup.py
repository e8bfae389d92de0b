"""Installs the package that the notebooks export; every setting is in settings.ini.

A wheel brings the notebooks, profiles and data too, as `llm_routing/_study`: the study runs without a checkout."""

import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What a run reads.
STUDY = ("nbs", "profiles", "data", "settings.ini", "constraints.txt", "constraints-gpu.txt", "CITATION.cff")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".*.parquet.*")

cfg = ConfigParser(delimiters=["="])
cfg.read(ROOT / "settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]


class BuildWithStudy(build_py):
    "Copies what a run reads beside the package's modules; an editable installation finds it in the checkout."

    def run(self):
        super().run()
        if self.editable_mode:
            return
        place = Path(self.build_lib) / cfg["lib_path"] / "_study"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in STUDY:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place / name, ignore=LEFT_OUT)
            else:
                shutil.copy(ROOT / name, place / name)


setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    license="Apache-2.0",
    packages=find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    python_requires=f">={cfg['min_python']},<3.12",
    install_requires=cfg["requirements"].split(),
    extras_require={
        name.removesuffix("_requirements"): value.split()
        for name, value in cfg.items()
        if name.endswith("_requirements")
    },
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    cmdclass={"build_py": BuildWithStudy},
    zip_safe=False,
)
