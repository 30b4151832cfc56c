"""What corrections teach before any training: recall, wording and heads, with every backend.

`recall` answers a corrected question about the same study, `wording` applies a department's accepted templates,
`heads` learns a closed set of answers from cached features, `effect` previews what a correction changes and
`agreement` compares readers. `Teaching` is the entry point of a service. Imports the records, corrections,
questions and regions; numpy and scipy, no torch.
"""

from radfound.teaching.taught import Reading, Taught
from radfound.teaching.teaching import Teaching

__all__ = ["Reading", "Taught", "Teaching"]
