import json

import numpy as np
import pytest
from PIL import Image

PATIENTS = 8
PLANES = ("axial", "coronal")


@pytest.fixture(scope="session")
def own_data(tmp_path_factory):
    """One's own JSONL file: `PATIENTS` patients with one picture each in every split, in two planes."""
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    rows = []
    for split in ("train", "validation", "test"):
        for number in range(PATIENTS):
            plane = PLANES[number % 2]
            name = f"{split}{number}.png"
            picture = rng.integers(0, 60, (32, 32)).astype(np.uint8)
            picture[:, :16] += 120 * (plane == "axial")
            Image.fromarray(picture).save(folder / name)
            rows.append(
                {
                    "patient": f"{split}-{number}",
                    "images": [name],
                    "split": split,
                    "modality": "CT",
                    "plane": plane,
                    "region": "head",
                    "caption": f"{plane.capitalize()} CT of the brain with a small mass.",
                    "findings": "There is a mass. No hydrocephalus.",
                    "impression": "Mass.",
                    "questions": [
                        {"question": "Is there a mass?", "answer": "Yes", "kind": "closed"},
                        {"question": "Is it axial?", "answer": "Yes" if number % 2 == 0 else "No", "kind": "closed"},
                        {"question": "Where is the mass?", "answer": "frontal lobe", "kind": "open"},
                    ],
                }
            )  # fmt: skip
    file = folder / "studies.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
