"""RadFound's own model in Hugging Face form: configuration, modules, processor, sizes, checkpoints.

May import `radfound.study` and what keeps files whole from `radfound.records`; nothing here answers a
question, that is `radfound.engine`.
"""
