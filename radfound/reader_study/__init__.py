"""Reader studies: radiologists rate answers, captions and reports in a browser, blinded to the source."""
