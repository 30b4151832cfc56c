"""Between panel and server: questions, answers, corrections on their way, work in the background."""
