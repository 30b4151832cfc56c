import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_torchvision_loads_beside_this_torch_whoever_imports_it():
    run(
        "import radfound, transformers, torch, peft\n"
        "from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor, SmolVLMVideoProcessor\n"
        "Qwen2VLImageProcessor()\n"
        "from torchvision.transforms.v2 import functional\n"
        "import torchvision.io"
    )


def test_torchvision_and_torch_are_not_imported_before_they_are_needed():
    run("import sys, radfound; assert not {'torch', 'torchvision'} & set(sys.modules)")


def test_a_binary_that_fits_is_used_as_it_is(tmp_path):
    # On a torch with CUDA nothing is declared; here the binary's load is made to succeed.
    run(
        "import torch, radfound.vision_ops as ops\n"
        "torch.ops.load_library = lambda path: None\n"
        "from pathlib import Path\n"
        f"folder = Path({str(tmp_path)!r}); (folder / '_C.so').touch()\n"
        "ops._declare_operators(folder)\n"
        "assert not ops._KEPT"
    )
