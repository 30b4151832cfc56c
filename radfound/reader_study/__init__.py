"""Reader studies: radiologists rate answers, captions and reports in a browser, without knowing whose they are."""
