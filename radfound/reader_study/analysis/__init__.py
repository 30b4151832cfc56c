"""What the ratings say: effects, agreement, plots, the report, and corrections out of them."""
