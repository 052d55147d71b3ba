"""What a model is worth: suites of prompts, the scores that they go by, and tables of them."""
