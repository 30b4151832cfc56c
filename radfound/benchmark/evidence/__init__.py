"""Whether evidence maps point to what was asked about: phantoms with lesions at known places."""
