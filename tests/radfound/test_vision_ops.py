import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import torchvision",
        "import transformers, torch, peft, torchvision",
        "from transformers import Qwen2VLImageProcessor; Qwen2VLImageProcessor()",
        "from transformers import Qwen2VLVideoProcessor, SmolVLMVideoProcessor",
        "from torchvision.transforms.v2 import functional; import torchvision.io",
    ],
)
def test_torchvision_loads_beside_this_torch(code):
    run(f"import radfound; {code}")


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
