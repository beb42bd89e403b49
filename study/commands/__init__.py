"""What the commands do, from a checked specification to what a user sees."""
