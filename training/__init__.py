"""How RadFound learns: alignment, instruction tuning, and fine-tuning on corrections."""

import radfound  # noqa: F401  # before torch: sets how torch's threads wait
