"""What a model is not asked to assert: kinds of question, and the live check of a yes/no answer."""
