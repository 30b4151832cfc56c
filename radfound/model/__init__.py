"""RadFound's own model in Hugging Face form: configuration, modules, processor, sizes, checkpoints.

Imports `radfound.study` and the file helpers of `radfound.records`. Questions are answered by
`radfound.engine`.
"""
