"""Analysis of ratings: effects, agreement, plots, report, and export as corrections."""
