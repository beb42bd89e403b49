"""Words: numbers, units and money as text, and tables as files."""
