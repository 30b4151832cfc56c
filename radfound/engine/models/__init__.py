"""Which models there are, and which are loaded.

`choice.py` reads one model as named on a command line, `settings.py` the settings file with several; `build.py`
makes their backends, `registry.py` loads them at their first question and closes the least used; `check.py` tries
a model, `cli.py` has `radfound models`. Imports backends inside functions only; never torch.
"""
