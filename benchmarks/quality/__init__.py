"""Work to a reference's quality: what a search costs until it is as good as many independent full trials."""
