"""Claims: from differences to judgements and their words."""
