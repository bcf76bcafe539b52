"""A benchmark from its config to a report; what is done is not done again."""
