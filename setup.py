"Installs the package that the notebooks export; every setting is in settings.ini."
from configparser import ConfigParser

from setuptools import find_packages, setup

cfg = ConfigParser(delimiters=["="])
cfg.read("settings.ini", encoding="utf-8")
cfg = cfg["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    author=cfg["author"],
    license="Apache-2.0",
    packages=find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    python_requires=f">={cfg['min_python']},<3.12",
    install_requires=cfg["requirements"].split(),
    extras_require={name.removesuffix("_requirements"): value.split() for name, value in cfg.items()
                    if name.endswith("_requirements")},
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    zip_safe=False,
)
