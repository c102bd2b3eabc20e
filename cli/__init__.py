"""What a person types: one file per command group, thin: parse, call, show."""
