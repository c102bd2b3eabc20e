"""What the search found, scored and tabulated."""
