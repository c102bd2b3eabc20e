"""One self-contained page that shows a search: maps of all studies, each study behind its cell."""
