"""Controls that tell looking from guessing: words alone, pairs of pictures, leads by kind of question, silence."""
