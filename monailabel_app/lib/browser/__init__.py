"""The panel in a browser: ask about a study, correct, and go on to the next; also inside OHIF.

The page uses the routes that every other client uses, and those of this folder for the pictures. `viewer` serves
the OHIF viewer of the monailabel wheel, with the settings and the extension in `ohif`. May import `radfound` and
the app's `answering`, not `routes`.
"""
