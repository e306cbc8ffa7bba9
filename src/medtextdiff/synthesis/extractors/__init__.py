"""What turns images into features for evaluation: one file per kind, whose `Config.build()` gives an Extractor."""
