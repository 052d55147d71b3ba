"""The gallery: a page of plain files that shows a run or a set, from disk or from a bucket."""
