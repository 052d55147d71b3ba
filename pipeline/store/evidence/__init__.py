"""What a run keeps beside its objects, or can be held against, when one of them is doubted."""
